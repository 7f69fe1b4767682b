"""Says in one line what a frame is. For people: nothing is decided by it.

The bytes are a guest's. Whatever does not parse is shown as far as it does; addresses and numbers
are formatted here, and no text of the frame itself is.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

_ETHERTYPES: Final = {0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP"}
_TAGS: Final = frozenset({0x8100, 0x88A8})
_PROTOCOLS: Final = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_WITH_PORTS: Final = frozenset({6, 17, 132})
_ARP_OPERATIONS: Final = {1: "request", 2: "reply"}
_MAX_TAGS: Final = 4


def describe(untrusted_frame: bytes) -> str:
    """One line of printable ASCII about an Ethernet frame, whole or cut short."""
    if len(untrusted_frame) < 14:
        return f"frame of {len(untrusted_frame)} bytes, too short for Ethernet"
    target, source = _mac(untrusted_frame[:6]), _mac(untrusted_frame[6:12])
    (ethertype,) = struct.unpack_from(">H", untrusted_frame, 12)
    offset = 14
    tags: list[str] = []
    while ethertype in _TAGS and len(untrusted_frame) >= offset + 4 and len(tags) < _MAX_TAGS:
        tag, ethertype = struct.unpack_from(">HH", untrusted_frame, offset)
        tags.append(f"vlan {tag & 0xFFF}")
        offset += 4
    return " ".join(
        [f"{source} > {target}", *tags, describe_payload(ethertype, untrusted_frame[offset:])]
    )


def describe_payload(ethertype: int, untrusted_payload: bytes) -> str:
    """The same for what follows the Ethernet header."""
    if ethertype < 0x0600:
        return f"LLC length {ethertype}"
    name = _ETHERTYPES.get(ethertype)
    if name == "IPv4" and len(untrusted_payload) >= 20:
        return _ipv4(untrusted_payload)
    if name == "IPv6" and len(untrusted_payload) >= 40:
        return _ipv6(untrusted_payload)
    if name == "ARP" and len(untrusted_payload) >= 28:
        return _arp(untrusted_payload)
    return f"{name}, cut short" if name else f"ethertype {ethertype:#06x}"


def _ipv4(packet: bytes) -> str:
    ends = str(ipaddress.IPv4Address(packet[12:16])), str(ipaddress.IPv4Address(packet[16:20]))
    header = (packet[0] & 15) * 4
    fragment = struct.unpack_from(">H", packet, 6)[0] & 0x1FFF
    after = b"" if fragment else packet[header:]
    note = f" fragment at {fragment * 8}" if fragment else ""
    return f"IPv4 {_ip(ends, packet[9], after)}{note}"


def _ipv6(packet: bytes) -> str:
    ends = str(ipaddress.IPv6Address(packet[8:24])), str(ipaddress.IPv6Address(packet[24:40]))
    return f"IPv6 {_ip(ends, packet[6], packet[40:])}"


def _ip(ends: tuple[str, str], protocol: int, after: bytes) -> str:
    source, target = ends
    if protocol in _WITH_PORTS and len(after) >= 4:
        ports = struct.unpack_from(">HH", after)
        source, target = f"{source} port {ports[0]}", f"{target} port {ports[1]}"
    return f"{source} > {target} {_PROTOCOLS.get(protocol, f'protocol {protocol}')}"


def _arp(packet: bytes) -> str:
    (operation,) = struct.unpack_from(">H", packet, 6)
    sender, target = (ipaddress.IPv4Address(packet[at : at + 4]) for at in (14, 24))
    what = _ARP_OPERATIONS.get(operation, f"operation {operation}")
    return f"ARP {what} from {sender} for {target}"


def _mac(octets: bytes) -> str:
    return octets.hex(":")
