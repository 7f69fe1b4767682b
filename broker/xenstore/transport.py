"""Ways to reach a store: `unix:PATH` (a socket) or `xenbus[:PATH]` (the kernel's device)."""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet import defer, error
from twisted.internet.address import UNIXAddress
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IReadDescriptor, ITransport
from twisted.internet.protocol import Factory
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

    Errbacks with `ConnectError` or `OSError` if nobody answers there, `ValueError` if the
    address is of no known form. oxenstored, whose queue holds one connect, looks like nobody
    when a second comes before it has accepted the first: try again.
    """
    kind, _, path = address.partition(":")
    if kind == "xenbus":
        return defer.maybeDeferred(_open_device, reactor, path or XENBUS_DEVICE, protocol)
    if kind == "unix" and path:
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        connecting: defer.Deferred[_P] = UNIXClientEndpoint(reactor, path).connect(factory)
        return connecting.addErrback(_in_words)
    return defer.fail(ValueError(f"not a store's address: {address[:200]!a} (unix:PATH, xenbus)"))


def _in_words(failure: Failure) -> Failure:
    """Where Twisted gives the reason as a failure, whose text is a traceback: what it says."""
    failed = failure.value
    if isinstance(failed, error.ConnectError) and isinstance(failed.args[0], Failure):
        return Failure(error.ConnectError(string=failed.args[0].getErrorMessage().rstrip(".")))
    return failure


def _open_device(reactor: Reactor, path: str, protocol: _P) -> _P:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    transport = XenbusTransport(reactor, descriptor, protocol, path)
    transport.start()
    return protocol


@implementer(IReadDescriptor, ITransport)
class XenbusTransport:
    """The xenbus device under the reactor: each frame in a `write()` of its own.

    Two frames in one `write()` are accepted whole by the kernel, and the second silently lost.
    Nor does it ever say that it can be written to (`xenbus_file_poll` knows of reading alone), so
    nothing waits for that: it is written to at the reactor's next turn.
    """

    disconnecting = False
    max_payload = 4096 - 16
    """The kernel buffers one request, header and payload, in 4096 bytes
    (drivers/xen/xenbus/xenbus_dev_frontend.c)."""
    window = 1
    """The kernel's thread takes a request's payload out of that same buffer later than `write()`
    returns (xenbus_dev_request_and_reply in xenbus_xs.c): a second request, sent before the first
    is answered, overwrites it, and the first asks for what the second does. Seen with Linux 6.1."""

    def __init__(self, reactor: Reactor, descriptor: int, protocol: Protocol, path: str) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._protocol = protocol
        self._path = path
        self._frames: deque[bytes] = deque()
        self._writing: IDelayedCall | None = None

    def start(self) -> None:
        """Join the protocol, and begin reading."""
        self._protocol.makeConnection(self)
        self._reactor.addReader(self)

    def fileno(self) -> int:
        """The device's descriptor, -1 once closed."""
        return self._descriptor

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the reactor's log."""
        return "xenbus"

    def write(self, data: bytes) -> None:
        """Send one frame."""
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[bytes]) -> None:  # noqa: N802 - Twisted's name
        """Send frames, in order; what the kernel does not take yet waits."""
        self._frames.extend(data)
        self._write_in(0)

    def doRead(self) -> Failure | None:  # noqa: N802 - Twisted's name
        """Hand over whatever is there; the kernel gives answers and events byte by byte."""
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

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The reactor has let go of the device: close it and tell the protocol, once."""
        if self._descriptor < 0:
            return
        self.disconnecting = True
        self._reactor.removeReader(self)
        self._stop_writing()
        os.close(self._descriptor)
        self._descriptor = -1
        self._frames.clear()
        self._protocol.connectionLost(reason)

    def loseConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Close the device; what has not been written is dropped."""
        self.abortConnection()

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Close the device at the reactor's next turn."""
        if not self.disconnecting:
            self.disconnecting = True
            self._reactor.removeReader(self)
            self._stop_writing()
            closed = Failure(error.ConnectionDone(f"{self._path} closed"))
            self._reactor.callLater(0, self.connectionLost, closed)

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def getPeer(self) -> IAddress:  # noqa: N802 - Twisted's name
        """The device, as an address."""
        return UNIXAddress(self._path)

    def getHost(self) -> IAddress:  # noqa: N802 - Twisted's name
        """The device, as an address."""
        return UNIXAddress(self._path)

    def _ended(self, failure: OSError) -> Failure:
        reason = os.strerror(failure.errno or errno.EIO)
        return Failure(error.ConnectionLost(f"{self._path}: {reason}"))
