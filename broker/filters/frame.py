"""An Ethernet frame's fields, as the evaluator asks for them.

The bytes are a guest's: everything here is about what they *claim*. `docs/filters.md` has the
table of when a field is absent and when it is unreadable; the kernel's own rules for validating
a packet (`nft_set_pktinfo_ipv4_validate`, `ipv6_find_hdr`) are followed to the letter.
"""

from __future__ import annotations

import enum
import struct
from functools import cached_property
from typing import Final

import msgspec

from broker.filters.fields import (
    CT_STATES,
    ETHER_ARP,
    ETHER_IPV4,
    ETHER_IPV6,
    FIELDS,
    ICMP,
    ICMPV6,
    NO_LLADDR,
    TAGS,
    TCP,
    UDP,
)

MIN_FRAME: Final = 14
"""Bytes of an Ethernet header; less is no frame."""


class Missing(enum.Enum):
    """Why a field has no value."""

    ABSENT = "absent"
    """The frame has not got that header."""
    UNREADABLE = "unreadable"
    """It claims to have it, and it cannot be read."""


ABSENT: Final = Missing.ABSENT
UNREADABLE: Final = Missing.UNREADABLE
Found = int | Missing

_NO_FRAGMENT, _FIRST, _LATER = 0, 1, 2
_EXTENSIONS: Final = frozenset({0, 43, 44, 60})
"""Next headers that are walked through: hop-by-hop, routing, fragment, destination."""
_FRAGMENT_HEADER: Final = 44
_AH: Final = 51
_NO_NEXT_HEADER: Final = 59
_DHCP_PORTS: Final = frozenset({67, 68})
_DHCPV6_PORTS: Final = frozenset({546, 547})
_HEADER_BYTES: Final = {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 8}
"""What must be there of a header for any of its fields to be read."""
_BOOTP_BYTES: Final = 236
_ND_FIXED: Final = {133: (8, 1), 135: (24, 1), 136: (24, 2)}
"""Router solicitation, neighbour solicitation and advertisement: bytes before the options, and
the type of the option that carries a link-layer address."""
_ND_TARGETS: Final = frozenset({135, 136, 137})
_NONCE_OPTION: Final = 14


class _Packet(msgspec.Struct, frozen=True):
    """A readable IP packet. `protocol` is the upper one; `start` is where its header begins."""

    version: int
    protocol: int
    start: int
    fragment: int


class Frame:
    """One frame. `state` is its connection's state as conntrack sees it."""

    def __init__(self, untrusted_frame: bytes, state: str = "new") -> None:
        self._bytes = untrusted_frame
        self._state = CT_STATES[state]

    @property
    def data(self) -> bytes:
        """All its bytes."""
        return self._bytes

    @property
    def whole(self) -> bool:
        """Whether there is an Ethernet header at all."""
        return len(self._bytes) >= MIN_FRAME

    def field(self, name: str) -> Found:
        """The value of a field of FIELDS, or why it has none."""
        return self._readings[FIELDS[name].header](self, name.partition(".")[2])

    def _number(self, offset: int, length: int) -> Found:
        """A big-endian number; unreadable where the frame ends before it does."""
        if offset + length > len(self._bytes):
            return UNREADABLE
        return int.from_bytes(self._bytes[offset : offset + length])

    @cached_property
    def _type(self) -> int:
        return int.from_bytes(self._bytes[12:14])

    def _ether(self, name: str) -> Found:
        return self._number(*{"dst": (0, 6), "src": (6, 6), "type": (12, 2)}[name])

    def _vlan(self, name: str) -> Found:
        if self._type not in TAGS:
            return ABSENT
        tag = self._number(14, 4)
        if isinstance(tag, Missing):
            return tag
        return tag >> 16 & 0xFFF if name == "id" else tag & 0xFFFF

    def _claims(self, ethertype: int) -> Missing | None:
        """None if the frame claims to be of this type; behind a tag nobody knows."""
        if self._type in TAGS:
            return UNREADABLE
        return None if self._type == ethertype else ABSENT

    def _arp(self, name: str) -> Found:
        missing = self._claims(ETHER_ARP)
        if missing is not None:
            return missing
        if self._bytes[14:20] != b"\x00\x01\x08\x00\x06\x04" or len(self._bytes) < 14 + 28:
            return UNREADABLE  # not of Ethernet and IPv4, or cut short
        places = {"op": (6, 2), "sha": (8, 6), "spa": (14, 4), "tha": (18, 6), "tpa": (24, 4)}
        offset, length = places[name]
        return self._number(14 + offset, length)

    @cached_property
    def _ipv4(self) -> _Packet | Missing:
        missing = self._claims(ETHER_IPV4)
        if missing is not None:
            return missing
        packet = self._bytes[14:]
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return UNREADABLE
        header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4])
        if header < 20 or total < header or len(packet) < total:
            return UNREADABLE
        (offset,) = struct.unpack_from(">H", packet, 6)
        more, later = offset & 0x2000, offset & 0x1FFF
        fragment = _LATER if later else _FIRST if more else _NO_FRAGMENT
        return _Packet(4, packet[9], 14 + header, fragment)

    @cached_property
    def _ipv6(self) -> _Packet | Missing:
        missing = self._claims(ETHER_IPV6)
        if missing is not None:
            return missing
        packet = self._bytes[14:]
        if len(packet) < 40 or packet[0] >> 4 != 6:
            return UNREADABLE
        if 40 + int.from_bytes(packet[4:6]) > len(packet):
            return UNREADABLE
        return self._walk(packet)

    @staticmethod
    def _walk(packet: bytes) -> _Packet | Missing:
        """Through the extension headers, as ipv6_find_hdr does; by bytes there, not by length.

        AH is an upper protocol there. A fragment header or AH behind another extension header, and
        an extension header or AH behind a fragment header, end it: nftables does not tell whether
        it went through one of those.
        """
        header, start, fragment = packet[6], 40, _NO_FRAGMENT
        while header in _EXTENSIONS:
            if len(packet) < start + 2:
                return UNREADABLE
            following, size = packet[start], packet[start + 1]
            if header == _FRAGMENT_HEADER:
                if len(packet) < start + 4 or start != 40 or following in {*_EXTENSIONS, _AH}:
                    return UNREADABLE
                fragment = _FIRST
                if int.from_bytes(packet[start + 2 : start + 4]) & 0xFFF8:
                    return _Packet(6, following, 14 + start, _LATER)
                start += 8
            else:
                start += (size + 1) * 8
            header = following
        if header == _AH and start != 40:
            return UNREADABLE
        return _Packet(6, header, 14 + start, fragment)

    def _ip(self, name: str) -> Found:
        packet = self._ipv4
        if isinstance(packet, Missing):
            return packet
        if name in ("protocol", "fragment"):
            return packet.protocol if name == "protocol" else packet.fragment
        return self._number(14 + (12 if name == "saddr" else 16), 4)

    def _ip6(self, name: str) -> Found:
        packet = self._ipv6
        if isinstance(packet, Missing):
            return packet
        if name in ("protocol", "fragment"):
            return packet.protocol if name == "protocol" else packet.fragment
        places = {"nexthdr": (6, 1), "hoplimit": (7, 1), "saddr": (8, 16), "daddr": (24, 16)}
        offset, length = places[name]
        return self._number(14 + offset, length)

    def _upper(self, protocol: int, versions: tuple[int, ...] = (4, 6)) -> int | Missing:
        """Where the header of an upper protocol begins; unreadable unless all of it is there."""
        packet: _Packet | Missing = ABSENT
        for version, reading in ((4, self._ipv4), (6, self._ipv6)):
            if version in versions and reading is not ABSENT:
                packet = reading
        if isinstance(packet, Missing):
            return packet
        if packet.protocol != protocol:
            return ABSENT
        too_short = len(self._bytes) < packet.start + _HEADER_BYTES[protocol]
        return UNREADABLE if packet.fragment == _LATER or too_short else packet.start

    def _of_upper(
        self, protocol: int, versions: tuple[int, ...], offset: int, length: int
    ) -> Found:
        start = self._upper(protocol, versions)
        return start if isinstance(start, Missing) else self._number(start + offset, length)

    def _tcp(self, name: str) -> Found:
        return self._of_upper(TCP, (4, 6), 0 if name == "sport" else 2, 2)

    def _udp(self, name: str) -> Found:
        return self._of_upper(UDP, (4, 6), 0 if name == "sport" else 2, 2)

    def _icmp(self, name: str) -> Found:
        return self._of_upper(ICMP, (4,), 0 if name == "type" else 1, 1)

    def _icmpv6(self, name: str) -> Found:
        return self._of_upper(ICMPV6, (6,), 0 if name == "type" else 1, 1)

    def _nd(self, name: str) -> Found:
        start = self._upper(ICMPV6, (6,))
        if isinstance(start, Missing):
            return start
        kind = self._bytes[start]
        if name == "target":
            return self._number(start + 8, 16) if kind in _ND_TARGETS else ABSENT
        if kind not in _ND_FIXED:
            return ABSENT
        return self._lladdr(start, *_ND_FIXED[kind])

    def _lladdr(self, start: int, fixed: int, option: int) -> Found:
        """The address in the one option there is; several, or any other, cannot be read.

        Exactly: no extension headers, and the packet's length is that of the fixed part, or of
        that and 8 bytes more, which are the option with the address or a nonce (RFC 7527).
        """
        length = int.from_bytes(self._bytes[18:20])
        if start != 14 + 40 or length not in (fixed, fixed + 8):
            return UNREADABLE
        if len(self._bytes) < start + length:
            return UNREADABLE
        if length == fixed:
            return NO_LLADDR
        kind, size = self._bytes[start + fixed], self._bytes[start + fixed + 1]
        if size != 1 or kind not in (option, _NONCE_OPTION):
            return UNREADABLE
        return NO_LLADDR if kind == _NONCE_OPTION else self._number(start + fixed + 2, 6)

    def _dhcp(self, name: str) -> Found:
        """Claimed by either port of UDP over IPv4 being one of DHCP's."""
        start = self._upper(UDP, (4,))
        if isinstance(start, Missing):
            return start
        if not _DHCP_PORTS & set(struct.unpack_from(">HH", self._bytes, start)):
            return ABSENT
        message = start + 8
        if len(self._bytes) < message + _BOOTP_BYTES:
            return UNREADABLE
        if self._bytes[message + 1 : message + 3] != b"\x01\x06":
            return UNREADABLE  # chaddr is no MAC
        return self._number(message, 1) if name == "op" else self._number(message + 28, 6)

    def _dhcpv6(self, _name: str) -> Found:
        start = self._upper(UDP, (6,))
        if isinstance(start, Missing):
            return start
        if not _DHCPV6_PORTS & set(struct.unpack_from(">HH", self._bytes, start)):
            return ABSENT
        return self._number(start + 8, 1)

    def _ct(self, _name: str) -> Found:
        return self._state

    _readings: Final = {
        "ether": _ether,
        "vlan": _vlan,
        "arp": _arp,
        "ip": _ip,
        "ip6": _ip6,
        "icmp": _icmp,
        "icmpv6": _icmpv6,
        "nd": _nd,
        "tcp": _tcp,
        "udp": _udp,
        "dhcp": _dhcp,
        "dhcpv6": _dhcpv6,
        "ct": _ct,
    }
