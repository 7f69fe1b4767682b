"""The journal of systemd: log events with their fields, by its native protocol.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ . An event of `twisted.logger` becomes an entry with
`MESSAGE`, `PRIORITY`, and a field `XPB_…` for each plain value that it was logged with; one logged
with `kind` also has a `MESSAGE_ID`, the same for each kind for ever.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from typing import TYPE_CHECKING, Final

from twisted.logger import ILogObserver, LogLevel, eventAsText
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import LogEvent

SOCKET: Final = "/run/systemd/journal/socket"
IDS: Final = uuid.UUID("5f9e1c52-3b0e-5d8e-9a57-6d8a3b1f7c40")
"""What the ids of the kinds of messages are drawn from: `uuid5(IDS, kind)`."""
_PRIORITIES: Final = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_LONGEST: Final = 8192
"""Bytes of one field: the whole has to fit one datagram."""


def goes_to_journal(environ: Mapping[str, str] = os.environ, descriptor: int = 2) -> bool:
    """Whether what is written to this descriptor ends in the journal. systemd.exec(5)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def message_id(kind: str) -> str:
    """The `MESSAGE_ID` of a kind of message."""
    return uuid.uuid5(IDS, kind).hex


@implementer(ILogObserver)
class JournalObserver:
    """Sends events to the journal; what cannot be sent goes to `otherwise`."""

    def __init__(self, identifier: str, otherwise: ILogObserver, path: str = SOCKET) -> None:
        self._identifier = identifier
        self._otherwise = otherwise
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature

    def __call__(self, event: LogEvent) -> None:
        """One event."""
        data = b"".join(_field(name, value) for name, value in self._fields(event))
        try:
            self._socket.sendto(data, self._path)
        except OSError:
            self._otherwise(event)

    def _fields(self, event: LogEvent) -> list[tuple[str, str]]:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        level = event.get("log_level", LogLevel.info)
        fields = [
            ("MESSAGE", text),
            ("PRIORITY", str(_PRIORITIES.get(level, 6))),
            ("SYSLOG_IDENTIFIER", self._identifier),
            ("XPB_LOGGER", str(event.get("log_namespace", ""))),
        ]
        for name, value in event.items():
            if name.startswith("log_") or not _NAME.fullmatch(name) or callable(value):
                continue
            if name == "kind":
                fields.append(("MESSAGE_ID", message_id(str(value))))
            fields.append((f"XPB_{name.upper()}", "" if value is None else str(value)))
        return fields


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")[:_LONGEST]
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode("ascii"), data)
    return b"%s\n%s%s\n" % (name.encode("ascii"), len(data).to_bytes(8, "little"), data)
