"""Frames that a guest under clean-traffic may send, and those that it may not: each has a mark.

The mark is behind the packet, where no protocol looks; the guests' `listen` counts it.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = b"xpb!"
"""Followed by one byte, the number of the case."""
STRANGER_MAC = "02:00:00:00:00:09"
STRANGER = "10.0.0.9"
STRANGER_V6 = "fd00::9"
_ARP, _RARP, _IPV4, _IPV6, _VLAN, _QINQ = 0x0806, 0x8035, 0x0800, 0x86DD, 0x8100, 0x88A8
_UDP, _ICMPV6, _OPTIONS = 17, 58, 60
_RA, _NA = 134, 136


class Sender:
    """A guest: its own addresses, and those of the one it sends to."""

    def __init__(
        self, mac: str, address: str, address_v6: str, *, to: tuple[str, str, str]
    ) -> None:
        self.mac, self.address, self.address_v6 = mac, address, address_v6
        self.to_mac, self.to_address, self.to_address_v6 = to

    def honest(self) -> dict[str, bytes]:
        """What it may send, by what it is."""
        return dict(
            _marked(
                1,
                ("IPv4 of its own", self._ether(_IPV4, self._ipv4(self.address))),
                ("ARP of its own", self._ether(_ARP, self._arp(1, self.mac, self.address))),
                ("IPv6 of its own", self._ether(_IPV6, self._ipv6(self.address_v6))),
                (
                    "an advertisement of its own address",
                    self._ether(_IPV6, self._advertisement(self.address_v6)),
                ),
            )
        )

    def spoofed(self) -> dict[str, bytes]:
        """What it may not send, by what it is."""
        own = self._ipv4(self.address)
        dhcp = self._ipv4(self.address, ports=(67, 68), payload=b"\2\1\6\0" + bytes(236))
        hidden = struct.pack(">BB6x", _ICMPV6, 0) + self._na(self.to_address_v6)
        return dict(
            _marked(
                101,
                ("another's MAC", self._ether(_IPV4, own, source=STRANGER_MAC)),
                ("another's IPv4 address", self._ether(_IPV4, self._ipv4(STRANGER))),
                (
                    "a later fragment from another's IPv4 address",
                    self._ether(_IPV4, self._ipv4(STRANGER, offset=185)),
                ),
                ("half an IPv4 header", self._ether(_IPV4, own[:10])),
                (
                    "an ARP answer with another's address",
                    self._ether(_ARP, self._arp(2, self.mac, STRANGER)),
                ),
                (
                    "an ARP answer with another's MAC",
                    self._ether(_ARP, self._arp(2, STRANGER_MAC, self.address)),
                ),
                ("reverse ARP", self._ether(_RARP, self._arp(3, self.mac, self.address))),
                ("another's IPv6 address", self._ether(_IPV6, self._ipv6(STRANGER_V6))),
                (
                    "an advertisement of another's address",
                    self._ether(_IPV6, self._advertisement(self.to_address_v6)),
                ),
                (
                    "the same behind an extension header",
                    self._ether(_IPV6, self._ipv6(self.address_v6, _OPTIONS, hidden)),
                ),
                (
                    "a router's advertisement",
                    self._ether(
                        _IPV6,
                        self._ipv6(
                            self.address_v6, _ICMPV6, struct.pack(">BBHI8x", _RA, 0, 0, 0x40000708)
                        ),
                    ),
                ),
                ("a DHCP server's offer", self._ether(_IPV4, dhcp)),
                ("a tagged frame", self._ether(_VLAN, struct.pack(">HH", 5, _IPV4) + own)),
                (
                    "a frame tagged twice",
                    self._ether(_QINQ, struct.pack(">HHHH", 5, _VLAN, 6, _IPV4) + own),
                ),
                ("LLC", self._ether(40, b"\x42\x42\3" + bytes(37))),
            )
        )

    def _ether(self, kind: int, payload: bytes, *, source: str | None = None) -> bytes:
        return _mac(self.to_mac) + _mac(source or self.mac) + struct.pack(">H", kind) + payload

    def _arp(self, operation: int, mac: str, address: str) -> bytes:
        head = struct.pack(">HHBBH", 1, _IPV4, 6, 4, operation)
        target = _mac(self.to_mac) + IPv4Address(self.to_address).packed
        return head + _mac(mac) + IPv4Address(address).packed + target

    def _ipv4(
        self,
        source: str,
        *,
        offset: int = 0,
        ports: tuple[int, int] = (5000, 5001),
        payload: bytes = bytes(8),
    ) -> bytes:
        datagram = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
        ends = IPv4Address(source).packed + IPv4Address(self.to_address).packed
        length = 20 + len(datagram)
        head = struct.pack(">BBHHHBBH", 0x45, 0, length, 1, offset, 64, _UDP, 0) + ends
        total = sum(struct.unpack(">10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        return head[:10] + struct.pack(">H", checksum) + head[12:] + datagram

    def _ipv6(self, source: str, following: int = _UDP, payload: bytes = b"") -> bytes:
        payload = payload or struct.pack(">HHHH8x", 5000, 5001, 16, 1)
        ends = IPv6Address(source).packed + IPv6Address(self.to_address_v6).packed
        return struct.pack(">IHBB", 6 << 28, len(payload), following, 255) + ends + payload

    def _advertisement(self, target: str) -> bytes:
        return self._ipv6(self.address_v6, _ICMPV6, self._na(target))

    def _na(self, target: str) -> bytes:
        option = b"\2\1" + _mac(self.mac)
        return struct.pack(">BBHI", _NA, 0, 0, 0x20000000) + IPv6Address(target).packed + option


def _marked(first: int, *frames: tuple[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for number, (what, frame) in enumerate(frames, first):
        yield what, frame + MARK + bytes([number])


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
