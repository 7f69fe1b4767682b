"""Untrusted text made fit to be shown: in logs, in messages, on a terminal."""

from __future__ import annotations

from typing import Final

_SHOWN: Final = [
    chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in range(256)
]


def escape(value: bytes | str, limit: int = 200) -> str:
    r"""Printable ASCII only: every other byte, and the backslash, as `\xNN`.

    Text is shown as its UTF-8 bytes. Of a value longer than `limit` bytes the first `limit`
    are shown, and how many bytes there were. Two values that fit never look alike.
    """
    raw = _bytes(value) if isinstance(value, str) else value
    shown = "".join([_SHOWN[byte] for byte in raw[:limit]])
    return shown if len(raw) <= limit else f"{shown}...({len(raw)} bytes)"


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate, as JSON can hold
        return text.encode("utf-8", "surrogatepass")
