"""Tells the broker what was refused between vifs: one node, written now and then if it is news."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.agent.regular_report import RegularReport
from broker.core.drops import encode_drops
from broker.xenstore.paths import drops_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.core.drops import Drop
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_BETWEEN: Final = 5.0
"""Seconds between two reports, at least; a guest that is refused much costs no more."""


class DropReports(RegularReport):
    """Reports `counted()`, domain `domid`'s, while it runs, if it is news to the store."""

    def __init__(
        self,
        domid: int,
        reactor: Reactor,
        connection: Callable[[], StoreConnection],
        counted: Callable[[], Sequence[Drop]],
    ) -> None:
        super().__init__(drops_path(domid), reactor, connection, _BETWEEN)
        self._counted = counted
        self._drops: Sequence[Drop] = ()
        self._told: tuple[StoreConnection, Sequence[Drop]] | None = None

    def news(self, connection: StoreConnection, now: float) -> str | None:
        """What was refused, if there is something that this store was not told."""
        self._drops = self._counted()
        if not self._drops or self._told == (connection, self._drops):
            return None
        return encode_drops(int(now), self._drops)

    def told(self, connection: StoreConnection, now: float) -> None:  # noqa: ARG002 - as overridden
        """What was counted then is no news to this store any more."""
        self._told = connection, self._drops
