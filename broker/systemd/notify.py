"""The service manager's notifications: ready, what goes on, still alive. sd_notify(3).

Without a manager that listens (no `NOTIFY_SOCKET`) nothing is sent, and nothing fails.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Sends to the socket that the environment names."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with @ for its first byte, zero.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._status = ""

    @property
    def listens(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self._address)

    def ready(self) -> None:
        """The program serves."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The program ends by itself."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The program works: asked for by `WatchdogSec`, in time."""
        self._send("WATCHDOG=1")

    def status(self, words: str) -> None:
        """One line for `systemctl status`; sent when it is another than before."""
        if words != self._status:
            self._status = words
            self._send(f"STATUS={words.splitlines()[0] if words else ''}")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # noqa: FBT003 - the standard library's signature
                sender.sendto(state.encode("utf-8"), self._address)
        except OSError:
            # A manager that does not listen learns nothing, and acts on that.
            return
