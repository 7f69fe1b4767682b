"""The privileged net helper as the agent's child: started, heard, and started anew if it ends."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from broker.net.client import HelperClient, spawn
from broker.net.messages import Alarm
from broker.net.model import NetError
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from broker.net.messages import Event
    from broker.xenstore.transport import Reactor

_END: Final = 2.0
"""Seconds for a helper to end in; it needs a millisecond."""
_AT_ONCE, _AGAIN = 0.05, 1.0
"""Seconds until a helper that ended is started anew, and until that is tried again."""


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


class NetHelper:
    """The agent's way to change anything of the network: `LinkChanger`, and labels' `Kernel`.

    `took_up` is called with each helper started, before anything else is asked of it; if it
    raises `NetError` the helper is ended and another tried. `heard` gets what a helper says
    unasked, `alarm` what an administrator must know of helpers themselves, `back` is called once
    one runs again after another's end.
    """

    log = Logger()

    def __init__(self, reactor: Reactor) -> None:
        self.took_up: Callable[[HelperClient], None] = lambda _client: None
        self.heard: Callable[[Event], None] = self._log_alarm
        self.alarm: Callable[[str], None] = self._log
        self.back: Callable[[], None] = lambda: None
        self._reactor = reactor
        self._running: tuple[HelperClient, subprocess.Popen[bytes], _HelperReader] | None = None
        self._starting: IDelayedCall | None = None
        self._not_begun = ""
        """Why the last attempt to start one anew failed, or empty."""

    @property
    def client(self) -> HelperClient:
        """The helper that runs; raises `NetError` if none does."""
        if self._running is None:
            raise NetError("the net helper has ended; it is being started again")
        return self._running[0]

    def start(self) -> None:
        """Start the first helper.

        Raises:
            NetError: it has not the right, or labels cannot be enforced here; says why.
            OSError: it cannot be started.
        """
        client, process = spawn()
        reader = _HelperReader(client, self.hear)
        self._running = client, process, reader
        self._reactor.addReader(reader)
        try:
            client.check()
            self.took_up(client)
        except (NetError, OSError):
            self._end()
            raise

    def stop(self) -> None:
        """End the helper; links and tables stay as they are."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        self._end()

    def lost(self, error: Exception) -> None:
        """What is in force is not what it should be: all is put in force by a new helper."""
        self.alarm(f"{error}; starting the net helper anew")
        self._end()
        if self._starting is None:
            self._starting = self._reactor.callLater(_AT_ONCE, self._start_anew)

    def hear(self) -> None:
        """Pass on what the helper has said; find out if it ended."""
        if self._running is None:
            return
        try:
            events = self._running[0].events()
        except (NetError, OSError) as error:
            self.lost(error)
            return
        for event in events:
            self.heard(event)

    def change_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        master: int | None = None,
        name: str | None = None,
        mtu: int | None = None,
        address: bytes | None = None,
    ) -> None:
        """Change what is given of a guest's link and leave the rest; raises `NetError`."""
        self.client.change_link(index, up=up, master=master, name=name, mtu=mtu, address=address)

    def route_to(self, index: int, networks: Sequence[str], through: str) -> None:
        """Bring a guest's link up and route to these networks by it; raises `NetError`."""
        self.client.route_to(index, networks, through)

    def _start_anew(self) -> None:
        self._starting = None
        try:
            self.start()
        except (NetError, OSError) as error:
            if str(error) != self._not_begun:
                self.alarm(f"the network cannot be changed: {error}; trying again")
            self._not_begun = str(error)
            self._starting = self._reactor.callLater(_AGAIN, self._start_anew)
            return
        self._not_begun = ""
        self.alarm("the net helper runs again")
        self.back()

    def _end(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        _, process, reader = running
        self._reactor.removeReader(reader)
        reader.close()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _log_alarm(self, event: Event) -> None:
        if isinstance(event, Alarm):
            self._log(event.text)

    def _log(self, text: str) -> None:
        self.log.critical("net: {text}", text=escape(text, 400))
