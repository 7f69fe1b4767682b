"""What an agent tells the broker of itself, now and then: one node each, in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import defer, task
from twisted.logger import Logger

from broker.xenstore.errors import ConnectionLostError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor


class RegularReport:
    """Looks every `period` seconds, while it runs, whether there is news for `path`, and tells it.

    What could not be told is looked at again the next time.
    """

    log = Logger()

    def __init__(
        self, path: str, reactor: Reactor, connection: Callable[[], StoreConnection], period: float
    ) -> None:
        self._path = path
        self._reactor = reactor
        self._connection = connection
        self._period = period
        self._loop = task.LoopingCall(self._run)
        self._loop.clock = reactor

    def start(self, *, now: bool = True) -> None:
        """From now on; or, not `now`, after a period."""
        self._loop.start(self._period, now=now)

    def stop(self) -> None:
        """No more; what was told stays, and the broker sees that it grows old."""
        if self._loop.running:
            self._loop.stop()

    def news(self, connection: StoreConnection, now: float) -> str | None:
        """What is to be told to this store at this time, if anything."""
        raise NotImplementedError

    def told(self, connection: StoreConnection, now: float) -> None:
        """The store has what `news` said."""
        raise NotImplementedError

    def _run(self) -> defer.Deferred[None]:
        return defer.Deferred.fromCoroutine(self._report())

    async def _report(self) -> None:
        try:
            connection, now = self._connection(), self._reactor.seconds()
            text = self.news(connection, now)
            if text is not None:
                await connection.write(self._path, text.encode("ascii"))
                self.told(connection, now)
        except ConnectionLostError:
            return
        except StoreError as error:
            # Usual for a while in a driver domain: dom0's helper makes the node with a channel.
            self.log.debug("{path} cannot be told: {error}", path=self._path, error=error)
