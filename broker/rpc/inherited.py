"""Accepting on a listening unix socket that somebody else made, and that stays when we go."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory
    from twisted.python.failure import Failure

_AT_ONCE: Final = 32
"""Connections accepted before others are served again."""
_PAUSE: Final = 1.0
"""Seconds without accepting, after it failed for want of descriptors or memory."""


@implementer(IReadDescriptor)
class InheritedPort:
    """Accepts from `descriptor` for `factory`; Twisted's own port would unlink it in the end."""

    log = Logger()

    def __init__(self, descriptor: int, factory: IProtocolFactory, reactor: Any) -> None:  # noqa: ANN401 - several of Twisted's interfaces
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._factory = factory
        self._reactor = reactor
        self._resuming: Any = None

    def startListening(self) -> None:  # noqa: N802 - Twisted's name
        """Accept from now on."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> None:  # noqa: N802 - Twisted's name
        """Accept no more; the socket stays with whoever made it."""
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        self._reactor.removeReader(self)
        self._socket.close()
        self._factory.doStop()

    def fileno(self) -> int:
        """What the reactor waits on."""
        return self._socket.fileno()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the reactor's own messages."""
        return "inherited socket"

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The reactor lets go of it."""
        del reason

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """Somebody connects."""
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self.log.warn("cannot accept, trying again: {error}", error=error)
                self._reactor.removeReader(self)
                self._resuming = self._reactor.callLater(_PAUSE, self._resume)
                return
            with connection:
                connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
                try:
                    connection.getpeername()
                except OSError:
                    continue  # gone already, and Twisted would not bear that
                # It takes a descriptor of its own.
                self._reactor.adoptStreamConnection(
                    connection.fileno(), socket.AF_UNIX, self._factory
                )

    def _resume(self) -> None:
        self._resuming = None
        self._reactor.addReader(self)
