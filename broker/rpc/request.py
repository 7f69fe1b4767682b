"""One call over HTTP: who calls, what is asked, the answer in JSON; `broker.rpc.http` has the rest.

An answer is `{"result": …}`, or `{"error": {"code", "message", "problems"}}` with a status; a
stream is server-sent events. `GET /console/` is the console (`broker.rpc.console`).
"""

# twisted.web is typed in part: its Request has methods without annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.web import http
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import provider

from broker.rpc import console
from broker.rpc.catalogue import METHODS
from broker.rpc.decode import decode_arguments
from broker.rpc.errors import HTTP_STATUS, RpcError, error_body
from broker.rpc.methods import Nothing
from broker.rpc.stream import EventStream
from broker.text.exposition import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from broker.rpc.admin import Caller
    from broker.rpc.http import AdminChannel
    from broker.rpc.table import Method

PREFIX: Final = b"/v1/"
METRICS: Final = b"/metrics"
DESCRIPTION: Final = b"/openapi.json"
_INTERNAL: Final = (
    "the broker failed inside; its log says why; whether the call took effect is unknown"
)


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
        self._send(HTTP_STATUS[error.code], error_body(error))

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
