"""Tells the broker that this agent lives, and how its gates are: one node, every few seconds."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from twisted.internet import defer, task
from twisted.logger import Logger

from broker.core.agent_report import PERIOD, AgentReport, encode_agent_report
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.paths import agent_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor


_LOOK: Final = 1.0
"""Seconds between looks at whether it is time to report."""


class SelfReports:
    """Reports domain `domid`'s agent, while it runs.

    `states()` are its gates' as reported, `beat()` says whether the broker is heard, and
    `policy()` which policy its bridges follow, if any.
    """

    log = Logger()

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
        self._path = agent_path(domid)
        self._reactor = reactor
        self._connection = connection
        self._states = states
        self._beat = beat
        self._policy = policy
        self._version = version("xen-policy-broker")
        self._told: tuple[StoreConnection, float] | None = None
        self._loop = task.LoopingCall(self._run)
        self._loop.clock = reactor

    def start(self) -> None:
        """From now on."""
        self._loop.start(_LOOK)

    def stop(self) -> None:
        """No more; the broker sees that it grows old."""
        if self._loop.running:
            self._loop.stop()

    def _run(self) -> defer.Deferred[None]:
        return defer.Deferred.fromCoroutine(self.report())

    async def report(self) -> None:
        """Tell it if it is time, or to a store that was not told yet."""
        try:
            connection, now = self._connection(), self._reactor.seconds()
            if self._told is None or self._told[0] is not connection or now >= self._told[1]:
                await connection.write(self._path, self._text().encode("ascii"))
                self._told = connection, now + PERIOD
        except ConnectionLostError:
            return
        except StoreError as error:
            # Usual for a while in a driver domain: dom0's helper makes the node with a channel.
            self.log.debug("the agent cannot report itself: {error}", error=error)

    def _text(self) -> str:
        counts = Counter(self._states())
        return encode_agent_report(
            AgentReport(
                at=int(self._reactor.seconds()),
                version=self._version,
                policy=self._policy(),
                beat=self._beat(),
                open=counts["open"],
                closed=counts["closed"],
                suspended=counts["suspended"],
                failed=counts["failed"],
            )
        )
