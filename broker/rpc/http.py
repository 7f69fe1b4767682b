"""HTTP and JSON for the methods of the table: `POST /v1/<method>` with a JSON object.

An answer is `{"result": …}`, or `{"error": {"code", "message", "problems"}}` with a status; a
stream is server-sent events. `GET /console/` is the console (`broker.rpc.console`). Whatever is
refused is refused as early as it can be: who calls, and how much it announces, before the body is
read; the body's size before it is parsed.
"""

# twisted.web is typed in part: its Request and HTTPChannel have methods without annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import msgspec
from OpenSSL import SSL
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.web import http
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import provider

from broker.rpc import console, openapi
from broker.rpc.catalogue import METHODS
from broker.rpc.decode import decode_arguments
from broker.rpc.errors import HTTP_STATUS, RpcError
from broker.rpc.limits import Limits, Places, Rates
from broker.rpc.methods import Nothing
from broker.rpc.stream import EventStream
from broker.text.exposition import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

    from broker.rpc.admin import Admin, Caller
    from broker.rpc.table import Method, Table

PREFIX: Final = b"/v1/"
METRICS: Final = b"/metrics"
DESCRIPTION: Final = b"/openapi.json"
_INTERNAL: Final = (
    "the broker failed inside; its log says why; whether the call took effect is unknown"
)

_MALFORMED: Final = "the request is malformed, or its headers are too many or too long"


@provider(INonQueuedRequestFactory)
class AdminRequest(http.Request):
    """One call."""

    _log = Logger()
    _refused = False
    _stream: EventStream | None = None
    _gone = False

    def __init__(self, channel: AdminChannel) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self._channel = channel
        self._site = channel.factory
        self._connection: Any = channel.transport
        self._body = BytesIO()

    # What Twisted calls, in this order

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """The headers are here (a chunked body has no `length`): admit the caller or refuse it."""
        # Twisted would put a large body into a temporary file; this one never gets large.
        self.content = self._body
        try:
            self._channel.identified(self._site.identify(self._connection))
        except RpcError as error:
            self._site.admin.turned_away(error.message)
            self._refuse(error)
            return
        if length is not None and length > self._site.limits.body:
            self._refuse(self._too_large())

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Take a part of the body, up to the cap."""
        if self._refused:
            return
        if self._body.tell() + len(data) > self._site.limits.body:
            self._refuse(self._too_large())
            return
        self._body.write(data)

    def process(self) -> None:
        """The request is whole: answer it."""
        if self._refused:
            return
        answer = ensureDeferred(self._answer())
        answer.addErrback(self._failed)

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The client is gone; what it asked for goes on, a stream ends."""
        self._gone = True
        if self._stream is not None:
            self._stream.close()
        super().connectionLost(reason)

    def abort(self) -> None:
        """Drop the client at once."""
        self._connection.abortConnection()

    # Ours

    async def _answer(self) -> None:
        caller = self._channel.caller
        if caller is None:
            raise RpcError("denied", "nobody knows who calls")
        self._site.take_call(caller)
        if self.method == b"GET" and self.uri == METRICS:
            await self._answer_scrape(caller)
            return
        if self.method == b"GET" and self._answer_get(caller):
            return
        method = self._method()
        admin = self._site.admin
        try:
            console.check_browser(self.getHeader, method)
        except RpcError as error:
            admin.turned_away(f"{caller.subject}: {error.message}")
            raise
        admin.authorize(caller, method, None)
        arguments = decode_arguments(method, self._body.getvalue())
        admin.authorize(caller, method, arguments)
        handler = getattr(admin, method.handler)
        if method.stream:
            await self._answer_stream(caller, handler, arguments)
            self._channel.watching = lambda: admin.authorize(caller, method, arguments)
            return
        result = await handler(caller, arguments)
        self._send(http.OK, msgspec.json.encode({"result": result}))

    async def _answer_scrape(self, caller: Caller) -> None:
        """Answer Prometheus, which can only GET, as the method `metrics` would."""
        admin = self._site.admin
        method, nothing = METHODS["metrics"], Nothing()
        admin.authorize(caller, method, None)
        admin.authorize(caller, method, nothing)
        metrics = await admin.metrics(caller, nothing)
        self._send(http.OK, metrics.text.encode("utf-8"), CONTENT_TYPE.encode("ascii"))

    def _answer_get(self, caller: Caller) -> bool:
        """Answer for what is only read, or False: there is no such thing."""
        if self.uri == DESCRIPTION:
            self._send(http.OK, self._site.description)
        elif self.uri == console.CALLER:
            self._send(http.OK, console.who_calls(caller))
        elif self.uri in (b"/", console.HOME[:-1]):
            self.setHeader(b"Location", console.HOME)
            self._send(http.FOUND, b"")
        elif (asset := console.assets().get(self.uri)) is not None:
            for name, value in (*console.HEADERS, (b"Cache-Control", asset.keep)):
                self.setHeader(name, value)
            self._send(http.OK, asset.body, asset.kind)
        else:
            return False
        return True

    async def _answer_stream(
        self, caller: Caller, handler: Callable[..., Any], arguments: object
    ) -> None:
        limits = self._site.limits
        stream = EventStream(
            self,
            self._site.clock,
            bound=limits.stream_events,
            keep_alive=limits.keep_alive,
            stall=limits.stall,
        )
        unsubscribe = await handler(caller, arguments, stream)
        if self._gone:
            unsubscribe()
            return
        self._stream = stream
        self.setHeader(b"Content-Type", b"text/event-stream")
        self.setHeader(b"Cache-Control", b"no-store")
        self.registerProducer(stream, streaming=True)
        stream.start(unsubscribe)

    def _method(self) -> Method:
        if self.method != b"POST":
            raise RpcError(
                "bad_request", "POST /v1/<method> is understood, GET /openapi.json and /console/"
            )
        kind = self.getHeader(b"Content-Type")
        if kind is None or kind.partition(b";")[0].strip().lower() != b"application/json":
            raise RpcError("bad_request", "the body has to be Content-Type: application/json")
        found = None
        if self.uri.startswith(PREFIX):
            found = self._site.table.find(self.uri[len(PREFIX) :].decode("latin-1"))
        if found is None:
            names = ", ".join(method.name for method in self._site.table)
            raise RpcError("not_found", f"no such method; POST /v1/ and one of: {names}")
        return found

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, RpcError):
            self._log.failure("the handler of {uri!a} failed", failure, uri=self.uri[:200])
            error = RpcError("internal", _INTERNAL)
        if self.startedWriting:
            # Too late for an error's status: half an answer is ended, never finished.
            self.abort()
            return
        self._send(HTTP_STATUS[error.code], _error_body(error))

    def _send(self, status: int, body: bytes, kind: bytes = b"application/json") -> None:
        if self._gone:
            return
        self.setResponseCode(status)
        self.setHeader(b"Content-Type", kind)
        if not self.responseHeaders.hasHeader(b"Cache-Control"):
            self.setHeader(b"Cache-Control", b"no-store")  # it is for this caller, as it is now
        self.setHeader(b"X-Content-Type-Options", b"nosniff")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def _too_large(self) -> RpcError:
        return RpcError("too_large", f"a body of at most {self._site.limits.body} bytes is read")

    def _refuse(self, error: RpcError) -> None:
        """Answer before the body was read, read no more of it, and hang up."""
        self._refused = True
        self._body.truncate(0)
        self._channel.refuse(error)


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
        status, body = HTTP_STATUS[error.code], _error_body(error)
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


def _error_body(error: RpcError) -> bytes:
    return msgspec.json.encode(
        {"error": {"code": error.code, "message": error.message, "problems": error.problems}}
    )
