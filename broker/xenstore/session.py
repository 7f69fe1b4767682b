"""A store connection that is made again whenever it ends.

Each new connection starts from nothing: a daemon that was killed comes back with an empty store,
so `on_connect` sets its watches and reads everything anew, every time.
"""

from __future__ import annotations

from secrets import SystemRandom
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.application import service
from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.transport import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.xenstore.transport import Reactor

FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 5.0
"""Seconds between attempts: doubled each time, then drawn between half and the whole."""

_T = TypeVar("_T")


class StoreSession(service.Service):
    """Keeps one connection to the store at `address` (`unix:PATH`, `xenbus`, `xenbus:PATH`).

    `on_connect(connection)` runs after each connect; the session counts as up once it is done,
    and if it fails, the connection is dropped and made again. `on_event(path, token)` gets every
    watch event, as it is read. `on_disconnect(reason)` runs once for each `on_connect`, when its
    connection has ended, and not when the service itself is stopped.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        reactor: Reactor,
        *,
        on_connect: Callable[[StoreConnection], Awaitable[None]],
        on_event: Callable[[str, str], None],
        on_disconnect: Callable[[Failure], None],
        first_delay: float = FIRST_DELAY,
        longest_delay: float = LONGEST_DELAY,
    ) -> None:
        self.address = address
        self.connection: StoreConnection | None = None
        """The present connection, from before `on_connect` until it is lost."""
        self._reactor = reactor
        self._on_connect = on_connect
        self._on_event = on_event
        self._on_disconnect = on_disconnect
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._random = SystemRandom()
        self._loop: defer.Deferred[None] = defer.succeed(None)

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Connect, and keep connecting."""
        service.Service.startService(self)
        self._loop = defer.Deferred.fromCoroutine(self._run())
        self._loop.addErrback(self._loop_failed)

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802 - Twisted's name
        """End the connection; fires when it has ended."""
        service.Service.stopService(self)
        stopped: defer.Deferred[None] = defer.Deferred()
        self._loop.addBoth(_fire, stopped)
        if self.connection is None:
            self._loop.cancel()
        else:
            self.connection.close()
        return stopped

    async def _run(self) -> None:
        delay = self._first_delay
        while self.running:
            connection = StoreConnection(self._on_event, self._reactor)
            try:
                await connect(self._reactor, self.address, connection)
            except OSError as error:
                self.log.warn(
                    "no store at {address}: {error}; trying again",
                    address=self.address,
                    error=error,
                )
            else:
                if await self._live(connection):
                    delay = self._first_delay
            if self.running:
                await task.deferLater(self._reactor, self._random.uniform(delay / 2, delay))
                delay = min(2 * delay, self._longest_delay)

    async def _live(self, connection: StoreConnection) -> bool:
        """One connection's life; whether it was ever fully up."""
        self.connection = connection
        preparing = defer.Deferred.fromCoroutine(self._prepare(connection))
        connection.lost.addCallback(self._disconnected, preparing)
        ready = await preparing.addCallbacks(_yes, self._refused, errbackArgs=(connection,))
        await connection.lost
        return ready

    async def _prepare(self, connection: StoreConnection) -> None:
        await self._on_connect(connection)

    def _refused(self, failure: Failure, connection: StoreConnection) -> bool:
        # Whatever went wrong: a connection that is not fully taken up is of no use.
        if failure.check(StoreError):
            if not failure.check(ConnectionLostError):
                self.log.error(
                    "could not take up the store at {a}: {error}",
                    a=self.address,
                    error=failure.value,
                )
        elif not failure.check(defer.CancelledError):
            self.log.failure("could not take up the store at {a}", failure, a=self.address)
        connection.close()
        return False

    def _loop_failed(self, failure: Failure) -> None:
        if self.running or not failure.check(defer.CancelledError):
            self.log.failure("the store session at {a} is over", failure, a=self.address)

    def _disconnected(
        self, reason: ConnectionLostError, preparing: defer.Deferred[None]
    ) -> ConnectionLostError:
        self.connection = None
        # It must not wait for whatever else it may be awaiting.
        preparing.cancel()
        if self.running:
            self.log.warn("lost the store at {a}: {reason}", a=self.address, reason=reason)
            self._on_disconnect(Failure(reason))
        return reason


def _yes(_: None) -> bool:
    return True


def _fire(result: _T, waiting: defer.Deferred[None]) -> _T:
    waiting.callback(None)
    return result
