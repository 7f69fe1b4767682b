"""Which connection a frame is of: what `ct.state` says of it. Pure; no time is known here.

A vif remembers, for each direction, what its filter let through. A frame is *established* if it
answers such a frame of the other direction, and an ICMP error is *related* if it quotes one.
`docs/filters.md` says it in words; `broker.net.filters.states` does it in the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from broker.filters.fields import ETHER_IPV4, ICMP, ICMPV6, TCP, UDP
from broker.filters.frame import Missing

if TYPE_CHECKING:
    from broker.filters.frame import Frame

State = Literal["new", "established", "related", "invalid", "untracked"]
Key = tuple[int, bytes, bytes, bytes]
"""A protocol, source, destination, and both ports or the number of an echo request."""

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_FLAGS: Final = _FIN | _SYN | _RST | _ACK


class _Version(msgspec.Struct, frozen=True):
    """Offsets in a packet without options; `header` is its length."""

    header: int
    source: slice
    destination: slice
    protocol: int
    icmp: int
    request: int
    reply: int
    errors: frozenset[int]


_V4: Final = _Version(20, slice(12, 16), slice(16, 20), 9, ICMP, 8, 0, frozenset({3, 11, 12}))
_V6: Final = _Version(
    40, slice(8, 24), slice(24, 40), 6, ICMPV6, 128, 129, frozenset({1, 2, 3, 4})
)  # fmt: skip


class Connection(msgspec.Struct, frozen=True):
    """What a frame may be: `known` if `answers` passed in the other direction, else `unknown`.

    `notes` is what it is remembered by if it passes, being new or established.
    """

    unknown: State
    known: State
    answers: Key | None = None
    notes: Key | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """The states that such a frame can have."""
        return tuple(dict.fromkeys((self.unknown, self.known)))


_NONE: Final = Connection("untracked", "untracked")
_STRAY: Final = Connection("invalid", "invalid")


def connection_of(frame: Frame) -> Connection:
    """What this frame is to the connections of a vif."""
    packet = frame.data[14:]
    version = _V4 if frame.field("ether.type") == ETHER_IPV4 else _V6
    for protocol, field in ((TCP, "tcp.sport"), (UDP, "udp.sport"), (version.icmp, _icmp(version))):
        if isinstance(frame.field(field), Missing) or not _plain(packet, version, protocol):
            continue
        if protocol == TCP:
            return _tcp(packet, version)
        if protocol == UDP:
            key = _key(packet, version, UDP)
            return Connection("new", "established", _turned(key), key)
        return _message(packet, version)
    return _NONE


def _icmp(version: _Version) -> str:
    return "icmp.type" if version is _V4 else "icmpv6.type"


def _plain(packet: bytes, version: _Version, protocol: int) -> bool:
    """Whether it has no options or extension headers, and is no fragment."""
    if version is _V6:
        return packet[version.protocol] == protocol
    return packet[0] == 0x45 and not int.from_bytes(packet[6:8]) & 0x3FFF


def _tcp(packet: bytes, version: _Version) -> Connection:
    key = _key(packet, version, TCP)
    flags = packet[version.header + 13] & _FLAGS
    if flags == _SYN:
        return Connection("new", "new", None, key)
    unknown: State = "new" if flags == _ACK else "invalid"
    return Connection(unknown, "established", _turned(key), key)


def _message(packet: bytes, version: _Version) -> Connection:
    """Of ICMP: echo requests and replies, and errors."""
    kind = packet[version.header]
    if kind == version.request:
        return Connection("new", "new", None, _echo(packet, version))
    if kind == version.reply:
        return Connection("invalid", "established", _turned(_echo(packet, version)))
    if kind not in version.errors:
        return _NONE
    quoted = packet[version.header + 8 :]
    protocol = quoted[version.protocol] if len(quoted) >= version.header + 8 else -1
    if protocol not in (TCP, UDP, version.icmp) or quoted[0] >> 4 != (4 if version is _V4 else 6):
        return _STRAY
    if not _plain(quoted, version, protocol):
        return _STRAY
    if protocol != version.icmp:
        return Connection("invalid", "related", _key(quoted, version, protocol))
    if quoted[version.header] != version.request:
        return _STRAY
    return Connection("invalid", "related", _echo(quoted, version))


def _key(packet: bytes, version: _Version, protocol: int) -> Key:
    ports = packet[version.header : version.header + 4]
    return protocol, packet[version.source], packet[version.destination], ports


def _echo(packet: bytes, version: _Version) -> Key:
    number = packet[version.header + 4 : version.header + 6]
    return version.icmp, packet[version.source], packet[version.destination], number


def _turned(key: Key) -> Key:
    """Of the frame that this one answers: ports change places, an echo's number does not."""
    protocol, source, destination, ports = key
    return protocol, destination, source, ports[2:] + ports[:2]
