"""The xenstore wire protocol as bytes in, messages out: no sockets, no clock, no Twisted.

One frame is four little-endian 32-bit words (operation, request id, transaction id, payload length)
and the payload. The same codec serves the client, the embedded store and a guest's ring.
Source: Xen's public `io/xs_wire.h` and `docs/misc/xenstore.txt`.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from pyxs._internal import Op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CONTROL: Final[int] = Op.DEBUG
DIRECTORY: Final[int] = Op.DIRECTORY
READ: Final[int] = Op.READ
GET_PERMS: Final[int] = Op.GET_PERMS
WATCH: Final[int] = Op.WATCH
UNWATCH: Final[int] = Op.UNWATCH
TRANSACTION_START: Final[int] = Op.TRANSACTION_START
TRANSACTION_END: Final[int] = Op.TRANSACTION_END
INTRODUCE: Final[int] = Op.INTRODUCE
RELEASE: Final[int] = Op.RELEASE
GET_DOMAIN_PATH: Final[int] = Op.GET_DOMAIN_PATH
WRITE: Final[int] = Op.WRITE
MKDIR: Final[int] = Op.MKDIR
RM: Final[int] = Op.RM
SET_PERMS: Final[int] = Op.SET_PERMS
WATCH_EVENT: Final[int] = Op.WATCH_EVENT
ERROR: Final[int] = Op.ERROR
IS_DOMAIN_INTRODUCED: Final[int] = Op.IS_DOMAIN_INTRODUCED
RESUME: Final[int] = Op.RESUME
SET_TARGET: Final[int] = Op.SET_TARGET
# pyxs 0.4.1 knows neither of these; 20 was RESTRICT, which Xen has removed.
RESET_WATCHES: Final = 21
DIRECTORY_PART: Final = 22

HEADER: Final = struct.Struct("<IIII")
HEADER_BYTES: Final = 16
MAX_PAYLOAD: Final = 4096
"""XENSTORE_PAYLOAD_MAX: no request, and no reply of C xenstored, carries more."""
MAX_REPLY: Final = 1 << 20
"""What a client accepts: oxenstored answers a long DIRECTORY in one frame of any length."""
MAX_ABSOLUTE_PATH: Final = 3072
MAX_RELATIVE_PATH: Final = 2048
ENCODING: Final = "latin-1"
"""For names from the store: one character a byte, so no reply can fail to decode."""

Message = tuple[int, int, int, bytes]
"""Operation, request id, transaction id, payload."""

# pyxs's check_path and check_perms let a trailing newline or NUL through (`$` matches before it),
# and its bound for relative paths is never used; hence these two.
_PATH: Final = re.compile(r"/?[A-Za-z0-9\-_@]+(?:/[A-Za-z0-9\-_@]+)*|/")
_PERMISSION: Final = re.compile(r"[nrwb](?:0|[1-9][0-9]{0,4})")
_SPECIAL: Final = frozenset({"@introduceDomain", "@releaseDomain"})


class FrameError(ValueError):
    """The peer does not speak the protocol: the connection cannot go on."""


class Decoder:
    """Cuts a byte stream, however it is split, into messages.

    Holds one incomplete frame at most, so memory is bounded by `max_payload` and a read's size.
    """

    def __init__(self, max_payload: int = MAX_REPLY) -> None:
        self._max_payload = max_payload
        self._partial = bytearray()
        self._needed = HEADER_BYTES
        self._failed = False

    def receive_data(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes; iterate to the end.

        Raises:
            FrameError: at the frame that announces too long a payload, after the good ones
                before it have been yielded; and on every call after that.
        """
        if self._failed:
            raise FrameError("data after a malformed frame")
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        start, end = 0, len(data)
        unpack = HEADER.unpack_from
        limit = self._max_payload
        needed = HEADER_BYTES
        while end - start >= HEADER_BYTES:
            op, request_id, transaction, length = unpack(data, start)
            if length > limit:
                self._failed = True
                raise FrameError(f"payload of {length} bytes announced, {limit} is the most")
            needed = HEADER_BYTES + length
            if end - start < needed:
                break
            body = start + HEADER_BYTES
            start += needed
            needed = HEADER_BYTES
            yield op, request_id, transaction, data[body:start]
        self._partial += data[start:]
        self._needed = needed


def encode(op: int, request_id: int, transaction: int, payload: bytes) -> bytes:
    """One frame with exactly this payload."""
    return HEADER.pack(op, request_id, transaction, len(payload)) + payload


def join_strings(strings: Iterable[bytes]) -> bytes:
    """Each string with a NUL behind it; a lone NUL if there is none.

    oxenstored never answers a request whose payload is empty.
    """
    return b"".join([string + b"\0" for string in strings]) or b"\0"


def split_strings(payload: bytes) -> list[bytes]:
    """The NUL-terminated strings of a payload; a last one may lack its NUL."""
    if not payload:
        return []
    strings = payload.split(b"\0")
    if not strings[-1]:
        strings.pop()
    return strings


def check_path(path: str) -> bytes:
    """The bytes of a node's path, absolute or relative to the connection's domain.

    Raises:
        ValueError: a character, a length or a slash that no daemon accepts.
    """
    if len(path) > MAX_RELATIVE_PATH:
        limit = MAX_ABSOLUTE_PATH if path[0] == "/" else MAX_RELATIVE_PATH
        if len(path) > limit:
            raise ValueError(f"path of {len(path)} bytes, {limit} is the most: {path[:80]!a}")
    if not _PATH.fullmatch(path):
        raise ValueError(f"not a xenstore path: {path[:200]!a}")
    return path.encode("ascii")


def check_watch_path(path: str) -> bytes:
    """The bytes of a path to watch: a node's, or one of the two special names.

    Raises:
        ValueError: as `check_path`, or an unknown special name.
    """
    if path.startswith("@") and path not in _SPECIAL:
        raise ValueError(f"not a special watch: {path[:200]!a}")
    return check_path(path)


def check_permissions(permissions: Sequence[str]) -> bytes:
    """The payload part of SET_PERMS: each of `n`, `r`, `w`, `b` and a domid, the owner first.

    Raises:
        ValueError: there is none, or one is malformed.
    """
    if not permissions:
        raise ValueError("a node has at least one permission: its owner's")
    for permission in permissions:
        if not _PERMISSION.fullmatch(permission):
            raise ValueError(f"not a permission: {permission[:80]!a}")
    return join_strings([permission.encode("ascii") for permission in permissions])
