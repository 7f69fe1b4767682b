"""Tells the broker that this agent lives, and how its gates are: one node, every few seconds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from broker import VERSION
from broker.agent.regular_report import RegularReport
from broker.core.agent_report import PERIOD, AgentReport, encode_agent_report
from broker.xenstore.paths import agent_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor


_LOOK: Final = 1.0
"""Seconds between looks at whether it is time to report."""


class SelfReports(RegularReport):
    """Reports domain `domid`'s agent, while it runs: when it is time, or to a store not told yet.

    `states()` are its gates' as reported, `beat()` says whether the broker is heard, and
    `policy()` which policy its bridges follow, if any.
    """

    def __init__(
        self,
        domid: int,
        reactor: Reactor,
        connection: Callable[[], StoreConnection],
        *,
        states: Callable[[], Iterable[str]],
        beat: Callable[[], bool],
        policy: Callable[[], str | None],
    ) -> None:
        super().__init__(agent_path(domid), reactor, connection, _LOOK)
        self._states = states
        self._beat = beat
        self._policy = policy
        self._version = VERSION
        self._told: tuple[StoreConnection, float] | None = None

    def news(self, connection: StoreConnection, now: float) -> str | None:
        """How the agent is, if it is time."""
        if self._told is not None and self._told[0] is connection and now < self._told[1]:
            return None
        counts = Counter(self._states())
        return encode_agent_report(
            AgentReport(
                at=int(now),
                version=self._version,
                policy=self._policy(),
                beat=self._beat(),
                open=counts["open"],
                closed=counts["closed"],
                suspended=counts["suspended"],
                failed=counts["failed"],
            )
        )

    def told(self, connection: StoreConnection, now: float) -> None:
        """The next time is a period from then."""
        self._told = connection, now + PERIOD
