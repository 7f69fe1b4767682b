"""Addresses that guests learn from DHCP, as the frames tell: who asked, who was given what. Pure.

A lease counts if a server that the guest may hear gave it to this very guest: in answer to a
request of the guest's with the same transaction, for the MAC that asked, and from another port.
What the guest's own profiles refuse never comes here, in either direction. The bytes are guests'.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REQUEST, _REPLY = 1, 2
_DISCOVER, _ASKS, _DECLINE, _ACK, _NAK, _RELEASE = 1, 3, 4, 5, 6, 7
_UDP: Final = 17
_FIXED: Final = 236
_COOKIE: Final = b"\x63\x82\x53\x63"
_END, _PAD = 255, 0
_TYPE, _LEASE, _SERVER = 53, 51, 54
_PATIENCE: Final = 60.0
"""Seconds in which a request can be answered."""
_MAX_PENDING: Final = 8
"""Requests of one port that wait at once; the oldest goes."""
MAX_ADDRESSES: Final = 16
"""Addresses that one port can have learned."""
LONGEST: Final = 7 * 24 * 3600.0
"""Seconds that a lease is believed for at most; who renews it is heard again."""


class Message(msgspec.Struct, frozen=True):
    """A DHCP message: its kind, who sent it as IP, and the fields that count here."""

    kind: int
    source: int
    transaction: int
    station: bytes
    client: int
    yours: int
    seconds: int


class Lease(msgspec.Struct, frozen=True):
    """To bind `address` to port `index` for so many seconds; to take it away if there are none."""

    index: int
    address: int
    seconds: float


def read(untrusted_packet: bytes) -> Message | None:
    """The DHCP message in an IPv4 packet; None if it is none that can be understood."""
    data = untrusted_packet
    if len(data) < 20 or data[0] >> 4 != 4 or data[9] != _UDP:
        return None
    start = (data[0] & 15) * 4
    (fragment,) = struct.unpack_from(">H", data, 6)
    if start < 20 or fragment & 0x3FFF or len(data) < start + 8 + _FIXED + 4:
        return None
    message = data[start + 8 :]
    if message[1:3] != b"\x01\x06" or message[_FIXED : _FIXED + 4] != _COOKIE:
        return None
    options = dict(_options(message[_FIXED + 4 :]))
    kind = options.get(_TYPE, b"")
    if len(kind) != 1 or message[0] not in {_REQUEST, _REPLY}:
        return None
    transaction, client, yours = (int.from_bytes(message[at : at + 4]) for at in (4, 12, 16))
    return Message(
        kind=kind[0] if (kind[0] in {_ACK, _NAK}) == (message[0] == _REPLY) else 0,
        source=int.from_bytes(data[12:16]),
        transaction=transaction,
        station=message[28:34],
        client=client,
        yours=yours,
        seconds=int.from_bytes(options.get(_LEASE, b"")),
    )


def _options(untrusted_options: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(untrusted_options):
        code = untrusted_options[at]
        if code == _END:
            return
        if code == _PAD:
            at += 1
            continue
        if at + 2 > len(untrusted_options):
            return
        size = untrusted_options[at + 1]
        yield code, untrusted_options[at + 2 : at + 2 + size]
        at += 2 + size


class Snoop:
    """What guests asked for and have not been answered yet."""

    def __init__(self) -> None:
        self._pending: dict[int, dict[tuple[int, bytes], float]] = {}

    def asked(self, index: int, untrusted_packet: bytes, now: float) -> Lease | None:
        """The guest at port `index` sent this; a lease without seconds if it gives one back."""
        message = read(untrusted_packet)
        if message is None:
            return None
        if message.kind in {_DISCOVER, _ASKS}:
            pending = self._pending.setdefault(index, {})
            pending[message.transaction, message.station] = now + _PATIENCE
            while len(pending) > _MAX_PENDING:
                del pending[next(iter(pending))]
        if message.kind == _RELEASE and message.client:
            return Lease(index, message.client, 0.0)
        return None

    def answered(
        self,
        index: int,
        untrusted_packet: bytes,
        now: float,
        legitimate: Callable[[int], bool],
    ) -> Lease | None:
        """This is about to reach the guest at port `index`; the lease, if it is one for it.

        `legitimate` tells of the sender's address whether it is a server's.
        """
        message = read(untrusted_packet)
        if message is None or message.kind != _ACK or not message.yours or not message.seconds:
            return None
        pending = self._pending.get(index, {})
        due = pending.get((message.transaction, message.station), 0.0)
        if due < now or not legitimate(message.source):
            return None
        return Lease(index, message.yours, min(float(message.seconds), LONGEST))

    def forget(self, index: int) -> None:
        """The port is gone."""
        self._pending.pop(index, None)
