"""The fields that a rule can ask about: one table, for loader, evaluator and compiler.

A field belongs to a header. A frame has the header, or has none of it (the field is *absent*), or
claims it without its being there to be read (the field is *unreadable*); `frame` says which.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Kind = Literal[
    "mac", "ipv4", "ipv6", "port", "vlan", "ethertype", "protocol", "word", "number", "lladdr"
]
"""What a field's values are. A variable of the same type can stand for them, except for `word`
and `number`, which take constants alone; an `lladdr` is a `mac` or the word `none`."""

ETHER_IPV4: Final = 0x0800
ETHER_ARP: Final = 0x0806
ETHER_IPV6: Final = 0x86DD
ETHER_RARP: Final = 0x8035
TAGS: Final = frozenset({0x8100, 0x88A8})
"""The ethertypes of VLAN tags. What stands behind a tag is not looked at."""
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

NO_LLADDR: Final = 1 << 48
"""Stands for the word `none` of `nd.lladdr`: no MAC has this value."""

_ETHERTYPES: Final = {
    "ipv4": ETHER_IPV4,
    "arp": ETHER_ARP,
    "rarp": ETHER_RARP,
    "ipv6": ETHER_IPV6,
    "vlan": 0x8100,
    "qinq": 0x88A8,
}
_PROTOCOLS: Final = {
    "icmp": ICMP,
    "igmp": 2,
    "tcp": TCP,
    "udp": UDP,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": ICMPV6,
    "sctp": 132,
}
_HEADERS: Final = {"hop-by-hop": 0, "routing": 43, "fragment": 44, "destination": 60}
_FRAGMENTS: Final = {"none": 0, "first": 1, "later": 2}
_ARP_OPERATIONS: Final = {"request": 1, "reply": 2, "rarp-request": 3, "rarp-reply": 4}
_ICMP_TYPES: Final = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
}
_ICMPV6_TYPES: Final = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-query": 130,
    "mld-report": 131,
    "mld-done": 132,
    "router-solicit": 133,
    "router-advert": 134,
    "neighbour-solicit": 135,
    "neighbour-advert": 136,
    "redirect": 137,
    "mld2-report": 143,
}
CT_STATES: Final = {"invalid": 1, "new": 2, "established": 3, "related": 4, "untracked": 5}
_DHCP_OPERATIONS: Final = {"request": 1, "reply": 2}


class Field(msgspec.Struct, frozen=True):
    """One field: `header.name`, what its values are and how many bits they have.

    `words` are names for values. A `word` field takes nothing else.
    """

    name: str
    kind: Kind
    bits: int
    words: dict[str, int] = {}

    @property
    def header(self) -> str:
        """What stands before the dot."""
        return self.name.partition(".")[0]


_MAC_WORDS: Final = {"broadcast": (1 << 48) - 1}

FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        Field("ether.src", "mac", 48),
        Field("ether.dst", "mac", 48, _MAC_WORDS),
        Field("ether.type", "ethertype", 16, _ETHERTYPES),
        Field("vlan.id", "vlan", 12),
        Field("vlan.type", "ethertype", 16, _ETHERTYPES),
        Field("arp.op", "number", 16, _ARP_OPERATIONS),
        Field("arp.sha", "mac", 48),
        Field("arp.spa", "ipv4", 32),
        Field("arp.tha", "mac", 48, _MAC_WORDS),
        Field("arp.tpa", "ipv4", 32),
        Field("ip.saddr", "ipv4", 32),
        Field("ip.daddr", "ipv4", 32),
        Field("ip.protocol", "protocol", 8, _PROTOCOLS),
        Field("ip.fragment", "word", 2, _FRAGMENTS),
        Field("ip6.saddr", "ipv6", 128),
        Field("ip6.daddr", "ipv6", 128),
        Field("ip6.nexthdr", "protocol", 8, _PROTOCOLS | _HEADERS),
        Field("ip6.protocol", "protocol", 8, _PROTOCOLS),
        Field("ip6.fragment", "word", 2, _FRAGMENTS),
        Field("ip6.hoplimit", "number", 8),
        Field("icmp.type", "number", 8, _ICMP_TYPES),
        Field("icmp.code", "number", 8),
        Field("icmpv6.type", "number", 8, _ICMPV6_TYPES),
        Field("icmpv6.code", "number", 8),
        Field("nd.target", "ipv6", 128),
        Field("nd.lladdr", "lladdr", 49, {"none": NO_LLADDR}),
        Field("tcp.sport", "port", 16),
        Field("tcp.dport", "port", 16),
        Field("udp.sport", "port", 16),
        Field("udp.dport", "port", 16),
        Field("dhcp.op", "word", 8, _DHCP_OPERATIONS),
        Field("dhcp.chaddr", "mac", 48),
        Field("dhcpv6.type", "number", 8),
        Field("ct.state", "word", 3, CT_STATES),
    )
}
"""By name."""

STATE: Final = "ct.state"
"""The one field that is not in the frame."""
ALWAYS_READABLE: Final = frozenset({"ether.src", "ether.dst", "ether.type", STATE})
"""Every frame has these."""
