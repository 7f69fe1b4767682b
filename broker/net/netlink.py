"""Netlink, as little of it as is needed: requests with answers, and multicast groups to listen to.

Used to read back what nftables holds, by other means than it was written, and to notice changes.
Facts: linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUTE: Final = 0
NETFILTER: Final = 12
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_INTERRUPTED: Final = 0x10
"""NLM_F_DUMP_INTR: what was dumped changed meanwhile."""
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
_NESTED: Final = 0x8000
_BUFFER: Final = 1 << 18
_RECEIVE_QUEUE: Final = 8 << 20
_ATTEMPTS: Final = 5

_AT_ONCE: Final = 16
"""Requests under way together: their answers must find room in the socket's queue."""

Attributes = dict[int, bytes]
Request = tuple[int, int, bytes]
"""A message's type, flags and body."""


class NetlinkSocket:
    """One socket of a netlink family, in the network namespace it is made in.

    Functions raise `OSError`: the kernel's refusal, or `TimeoutError` after two seconds.
    """

    def __init__(self, family: int, groups: tuple[int, ...] = ()) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, family)
        self._socket.bind((0, 0))
        self._sequence = 0
        if groups:
            self.listen()
            for group in groups:
                self.join(group)
        else:
            self._socket.settimeout(2.0)

    def listen(self) -> None:
        """From now on only `heard` is used: no call waits, and there is room for a burst."""
        self._grow()
        self._socket.settimeout(0.0)

    def join(self, group: int) -> None:
        """Hear what is told to this group."""
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def leave(self, group: int) -> None:
        """Hear no more of this group; what it was told before can still be heard."""
        self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, group)

    def _grow(self) -> None:
        """Room for a burst: forced past rmem_max where allowed, else what rmem_max gives."""
        forced = 33  # SO_RCVBUFFORCE
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, forced, _RECEIVE_QUEUE)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_QUEUE)

    def widen(self, size: int) -> None:
        """Room for one batch of so many bytes: past wmem_max where allowed."""
        forced = 32  # SO_SNDBUFFORCE
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Type and payload of every message that answers one request; a torn dump is repeated."""
        for _ in range(_ATTEMPTS):
            answers = self._ask(kind, flags, body)
            if answers is not None:
                return answers
        raise BlockingIOError(f"netlink: what was listed kept changing, {_ATTEMPTS} times")

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]] | None:
        self._sequence += 1
        self._socket.send(_message((kind, flags, body), self._sequence))
        answers: list[tuple[int, bytes]] = []
        torn = False
        while True:
            for answer, flag, sequence, payload in messages(self._socket.recv(_BUFFER)):
                if sequence != self._sequence:
                    continue  # the rest of an answer that an error or a time-out cut short
                torn |= bool(flag & _INTERRUPTED)
                if answer == _ERROR:
                    _check(payload)
                if answer in {_ERROR, _DONE}:
                    return None if torn else answers
                answers.append((answer, payload))

    def confirmed(self, batch: Sequence[Request]) -> None:
        """Send one batch, of which one message asks for ACK; what is heard first decides it."""
        self._sequence += 1
        self._socket.send(b"".join(_message(it, self._sequence) for it in batch))
        while True:
            for answer, _, sequence, payload in messages(self._socket.recv(_BUFFER)):
                if sequence == self._sequence and answer == _ERROR:
                    _check(payload)
                    return

    def ask_each(self, requests: Sequence[Request]) -> list[bytes | None]:
        """The one answer to each of these, which ask for no ACK; None where nothing is there."""
        found: list[bytes | None] = []
        for start in range(0, len(requests), _AT_ONCE):
            some = requests[start : start + _AT_ONCE]
            first = self._sequence + 1
            self._sequence += len(some)
            self._socket.send(b"".join(_message(it, first + n) for n, it in enumerate(some)))
            answers: dict[int, bytes | None] = {}
            while len(answers) < len(some):
                for answer, _, sequence, payload in messages(self._socket.recv(_BUFFER)):
                    if sequence < first:
                        continue
                    answers[sequence] = None if answer == _ERROR else payload
                    if answer == _ERROR and _errno(payload) != errno.ENOENT:
                        _check(payload)
            found += [answers[first + n] for n in range(len(some))]
        return found

    def heard(self) -> tuple[list[tuple[int, bytes]], bool]:
        """Messages of the groups since the last call, and whether some were lost."""
        found: list[tuple[int, bytes]] = []
        lost = False
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return found, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True  # the queue was full
                continue
            found += [(kind, payload) for kind, _, _, payload in messages(data)]


def _message(request: Request, sequence: int) -> bytes:
    kind, flags, body = request
    size = _HEADER.size + len(body)
    return _HEADER.pack(size, kind, flags | REQUEST, sequence, 0) + body + b"\0" * (-size % 4)


def _errno(payload: bytes) -> int:
    return -int.from_bytes(payload[:4], sys.byteorder, signed=True)


def _check(payload: bytes) -> None:
    """Raise what an answer says went wrong, if anything did."""
    number = _errno(payload)
    if number:
        raise OSError(number, f"netlink: {os.strerror(number)}")


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and payload of each netlink message in `data`."""
    offset, end = 0, len(data)
    while offset + _HEADER.size <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attribute_list(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute from `offset` on; stops at the first that is malformed."""
    end = len(data)
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            return
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> Attributes:
    """The attributes from `offset` on, by type."""
    return dict(attribute_list(data, offset))


def attribute_head(kind: int, size: int) -> bytes:
    """What stands before an attribute's value of so many bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + size, kind)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | _NESTED, b"".join(inner))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string."""
    return attribute(kind, value.encode("ascii") + b"\0")


def word(value: bytes | None) -> str:
    """An attribute's string, as text."""
    return (value or b"").rstrip(b"\0").decode("ascii", "backslashreplace")
