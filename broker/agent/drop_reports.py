"""Tells the broker what was refused between vifs: one node, written now and then if it is news."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet import defer, task
from twisted.logger import Logger

from broker.core.drops import encode_drops
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.paths import drops_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.core.drops import Drop
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_BETWEEN: Final = 5.0
"""Seconds between two reports, at least; a guest that is refused much costs no more."""


class DropReports:
    """Reports `counted()`, domain `domid`'s, while it runs."""

    log = Logger()

    def __init__(
        self,
        domid: int,
        reactor: Reactor,
        connection: Callable[[], StoreConnection],
        counted: Callable[[], Sequence[Drop]],
    ) -> None:
        self._path = drops_path(domid)
        self._reactor = reactor
        self._connection = connection
        self._counted = counted
        self._told: tuple[StoreConnection, Sequence[Drop]] | None = None
        self._loop = task.LoopingCall(self._run)
        self._loop.clock = reactor

    def start(self) -> None:
        """From now on."""
        self._loop.start(_BETWEEN, now=False)

    def stop(self) -> None:
        """No more; what was told stays."""
        if self._loop.running:
            self._loop.stop()

    def _run(self) -> defer.Deferred[None]:
        return defer.Deferred.fromCoroutine(self.report())

    async def report(self) -> None:
        """Tell it, if it is news or the store may have lost it."""
        drops = self._counted()
        try:
            connection = self._connection()
            if not drops or self._told == (connection, drops):
                return
            text = encode_drops(int(self._reactor.seconds()), drops)
            await connection.write(self._path, text.encode("ascii"))
        except ConnectionLostError:
            return
        except StoreError as error:
            # Usual for a while in a driver domain: dom0's helper makes the node with the first vif.
            self.log.debug("refused packets cannot be reported: {error}", error=error)
            return
        self._told = connection, drops
