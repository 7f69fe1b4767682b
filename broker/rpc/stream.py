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

MOST_BYTES: Final = 1 << 18
"""Of events kept for a client that does not read; however few they are."""
_KEEP_ALIVE: Final = b": keep-alive\n\n"


class Sender(Protocol):
    """What a handler of a stream is given: to be called with each event; it never blocks.

    A handler that can wait (its events are on the disk) sends only while `ready`, and sets
    `on_ready` to be called when the client has taken all it was sent.
    """

    on_ready: Callable[[], None]

    @property
    def ready(self) -> bool:
        """Whether an event would go to the client at once."""
        ...

    def __call__(self, event: object, number: int | None = None) -> None:
        """Send an event; `number` is the one to ask for what follows it by."""
        ...

    def lagged(self, lost: int) -> None:
        """Tell the client that so many events are gone."""
        ...


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
    events, and `MOST_BYTES` of them, are kept; then events are counted instead, and when it reads
    again it gets what was kept and one `lagged` event with the number it lost. A client that
    reads nothing for `stall` seconds is dropped. Every `keep_alive` seconds a comment is sent, so
    that both ends notice when the other is gone.
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
        self._kept_bytes = 0
        self._lost = 0
        self.on_ready: Callable[[], None] = lambda: None
        # Paused until start(): the response's headers have to go first.
        self._paused_since: float | None = clock.seconds()
        self._unsubscribe: Callable[[], None] | None = None
        self._closed = False
        self._tick = LoopingCall(self._on_tick)
        self._tick.clock = clock

    @property
    def ready(self) -> bool:
        """Whether an event would go to the client at once."""
        return self._paused_since is None and not self._kept and not self._closed

    def lagged(self, lost: int) -> None:
        """Tell the client that so many events are gone."""
        if not self._closed:
            self._lost += lost
            self._flush()

    def __call__(self, event: object, number: int | None = None) -> None:
        """Pass on one event; never blocks, never raises."""
        if self._closed:
            return
        full = len(self._kept) >= self._bound or self._kept_bytes >= MOST_BYTES
        if self._lost or full:
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
            name = b"" if number is None else b"id: %d\n" % number
            self._kept.append(b"%bdata: %b\n\n" % (name, data))
            self._kept_bytes += len(data)
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
        self.on_ready = lambda: None
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
        if self.ready:
            self.on_ready()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's interface
        """The connection is lost."""
        self.close()

    def _flush(self) -> None:
        # Writing can pause this stream again, from inside.
        while self._kept and self._paused_since is None:
            self._outlet.write(self._kept.popleft())
        if not self._kept:
            self._kept_bytes = 0
        if self._lost and self._paused_since is None:
            lost, self._lost = self._lost, 0
            self._outlet.write(b'event: lagged\ndata: {"lost":%d}\n\n' % lost)

    def _on_tick(self) -> None:
        if self._paused_since is None:
            self._outlet.write(_KEEP_ALIVE)
        elif self._clock.seconds() - self._paused_since >= self._stall:
            self._outlet.abort()
