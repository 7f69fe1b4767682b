"""Tells the broker what filter profiles did: one node, written now and then if it is news."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.agent.regular_report import RegularReport
from broker.core.filter_report import encode_filter_report
from broker.xenstore.paths import filter_counts_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.core.filter_report import Lease, RuleCount
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_BETWEEN: Final = 10.0
"""Seconds between two reports, at least; the kernel's tables are read for each."""


class FilterReports(RegularReport):
    """Reports domain `domid`'s rules' counts and learned addresses (`counted()`), while it runs."""

    def __init__(
        self,
        domid: int,
        reactor: Reactor,
        connection: Callable[[], StoreConnection],
        counted: Callable[[], tuple[Sequence[RuleCount], Sequence[Lease]]],
    ) -> None:
        super().__init__(filter_counts_path(domid), reactor, connection, _BETWEEN)
        self._counted = counted
        self._found: tuple[Sequence[RuleCount], Sequence[Lease]] = (), ()
        self._told: tuple[StoreConnection, object] | None = None

    def news(self, connection: StoreConnection, now: float) -> str | None:
        """What was counted and learned, if this store was not told; nothing at all is no news."""
        self._found = self._counted()
        if self._told == (connection, self._found) or (self._told is None and not any(self._found)):
            return None
        return encode_filter_report(int(now), *self._found)

    def told(self, connection: StoreConnection, now: float) -> None:  # noqa: ARG002 - as overridden
        """What was found then is no news to this store any more."""
        self._told = connection, self._found
