"""The frames in a capture file (libpcap's classic format), for `filter test`."""

from __future__ import annotations

import struct
from typing import Final

_MAGICS: Final = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",
}
"""With microseconds and with nanoseconds, in either byte order."""
_ETHERNET: Final = 1
_MAX_FRAME: Final = 9216
MAX_FRAMES: Final = 1000


def is_pcap(data: bytes) -> bool:
    """Whether this begins as a capture does."""
    return data[:4] in _MAGICS


def read_pcap(data: bytes) -> list[bytes]:
    """The frames of a capture of Ethernet, at most MAX_FRAMES of them.

    Raises:
        ValueError: it is none, or cut short; says where.
    """
    order = _MAGICS.get(data[:4])
    if order is None or len(data) < 24:
        raise ValueError("no capture: neither libpcap's magic number nor its header is there")
    (link,) = struct.unpack_from(f"{order}I", data, 20)
    if link & 0x0FFFFFFF != _ETHERNET:
        raise ValueError(f"a capture of link type {link & 0x0FFFFFFF}, not of Ethernet (1)")
    frames: list[bytes] = []
    offset = 24
    while offset < len(data) and len(frames) < MAX_FRAMES:
        if offset + 16 > len(data):
            raise ValueError(f"cut short at byte {offset}")
        captured, original = struct.unpack_from(f"{order}II", data, offset + 8)
        start = offset + 16
        if captured > _MAX_FRAME or start + captured > len(data):
            raise ValueError(f"frame {len(frames) + 1}, at byte {offset}, is cut short")
        if captured < original:
            raise ValueError(f"frame {len(frames) + 1} was captured in part (tcpdump -s 0)")
        frames.append(data[start : start + captured])
        offset = start + captured
    return frames
