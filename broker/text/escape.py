"""Untrusted text made fit to be shown: in logs, in messages, on a terminal.

Text is escaped once. What goes into a message is escaped there (`escape`); a value that stays a
value, for a program to read, stays as it is (`readable`); and the terminal's edge shows both
without doubling what is escaped already (`printable`).
"""

from __future__ import annotations

from typing import Final

_BACKSLASH: Final = 0x5C
_SHOWN: Final = [
    chr(byte) if 0x20 <= byte < 0x7F and byte != _BACKSLASH else f"\\x{byte:02x}"
    for byte in range(256)
]


def escape(value: bytes | str, limit: int = 200) -> str:
    r"""Printable ASCII only: every other byte, and the backslash, as `\xNN`.

    Text is shown as its UTF-8 bytes. Of a value longer than `limit` bytes the first `limit`
    are shown, and how many bytes there were. Two values that fit never look alike.
    """
    raw = _bytes(value) if isinstance(value, str) else value
    shown = "".join([_SHOWN[byte] for byte in raw[:limit]])
    return shown if len(raw) <= limit else f"{shown}...({len(raw)} bytes)"


def printable(value: bytes | str, limit: int = 200) -> str:
    r"""Printable ASCII only, like `escape`, but a backslash stays: escaped text is shown as it is.

    For the edge alone, where messages with escaped parts and plain values come together.
    """
    raw = _bytes(value) if isinstance(value, str) else value
    shown = "".join([_SHOWN[byte] if byte != _BACKSLASH else "\\" for byte in raw[:limit]])
    return shown if len(raw) <= limit else f"{shown}...({len(raw)} bytes)"


def readable(value: bytes | str) -> str:
    r"""The text as it is, in valid Unicode: bytes that are no UTF-8 stand as `\xNN`."""
    raw = _bytes(value) if isinstance(value, str) else value
    return raw.decode("utf-8", "backslashreplace")


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate, as JSON can hold
        return text.encode("utf-8", "surrogatepass")
