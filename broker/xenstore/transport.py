"""Ways to reach a store: `unix:PATH` (a socket) or `xenbus[:PATH]` (the kernel's device)."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet import defer, error
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import (
        IAddress,
        IDelayedCall,
        IReactorFDSet,
        IReactorTime,
    )
    from twisted.internet.protocol import Protocol

    class Reactor(IReactorFDSet, IReactorTime):
        """What is asked of a reactor here: descriptors and time."""


XENBUS_DEVICE: Final = "/dev/xen/xenbus"
_READ_BYTES: Final = 65536
_RETRY: Final = 0.01
"""Seconds until a full device is tried again; Linux's takes all at once."""
_P = TypeVar("_P", bound="Protocol")


def connect(reactor: Reactor, address: str, protocol: _P) -> defer.Deferred[_P]:
    """Join `protocol` to the store at `address`.

    Errbacks with `OSError` if nobody answers there, `ValueError` if the address is of no known
    form. oxenstored, whose queue holds one connect, looks like nobody
    when a second comes before it has accepted the first: try again.
    """
    kind, _, path = address.partition(":")
    if kind == "xenbus":
        return defer.maybeDeferred(_open_device, reactor, path or XENBUS_DEVICE, protocol)
    if kind == "unix" and path:
        return defer.maybeDeferred(_open_socket, reactor, path, protocol)
    return defer.fail(ValueError(f"not a store's address: {address[:200]!a} (unix:PATH, xenbus)"))


def _open_device(reactor: Reactor, path: str, protocol: _P) -> _P:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    XenbusTransport(reactor, descriptor, protocol, path).start()
    return protocol


def _open_socket(reactor: Reactor, path: str, protocol: _P) -> _P:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        opened.connect(path)  # a unix socket is connected at once, or not at all
    except BlockingIOError as full:
        opened.close()
        raise OSError(full.errno, "its queue of connects is full") from full
    except OSError:
        opened.close()
        raise
    SocketTransport(reactor, opened, protocol, path).start()
    return protocol


@implementer(IReadDescriptor, ITransport)
class _Transport:
    """A descriptor under the reactor, read from the start until it is closed."""

    disconnecting = False

    def __init__(self, reactor: Reactor, descriptor: int, protocol: Protocol, path: str) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._protocol = protocol
        self._path = path

    def start(self) -> None:
        """Join the protocol, and begin reading unless it wants no more."""
        self._protocol.makeConnection(self)
        if not self.disconnecting:
            self._reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._descriptor

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the reactor's log."""
        return "xenstore"

    def write(self, data: bytes) -> None:
        """Send one frame."""
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[bytes]) -> None:  # noqa: N802 - Twisted's name
        """Send frames, in order; what the kernel does not take yet waits."""
        raise NotImplementedError

    def doRead(self) -> Failure | None:  # noqa: N802 - Twisted's name
        """Hand over whatever is there; the xenbus device gives answers and events byte by byte."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as failure:
            return self._ended(failure)
        if not data:
            return Failure(error.ConnectionDone(f"{self._path} ended"))
        self._protocol.dataReceived(data)
        return None

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The reactor has let go of the descriptor: close it and tell the protocol, once."""
        if self._descriptor < 0:
            return
        self.disconnecting = True
        self._reactor.removeReader(self)
        self._stop_writing()
        self._close()
        self._descriptor = -1
        self._protocol.connectionLost(reason)

    def loseConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Close; what has not been written is dropped."""
        self.abortConnection()

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Close at the reactor's next turn."""
        self._end_soon(Failure(error.ConnectionDone(f"{self._path} closed")))

    def getPeer(self) -> IAddress:  # noqa: N802 - Twisted's name
        """The socket or device, as an address."""
        return UNIXAddress(self._path)

    def getHost(self) -> IAddress:  # noqa: N802 - Twisted's name
        """The socket or device, as an address."""
        return UNIXAddress(self._path)

    def _stop_writing(self) -> None:
        """Forget what was not written."""
        raise NotImplementedError

    def _close(self) -> None:
        os.close(self._descriptor)

    def _end_soon(self, reason: Failure) -> None:
        # Never at once: the protocol may be in the middle of sending.
        if not self.disconnecting:
            self.disconnecting = True
            self._reactor.removeReader(self)
            self._stop_writing()
            self._reactor.callLater(0, self.connectionLost, reason)

    def _ended(self, failure: OSError) -> Failure:
        reason = os.strerror(failure.errno or errno.EIO)
        return Failure(error.ConnectionLost(f"{self._path}: {reason}"))


@implementer(IReadWriteDescriptor)
class SocketTransport(_Transport):
    """A unix socket under the reactor; what it takes is sent at once.

    Twisted's own looks for ancillary data at each reading, and waits for its next turn before
    each writing: together a quarter of the time that a decision took.
    """

    def __init__(
        self, reactor: Reactor, opened: socket.socket, protocol: Protocol, path: str
    ) -> None:
        super().__init__(reactor, opened.fileno(), protocol, path)
        self._socket = opened
        self._unwritten = bytearray()

    def writeSequence(self, data: Iterable[bytes]) -> None:  # noqa: N802 - Twisted's name
        """Send frames, in order; what the kernel does not take yet waits."""
        if self.disconnecting:
            return
        frames = b"".join(data)
        if self._unwritten:
            self._unwritten += frames
            return
        try:
            taken = self._socket.send(frames)
        except BlockingIOError:
            taken = 0
        except OSError as failure:
            self._end_soon(self._ended(failure))
            return
        if taken < len(frames):
            self._unwritten += frames[taken:]
            self._reactor.addWriter(self)

    def doWrite(self) -> Failure | None:  # noqa: N802 - Twisted's name
        """The socket takes more: send what waits."""
        try:
            taken = self._socket.send(self._unwritten)
        except BlockingIOError:
            return None
        except OSError as failure:
            return self._ended(failure)
        del self._unwritten[:taken]
        if not self._unwritten:
            self._reactor.removeWriter(self)
        return None

    def _stop_writing(self) -> None:
        self._unwritten.clear()
        self._reactor.removeWriter(self)

    def _close(self) -> None:
        self._socket.close()


class XenbusTransport(_Transport):
    """The xenbus device under the reactor: each frame in a `write()` of its own.

    Two frames in one `write()` are accepted whole by the kernel, and the second silently lost.
    Nor does it ever say that it can be written to (`xenbus_file_poll` knows of reading alone), so
    nothing waits for that: it is written to at the reactor's next turn.
    """

    max_payload = 4096 - 16
    """The kernel buffers one request, header and payload, in 4096 bytes
    (drivers/xen/xenbus/xenbus_dev_frontend.c)."""
    window = 1
    """The kernel's thread takes a request's payload out of that same buffer later than `write()`
    returns (xenbus_dev_request_and_reply in xenbus_xs.c): a second request, sent before the first
    is answered, overwrites it, and the first asks for what the second does. Seen with Linux 6.1."""

    def __init__(self, reactor: Reactor, descriptor: int, protocol: Protocol, path: str) -> None:
        super().__init__(reactor, descriptor, protocol, path)
        self._frames: deque[bytes] = deque()
        self._writing: IDelayedCall | None = None

    def writeSequence(self, data: Iterable[bytes]) -> None:  # noqa: N802 - Twisted's name
        """Send frames, in order; what the kernel does not take yet waits."""
        self._frames.extend(data)
        self._write_in(0)

    def _write_in(self, seconds: float) -> None:
        if self._writing is None and not self.disconnecting:
            # Never at once, so that no answer arrives inside the caller's own call.
            self._writing = self._reactor.callLater(seconds, self._write)

    def _write(self) -> None:
        """Write frames until the kernel takes no more."""
        self._writing = None
        while self._frames:
            frame = self._frames[0]
            try:
                taken = os.write(self._descriptor, frame)
            except BlockingIOError:
                self._write_in(_RETRY)
                return
            except OSError as failure:
                self.connectionLost(self._ended(failure))
                return
            if taken < len(frame):
                self._frames[0] = frame[taken:]
            else:
                self._frames.popleft()

    def _stop_writing(self) -> None:
        self._frames.clear()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
