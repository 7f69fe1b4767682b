"""Requests out and answers in, many under way at once, on one connection to a store.

A batch of requests has one Deferred, whatever its size, and a single request is a batch of one.
At most `WINDOW` requests (or what the transport bears) are unanswered on the wire; the rest wait
their turn, in order.
"""

from __future__ import annotations

import typing
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from twisted.internet import defer
from twisted.internet.protocol import Protocol, connectionDone

from broker.xenstore import wire
from broker.xenstore.errors import ConnectionLostError, QuotaError, StoreError, error_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from broker.xenstore.requests import Request

    Answer = bytes | StoreError

WINDOW: Final = 64
"""Requests unanswered at once: C xenstored's gain levels off at 32, fewer wake-ups gain more."""
_WORD: Final = 0xFFFFFFFF


class Abortable(typing.Protocol):
    """A transport that can be closed without flushing: unix sockets and the xenbus device."""

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Close at once."""


class _Batch:
    """Requests that are answered together, how many were sent, and how many answers lack."""

    __slots__ = ("answers", "deferred", "missing", "requests", "sent", "transaction")

    def __init__(self, requests: Sequence[Request], transaction: int) -> None:
        self.requests = requests
        self.transaction = transaction
        self.sent = 0
        self.missing = len(requests)
        self.answers: list[Answer] = [b""] * len(requests)
        self.deferred: defer.Deferred[list[Answer]] = defer.Deferred()


class Pipeline(Protocol):
    """A connection to a store: batches of requests, watch events, and the end of it.

    `on_event(path, token)` is called for each watch event as it is read; reading never pauses.
    `lost` fires with the reason, once, when the connection is gone; by then everything
    outstanding has failed with `ConnectionLostError`.
    """

    def __init__(self, on_event: Callable[[str, str], None]) -> None:
        self.lost: defer.Deferred[ConnectionLostError] = defer.Deferred()
        self._on_event = on_event
        self._decoder = wire.Decoder()
        self._queue: deque[_Batch] = deque()
        self._pending: dict[int, tuple[_Batch, int]] = {}
        self._last_id = 0
        self._receiving = False
        self._max_payload = wire.MAX_PAYLOAD
        self._window = WINDOW
        self._open = False
        self._reason = ""

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Begin; a transport may take less in a frame, and fewer of them, than others do."""
        self._max_payload = getattr(self.transport, "max_payload", wire.MAX_PAYLOAD)
        self._window = getattr(self.transport, "window", WINDOW)
        self._open = True

    def request_many(
        self, requests: Sequence[Request], tx: int = 0
    ) -> defer.Deferred[list[Answer]]:
        """The answer to each request, in order: a payload, or the error the store sent.

        Errbacks with `ConnectionLostError` if the connection ends before the last answer.
        """
        if not self._open:
            return defer.fail(ConnectionLostError("not connected to the store"))
        if not requests:
            return defer.succeed([])
        batch = _Batch(requests, tx)
        self._queue.append(batch)
        if not self._receiving:
            self._pump()
        return batch.deferred

    def request(self, request: Request, tx: int = 0) -> defer.Deferred[bytes]:
        """The answer to one request.

        Errbacks with the `StoreError` the store sent, or `ConnectionLostError`.
        """
        return self.request_many((request,), tx).addCallback(_only)

    def close(self) -> None:
        """End the connection; everything outstanding fails with `ConnectionLostError`."""
        self._drop()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Take in bytes from the store, however they are split."""
        self._receiving = True
        try:
            self._take_in(data)
        except wire.FrameError as error:
            self._reason = f"the store broke the protocol: {error}"
            self._drop()
        finally:
            self._receiving = False
        self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Fail everything outstanding, then tell whoever waits for the end."""
        self._open = False
        why = self._reason or reason.getErrorMessage()
        batches = dict.fromkeys(batch for batch, _ in self._pending.values())
        batches.update(dict.fromkeys(self._queue))
        self._pending.clear()
        self._queue.clear()
        for batch in batches:
            batch.deferred.errback(ConnectionLostError(why))
        self.lost.callback(ConnectionLostError(why))

    def _drop(self) -> None:
        self._open = False
        transport = cast("Abortable | None", self.transport)
        if transport is not None:
            transport.abortConnection()

    def _take_in(self, data: bytes) -> None:
        # The hot path: every answer to every request passes here.
        pending = self._pending
        for operation, request_id, _, payload in self._decoder.receive_data(data):
            if operation == wire.WATCH_EVENT:
                self._dispatch(payload)
                continue
            entry = pending.get(request_id)
            if entry is None:
                raise wire.FrameError("an answer to no request")
            batch, index = entry
            request = batch.requests[index]
            if operation == request[0]:
                batch.answers[index] = payload
            elif operation == wire.ERROR:
                batch.answers[index] = _refusal(payload, request)
            else:
                raise wire.FrameError(f"{operation} answers a request of {request[0]}")
            del pending[request_id]
            batch.missing -= 1
            if not batch.missing:
                batch.deferred.callback(batch.answers)

    def _dispatch(self, payload: bytes) -> None:
        strings = payload.split(b"\0")
        if len(strings) < 3:
            raise wire.FrameError("a watch event without a path and a token")
        self._on_event(strings[0].decode(wire.ENCODING), strings[1].decode(wire.ENCODING))

    def _pump(self) -> None:
        """Send what the window has room for."""
        room = self._window - len(self._pending)
        # By half a window at a time: the store stays busy, and there are fewer system calls.
        if room < (self._window + 1) // 2 or not self._queue or not self._open:
            return
        frames: list[bytes] = []
        refused: list[_Batch] = []
        pack = wire.HEADER.pack
        while room > 0 and self._queue:
            batch = self._queue[0]
            stop = min(batch.sent + room, len(batch.requests))
            for index in range(batch.sent, stop):
                operation, payload = batch.requests[index]
                if len(payload) > self._max_payload:
                    batch.answers[index] = QuotaError("E2BIG", f"over {self._max_payload} bytes")
                    batch.missing -= 1
                    continue
                self._last_id = request_id = (self._last_id + 1) & _WORD
                self._pending[request_id] = (batch, index)
                frames.append(
                    pack(operation, request_id, batch.transaction, len(payload)) + payload
                )
            room = self._window - len(self._pending)
            batch.sent = stop
            if stop == len(batch.requests):
                self._queue.popleft()
                if not batch.missing:
                    refused.append(batch)
        if frames and self.transport is not None:
            self.transport.writeSequence(frames)
        for batch in refused:
            batch.deferred.callback(batch.answers)


def _only(answers: list[Answer]) -> bytes:
    answer = answers[0]
    if isinstance(answer, StoreError):
        raise answer
    return answer


def _refusal(payload: bytes, request: Request) -> StoreError:
    subject = request[1].partition(b"\0")[0].decode(wire.ENCODING)
    return error_for(payload.rstrip(b"\0").decode(wire.ENCODING)[:32], subject)
