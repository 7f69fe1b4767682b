"""HTTP and JSON for the methods of the table: `POST /v1/<method>` with a JSON object.

Connections and their limits; one call is a `broker.rpc.request`. Whatever is refused is refused as
early as it can be: who calls, and how much it announces, before the body is read; the body's size
before it is parsed.
"""

# twisted.web is typed in part: its HTTPChannel has methods without annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.web import http

from broker.rpc import openapi
from broker.rpc.catalogue import METHODS
from broker.rpc.errors import HTTP_STATUS, RpcError, error_body
from broker.rpc.limits import Limits, Places, Rates
from broker.rpc.request import AdminRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

    from broker.rpc.admin import Admin, Caller
    from broker.rpc.table import Table

_MALFORMED: Final = "the request is malformed, or its headers are too many or too long"


class AdminChannel(http.HTTPChannel):
    """One connection, with the limits on headers and time."""

    _log = Logger()
    factory: AdminFactory
    requestFactory: type[http.Request] = AdminRequest  # noqa: N815 - Twisted's name

    def __init__(self, factory: AdminFactory) -> None:
        super().__init__()
        self.factory = factory
        self.caller: Caller | None = None
        self._refused = False
        self._spilled = 0
        self.watching: Callable[[], None] | None = None
        self.maxHeaders = factory.limits.headers
        self.totalHeadersSize = factory.limits.header_bytes
        self.timeOut: int | None = factory.limits.request_time

    def wait(self) -> None:
        """Let no time run until `begin`: who is to speak has yet to come."""
        self.timeOut = None

    def begin(self) -> None:
        """The other end begins to speak: the time for its request runs."""
        self.timeOut = self.factory.limits.request_time
        self.setTimeout(self.timeOut)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Read on, unless the answer was given; who goes on sending then is dropped after a while.

        Over TLS a connection that is to be closed goes on receiving until the other end agrees.
        """
        if not self._refused:
            super().dataReceived(data)
            return
        self._spilled += len(data)
        if self._spilled > self.factory.limits.body:
            self.abort()

    def refuse(self, error: RpcError) -> None:
        """Answer before everything was read, and hang up."""
        self._refused = True
        status, body = HTTP_STATUS[error.code], error_body(error)
        connection: Any = self.transport
        connection.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (status, http.RESPONSES.get(status, b"Refused"), len(body), body)
        )
        self.loseConnection()

    def _send100Continue(self) -> None:  # noqa: N802 - Twisted's name
        """Whoever was refused is not told to go on."""
        if not self._refused:
            super()._send100Continue()

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - Twisted's name
        """Twisted's own answer to a malformed head has no body; ours says what is understood."""
        self.refuse(RpcError("bad_request", _MALFORMED))

    def callLater(self, period: float, func: Callable[[], object]) -> object:  # noqa: N802 - Twisted's name
        """The channel's time-outs run on the factory's clock."""
        return self.factory.clock.callLater(period, func)

    def abort(self) -> None:
        """Drop the connection at once."""
        connection: Any = self.transport
        connection.abortConnection()

    def resetTimeout(self) -> None:  # noqa: N802 - Twisted's name
        """Not on every byte: the time runs for a whole request."""

    def identified(self, caller: Caller) -> None:
        """Somebody stands behind this connection.

        Raises:
            RpcError: `too_many`, he has too many connections.
        """
        if self.caller is None:
            self.factory.check_connections(caller)
        self.caller = caller

    def recheck(self) -> None:
        """A stream goes on only for whom it would begin: ask again, and hang up if not."""
        if self.watching is None:
            return
        try:
            self.factory.identify(self.transport)
            self.watching()
        except RpcError as error:
            self._log.info("a stream ends: {message}", message=error.message)
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The connection's place is free again."""
        self.factory.left(self, reason)
        super().connectionLost(reason)


class AdminFactory(ServerFactory[Any]):
    """Makes connections, as many as allowed; `identify` tells who is at a transport's other end.

    `local` is the listener whose callers the kernel vouches for: people's limits are not for
    them. `places` is what all listeners of a broker share.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        admin: Admin,
        identify: Callable[[Any], Caller],
        clock: IReactorTime,
        *,
        local: bool,
        limits: Limits | None = None,
        places: Places | None = None,
        table: Table = METHODS,
    ) -> None:
        self.admin = admin
        self.identify = identify
        self.clock = clock
        self.limits = limits or Limits()
        self.table = table
        self.description = openapi.text(table)
        self.channels: set[AdminChannel] = set()
        self._local = local
        self._places = places or Places()
        self._rates = Rates(self.limits.person_burst, self.limits.person_rate)
        self._arrivals = Rates(self.limits.address_burst, self.limits.address_rate)
        self._turned_away = 0

    def buildProtocol(self, addr: IAddress | None) -> AdminChannel | None:  # noqa: N802 - Twisted's name
        """A connection, or None (it is closed at once) where there are too many, or too fast."""
        channel = AdminChannel(self)
        # Only an address of the network is somebody's; sockets in the file system are not.
        host: str | None = getattr(addr, "host", None)
        early = host is not None and self._arrivals.take(host, self.clock.seconds()) > 0
        if early or not self._places.enter(channel, local=self._local):
            if not self._turned_away:
                self._log.warn("connections are refused: {held} are held", held=self._places.held)
            self._turned_away += 1
            return None
        if self._turned_away:
            self._log.warn("{count} connections were refused", count=self._turned_away)
            self._turned_away = 0
        self.channels.add(channel)
        return channel

    def left(self, channel: AdminChannel, reason: Failure) -> None:
        """A connection has ended, for `reason`."""
        self.channels.discard(channel)
        self._places.leave(channel)
        error = reason.value
        if channel.caller is None and isinstance(error, SSL.Error):
            self.admin.turned_away(f"TLS: {error}")

    def check_connections(self, caller: Caller) -> None:
        """Let a person have one connection more.

        Raises:
            RpcError: `too_many`.
        """
        most = self.limits.person_connections
        if not self._local and self._places.of_person(caller.person) >= most:
            raise RpcError("too_many", f"{caller.subject} has {most} connections already")

    def take_call(self, caller: Caller) -> None:
        """Count one call of a person.

        Raises:
            RpcError: `too_many`, with how long to wait.
        """
        if self._local:
            return
        wait = self._rates.take(caller.person, self.clock.seconds())
        if wait:
            raise RpcError(
                "too_many",
                f"{caller.subject} calls more than {self.limits.person_rate:g} times a second; "
                f"wait {wait:.2f} s",
            )

    def recheck(self) -> None:
        """Ask again whether those who watch still may; called now and then."""
        for channel in list(self.channels):
            channel.recheck()

    def log(self, request: http.Request) -> None:
        """Twisted would write an access log; the audit says who called."""
