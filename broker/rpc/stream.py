"""Server-sent events for one client: bounded, and `lagged` instead of waiting for it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

_KEEP_ALIVE: Final = b": keep-alive\n\n"


class Outlet(Protocol):
    """Where a stream goes."""

    def write(self, data: bytes) -> object:
        """Send bytes, sooner or later."""
        ...

    def abort(self) -> None:
        """Drop the client at once."""
        ...


@implementer(IPushProducer)
class EventStream:
    """Events on their way to one client.

    While the client reads, an event is written as it comes. While it does not, at most `bound`
    events are kept; then events are counted instead, and when it reads again it gets what was
    kept and one `lagged` event with the number it lost. A client that reads nothing for `stall`
    seconds is dropped. Every `keep_alive` seconds a comment is sent, so that both ends notice
    when the other is gone.
    """

    _log = Logger()

    def __init__(
        self, outlet: Outlet, clock: IReactorTime, *, bound: int, keep_alive: float, stall: float
    ) -> None:
        self._outlet = outlet
        self._clock = clock
        self._bound = bound
        self._keep_alive = keep_alive
        self._stall = stall
        self._kept: deque[bytes] = deque()
        self._lost = 0
        # Paused until start(): the response's headers have to go first.
        self._paused_since: float | None = clock.seconds()
        self._unsubscribe: Callable[[], None] | None = None
        self._closed = False
        self._tick = LoopingCall(self._on_tick)
        self._tick.clock = clock

    def send(self, event: object) -> None:
        """Pass on one event; never blocks, never raises."""
        if self._closed:
            return
        if self._lost or len(self._kept) >= self._bound:
            self._lost += 1
            return
        try:
            data = msgspec.json.encode(event)
        except (TypeError, UnicodeEncodeError, msgspec.MsgspecError):
            self._log.failure(
                "an event cannot be written as JSON; its subscriber is told it lagged"
            )
            self._lost += 1
        else:
            self._kept.append(b"data: " + data + b"\n\n")
        self._flush()

    def start(self, unsubscribe: Callable[[], None]) -> None:
        """Begin to write; `unsubscribe` is called once, when the client is gone."""
        self._unsubscribe = unsubscribe
        self._outlet.write(_KEEP_ALIVE)
        self._tick.start(self._keep_alive, now=False)
        self.resumeProducing()

    def close(self) -> None:
        """The client is gone: forget everything and unsubscribe."""
        if self._closed:
            return
        self._closed = True
        self._kept.clear()
        if self._tick.running:
            self._tick.stop()
        if self._unsubscribe is not None:
            self._unsubscribe()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's interface
        """The client does not read: keep, and then count."""
        if self._paused_since is None:
            self._paused_since = self._clock.seconds()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's interface
        """The client reads again."""
        self._paused_since = None
        self._flush()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's interface
        """The connection is lost."""
        self.close()

    def _flush(self) -> None:
        # Writing can pause this stream again, from inside.
        while self._kept and self._paused_since is None:
            self._outlet.write(self._kept.popleft())
        if self._lost and self._paused_since is None:
            lost, self._lost = self._lost, 0
            self._outlet.write(b'event: lagged\ndata: {"lost":%d}\n\n' % lost)

    def _on_tick(self) -> None:
        if self._paused_since is None:
            self._outlet.write(_KEEP_ALIVE)
        elif self._clock.seconds() - self._paused_since >= self._stall:
            self._outlet.abort()
