"""The privileged net helper as the agent's child: started, heard by the reactor, ended."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from broker.net.client import HelperClient, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from broker.xenstore.transport import Reactor

_END: Final = 2.0
"""Seconds for a helper to end in; it needs a millisecond."""


@implementer(IReadDescriptor)
class _HelperReader:
    """Puts the net helper's events under the reactor."""

    def __init__(self, client: HelperClient, ready: Callable[[], None]) -> None:
        self._client = client
        self._ready = ready
        # Its own descriptor: the client closes its when a call fails, and the number is reused.
        self._fd = os.dup(client.fileno())

    def fileno(self) -> int:
        """What the reactor waits on."""
        return self._fd

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the reactor's own messages."""
        return "net helper"

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """Events came."""
        self._ready()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002, N802 - Twisted's name and argument
        """The reactor lets go of it; the tables stay as they are."""
        self.close()

    def close(self) -> None:
        """End the helper, once; the tables stay as they are."""
        self._client.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class NetProcess:
    """One helper, from its start to its end; `ready` is called when it has said something."""

    def __init__(self, reactor: Reactor, ready: Callable[[], None]) -> None:
        """Start it.

        Raises:
            OSError: it cannot be.
        """
        self._reactor = reactor
        self.client, self._process = spawn()
        self._reader = _HelperReader(self.client, ready)
        reactor.addReader(self._reader)

    def end(self) -> None:
        """End it; the tables stay as they are."""
        self._reactor.removeReader(self._reader)
        self._reader.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
