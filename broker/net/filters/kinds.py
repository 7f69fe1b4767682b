"""Kinds of frames: told apart once for each frame, so that rules know what they can read.

In a frame of one kind every field of the language (`broker.filters.fields`) is there at a known
place, or absent, or unreadable. A profile is compiled once for each kind; what is left of its rules
there are positive comparisons of bytes that are known to exist. So a header that is short, cut or
fragmented never gets past a rule by failing to match: it makes the frame one of another kind, in
which the rule is compiled to what the language says of unreadable fields (`broker.filters.frame`).

Kinds are told by TREE, each combination of profiles going only as deep into it as it must: where
all kinds below a node would be asked the same, they are not told apart. It relies on what the
kernel validates before it shows an upper protocol (`nft_set_pktinfo_ipv4_validate`,
`ipv6_find_hdr`), and checks itself what that leaves open: `@th` is readable in IPv4's later
fragments too, and would show whatever bytes are there. Ethertypes are read at the link layer,
where tags that the card or the veth stripped are still seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.fields import (
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
from broker.filters.frame import ABSENT, UNREADABLE, Missing

if TYPE_CHECKING:
    from collections.abc import Mapping


class Bytes(msgspec.Struct, frozen=True):
    """A field at a known place: nft's expression for it, its bits, and nft's type of it.

    `never` are values, from one to another, that it has in no frame of the kind.
    """

    text: str
    bits: int
    type: str
    never: tuple[int, int] = (1, 0)


class Words(msgspec.Struct, frozen=True):
    """A field that is one of a few numbers: the condition that it is each of them."""

    conditions: Mapping[int, str]


class Known(msgspec.Struct, frozen=True):
    """A field that has one value in all frames of the kind."""

    value: int


Reading = Bytes | Words | Known | Missing

_I8, _I12, _I16, _I32, _I48, _I64, _I128, _PORT, _L4 = (
    "i8", "i12", "i16", "i32", "i48", "i64", "i128", "port", "l4",
)  # fmt: skip
TYPES: Final[dict[str, tuple[str, int]]] = {
    _I8: ("@nh,72,8", 1),
    _I12: ("@ll,116,12", 2),
    _I16: ("@ll,96,16", 2),
    _I32: ("@nh,96,32", 4),
    _I48: ("@ll,48,48", 6),
    _I64: ("@ll,48,64", 8),
    _I128: ("@nh,64,128", 16),
    _PORT: ("@th,0,16", 2),
    _L4: ("meta l4proto", 1),
}
"""Types of nft's that a field's bytes can have: an expression of the type, and its bytes."""


def _at(base: str, byte: int, kind: str, bits: int | None = None) -> Bytes:
    size = TYPES[kind][1] * 8 if bits is None else bits
    return Bytes(f"@{base},{byte * 8 + (TYPES[kind][1] * 8 - size)},{size}", size, kind)


_L4PROTO: Final = Bytes("meta l4proto", 8, _L4)
_FRAGMENT6: Final = "@nh,48,8 44"
_OFFSET6: Final = "@nh,336,16 & 0xfff8"
_FRAGMENTS: Final = {
    "ip.fragment": {0: "@nh,50,14 0", 1: "@nh,50,14 0x2000", 2: "@nh,51,13 != 0"},
    "ip6.fragment": {
        0: "@nh,48,8 != 44",
        1: f"{_FRAGMENT6} {_OFFSET6} == 0",
        2: f"{_FRAGMENT6} {_OFFSET6} != 0",
    },
}
_ETHERTYPE: Final = _at("ll", 12, _I16)
_PORTS: Final = {"udp.sport": _at("th", 0, _PORT), "udp.dport": _at("th", 2, _PORT)}
_PLACES: Final[dict[str, Bytes | Words]] = {
    "ether.dst": _at("ll", 0, _I48),
    "ether.src": _at("ll", 6, _I48),
    "ether.type": _ETHERTYPE,
    "vlan.id": _at("ll", 14, _I12, 12),
    "vlan.type": _at("ll", 16, _I16),
    "arp.op": _at("nh", 6, _I16),
    "arp.sha": _at("nh", 8, _I48),
    "arp.spa": _at("nh", 14, _I32),
    "arp.tha": _at("nh", 18, _I48),
    "arp.tpa": _at("nh", 24, _I32),
    "ip.saddr": _at("nh", 12, _I32),
    "ip.daddr": _at("nh", 16, _I32),
    "ip.protocol": _L4PROTO,
    "ip.fragment": Words(_FRAGMENTS["ip.fragment"]),
    "ip6.saddr": _at("nh", 8, _I128),
    "ip6.daddr": _at("nh", 24, _I128),
    "ip6.nexthdr": _at("nh", 6, _I8),
    "ip6.protocol": _L4PROTO,
    "ip6.fragment": Words(_FRAGMENTS["ip6.fragment"]),
    "ip6.hoplimit": _at("nh", 7, _I8),
    "icmp.type": _at("th", 0, _I8),
    "icmp.code": _at("th", 1, _I8),
    "icmpv6.type": _at("th", 0, _I8),
    "icmpv6.code": _at("th", 1, _I8),
    "nd.target": _at("th", 8, _I128),
    "nd.lladdr": _at("th", 26, _I48),
    "tcp.sport": _at("th", 0, _PORT),
    "tcp.dport": _at("th", 2, _PORT),
    **_PORTS,
    "dhcp.op": _at("th", 8, _I8),
    "dhcp.chaddr": _at("th", 36, _I48),
    "dhcpv6.type": _at("th", 8, _I8),
}


class Kind(msgspec.Struct, frozen=True):
    """One kind, and how each field is read in it; absent are those not here."""

    name: str
    readings: Mapping[str, Reading]


def _fields(*headers: str) -> list[str]:
    return [name for name, field in FIELDS.items() if field.header in headers]


_EARLY: Final = _at("th", 10, _I48)
"""`nd.lladdr` of router solicitations, whose one option begins 16 bytes earlier."""
_LATE: Final = _PLACES["nd.lladdr"]
_NONE: Final = Known(NO_LLADDR)
_BEHIND_TAG: Final = "arp ip ip6 icmp icmpv6 nd tcp udp dhcp dhcpv6"
_TABLE: Final[tuple[tuple[str, str, str, Reading | None], ...]] = (
    # Its name, headers that can be read, that cannot (absent are the others), and `nd.lladdr`.
    ("other", "", "", None),
    ("tag", "vlan", _BEHIND_TAG, None),
    ("tag-bad", "", f"vlan {_BEHIND_TAG}", None),
    ("arp", "arp", "", None),
    ("arp-bad", "", "arp", None),
    ("ip4-bad", "", "ip icmp tcp udp dhcp", None),
    ("ip4", "ip", "", None),
    ("ip4-icmp", "ip icmp", "", None),
    ("ip4-icmp-error", "ip icmp", "", None),
    ("ip4-icmp-bad", "ip", "icmp", None),
    ("ip4-tcp", "ip tcp", "", None),
    ("ip4-tcp-bad", "ip", "tcp", None),
    ("ip4-udp", "ip udp", "", None),
    ("ip4-udp-bad", "ip", "udp dhcp", None),
    ("ip4-dhcp", "ip udp dhcp", "", None),
    ("ip4-dhcp-bad", "ip udp", "dhcp", None),
    ("ip6-bad", "", "ip6 icmpv6 nd tcp udp dhcpv6", None),
    ("ip6", "ip6", "", None),
    ("ip6-tcp", "ip6 tcp", "", None),
    ("ip6-tcp-bad", "ip6", "tcp", None),
    ("ip6-udp", "ip6 udp", "", None),
    ("ip6-udp-bad", "ip6", "udp dhcpv6", None),
    ("ip6-dhcp", "ip6 udp dhcpv6", "", None),
    ("ip6-dhcp-bad", "ip6 udp", "dhcpv6", None),
    ("ip6-icmp", "ip6 icmpv6", "", None),
    ("ip6-icmp-error", "ip6 icmpv6", "", None),
    ("ip6-icmp-bad", "ip6", "icmpv6 nd", None),
    # Router solicitations have no target; `nd` are neighbour solicitations and advertisements.
    ("ip6-rs-none", "ip6 icmpv6", "", _NONE),
    ("ip6-rs-mac", "ip6 icmpv6", "", _EARLY),
    ("ip6-rs-bad", "ip6 icmpv6", "", UNREADABLE),
    ("ip6-nd-none", "ip6 icmpv6 nd", "", _NONE),
    ("ip6-nd-mac", "ip6 icmpv6 nd", "", _LATE),
    ("ip6-nd-bad", "ip6 icmpv6 nd", "", UNREADABLE),
    ("ip6-nd-short", "ip6 icmpv6", "nd", UNREADABLE),
    ("ip6-redirect", "ip6 icmpv6 nd", "", ABSENT),
    ("ip6-redirect-short", "ip6 icmpv6", "nd", ABSENT),
)
_NEITHER: Final = {"ip4-udp": (67, 68), "ip6-udp": (546, 547)}
"""UDP that is not for DHCP: neither port is one of these."""
_BELOW_TAGS: Final = (0, min(TAGS) - 1)
_ETHERTYPES: Final = {"arp": ETHER_ARP, "ip4": ETHER_IPV4, "ip6": ETHER_IPV6}
_ICMP6: Final = frozenset({"icmp", "rs", "nd", "redirect"})
_UPPER: Final = {"tcp": TCP, "udp": UDP, "dhcp": UDP}


def _kind(row: tuple[str, str, str, Reading | None]) -> Kind:
    name, there, unreadable, address = row
    readings: dict[str, Reading] = {it: _PLACES[it] for it in _fields("ether", *there.split())}
    readings |= dict.fromkeys(_fields(*unreadable.split()), UNREADABLE)
    first, _, rest = name.partition("-")
    upper = rest.partition("-")[0]
    if first in _ETHERTYPES:
        readings["ether.type"] = Known(_ETHERTYPES[first])
    if first == "tag":
        readings["ether.type"] = msgspec.structs.replace(_ETHERTYPE, never=_BELOW_TAGS)
    if first == "ip4" and upper in {*_UPPER, "icmp"}:
        readings["ip.protocol"] = Known(_UPPER.get(upper, ICMP))
    if first == "ip6" and upper in {*_UPPER, *_ICMP6}:
        readings["ip6.protocol"] = Known(_UPPER.get(upper, ICMPV6))
    if address is not None:
        readings["nd.lladdr"] = address
    if rest and not rest.endswith("-bad") and upper in {*_UPPER, *_ICMP6}:
        # With its upper header it is no later fragment.
        for field in {"ip.fragment", "ip6.fragment"} & set(readings):
            words = _FRAGMENTS[field]
            readings[field] = Words({it: words[it] for it in (0, 1)})
    if name in _NEITHER:
        for field in ("udp.sport", "udp.dport"):
            readings[field] = msgspec.structs.replace(_PORTS[field], never=_NEITHER[name])
    return Kind(name, readings)


KINDS: Final = {row[0]: _kind(row) for row in _TABLE}
"""By name."""


def _there(byte: int) -> str:
    """That the upper header's byte of this number can be read, whatever it is."""
    return f"@th,{byte * 8},8 & 0x0 == 0x0"


class Step(msgspec.Struct, frozen=True):
    """One step of telling a frame's kind: where it leads if `condition` holds (empty: always).

    With `ways` the condition is an expression, and its value tells where it leads; of another
    value, or where it cannot be read, the next step comes. Where: a kind, or another node of TREE.
    """

    condition: str
    to: str = ""
    ways: tuple[tuple[str, str], ...] = ()


def _node(*steps: tuple[str, str | dict[str, str]]) -> tuple[Step, ...]:
    return tuple(
        Step(condition, to) if isinstance(to, str) else Step(condition, ways=tuple(to.items()))
        for condition, to in steps
    )


_LATER4: Final = "@nh,51,13 != 0"
_LATER6: Final = f"{_FRAGMENT6} {_OFFSET6} != 0"
_LENGTH6: Final = "@nh,48,8 58 @nh,32,16"
"""ICMPv6 right after the fixed header, and the payload length of the packet."""
_QUOTES4: Final = (
    f"@th,0,8 {{ 3, 11, 12 }} @th,64,8 0x45 @th,114,14 0 @th,136,8 {{ 1, 6, 17 }} {_there(35)}"
)
"""An error that quotes a packet without options, no fragment, whose first eight bytes are there."""
_QUOTES6: Final = f"@th,0,8 1-4 @th,64,4 6 @th,112,8 {{ 6, 17, 58 }} {_there(55)}"
_EXTENSIONS: Final = "0, 43, 44, 60"
ROOT: Final = "type"
IP4: Final = "four"
"""Where all is IPv4."""
TREE: Final[dict[str, tuple[Step, ...]]] = {
    ROOT: _node(
        (
            "@ll,96,16",
            {
                "0x0800": "four",
                "0x86dd": "six",
                "0x0806": "is-arp",
                "0x8100": "tagged",
                "0x88a8": "tagged",
            },
        ),
        ("", "other"),
    ),
    "tagged": _node(("@ll,136,8 & 0x0 == 0x0", "tag"), ("", "tag-bad")),
    "is-arp": _node(("@nh,0,48 0x000108000604 @nh,216,8 & 0x0 == 0x0", "arp"), ("", "arp-bad")),
    "four": _node(
        ("meta l4proto", {"6": "tcp4", "17": "udp4", "1": "icmp4"}),
        # Read at all, it is none of those.
        ("meta l4proto != 6", "ip4"),
        ("", "ip4-bad"),
    ),
    "tcp4": _node((_LATER4, "ip4-tcp-bad"), (_there(19), "ip4-tcp"), ("", "ip4-tcp-bad")),
    "icmp4": _node((_LATER4, "ip4-icmp-bad"), (_there(7), "quoting4"), ("", "ip4-icmp-bad")),
    "quoting4": _node((_QUOTES4, "ip4-icmp-error"), ("", "ip4-icmp")),
    "udp4": _node(
        (_LATER4, "ip4-udp-bad"),
        ("@th,0,16 67-68", "dhcp4"),
        ("@th,16,16 67-68", "dhcp4"),
        (_there(7), "ip4-udp"),
        ("", "ip4-udp-bad"),
    ),
    "dhcp4": _node(
        (f"@th,72,16 0x0106 {_there(243)}", "ip4-dhcp"),
        (_there(7), "ip4-dhcp-bad"),
        ("", "ip4-udp-bad"),
    ),
    "six": _node((f"@nh,48,8 {{ {_EXTENSIONS} }}", "extended6"), ("", "upper6")),
    "upper6": _node(
        ("meta l4proto", {"6": "tcp6", "17": "udp6", "58": "icmp6"}),
        ("meta l4proto != 6", "ip6"),
        ("", "ip6-bad"),
    ),
    "extended6": _node(
        (f"{_FRAGMENT6} @nh,320,8 != {{ {_EXTENSIONS}, 51 }}", "upper6"),
        # A fragment header anywhere but first, or before another extension: nobody reads on. AH,
        # where nftables stops, hides one.
        ("@nh,48,8 != 44 meta l4proto != 51 exthdr frag missing", "upper6"),
        ("", "ip6-bad"),
    ),
    "tcp6": _node((_LATER6, "ip6-tcp-bad"), (_there(19), "ip6-tcp"), ("", "ip6-tcp-bad")),
    "udp6": _node(
        (_LATER6, "ip6-udp-bad"),
        ("@th,0,16 546-547", "dhcp6"),
        ("@th,16,16 546-547", "dhcp6"),
        (_there(7), "ip6-udp"),
        ("", "ip6-udp-bad"),
    ),
    "dhcp6": _node((_there(8), "ip6-dhcp"), (_there(7), "ip6-dhcp-bad"), ("", "ip6-udp-bad")),
    "icmp6": _node((_LATER6, "ip6-icmp-bad"), (_there(7), "typed6"), ("", "ip6-icmp-bad")),
    "typed6": _node(
        ("@th,0,8", {"133": "rs", "135": "nd", "136": "nd", "137": "redirect"}), ("", "quoting6")
    ),
    "quoting6": _node((_QUOTES6, "ip6-icmp-error"), ("", "ip6-icmp")),
    "rs": _node(
        (f"{_LENGTH6} 8", "ip6-rs-none"),
        (f"{_LENGTH6} 16 @th,64,16 0x0e01", "ip6-rs-none"),
        (f"{_LENGTH6} 16 @th,64,16 0x0101", "ip6-rs-mac"),
        ("", "ip6-rs-bad"),
    ),
    "nd": _node(
        (f"{_LENGTH6} 24", "ip6-nd-none"),
        (f"{_LENGTH6} 32 @th,192,16 0x0e01", "ip6-nd-none"),
        (f"{_LENGTH6} 32 @th,0,8 135 @th,192,16 0x0101", "ip6-nd-mac"),
        (f"{_LENGTH6} 32 @th,0,8 136 @th,192,16 0x0201", "ip6-nd-mac"),
        (_there(23), "ip6-nd-bad"),
        ("", "ip6-nd-short"),
    ),
    "redirect": _node((_there(23), "ip6-redirect"), ("", "ip6-redirect-short")),
}
"""How kinds are told, from ROOT on: the last step of each node always leads somewhere."""


_UNREAD: Final = "other arp arp-bad ip4-bad"
"""Kinds in which nftables shows no upper protocol. Behind a tag that the card stripped it may."""
_UDP6: Final = "ip6-udp ip6-udp-bad ip6-dhcp ip6-dhcp-bad"
_UDP4: Final = "ip4-udp ip4-udp-bad ip4-dhcp ip4-dhcp-bad"
_TCP: Final = "ip4-tcp ip4-tcp-bad ip6-tcp ip6-tcp-bad"
_AWAY: Final = "& 0xfff8 != 0x40"
"""A port that is neither 67 nor 68, told quicker than by a range."""
SHORT_CUTS: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    (
        f"meta l4proto 17 @nh,51,13 0 @th,0,16 {_AWAY} @th,16,16 {_AWAY} {_there(7)}",
        frozenset(f"tag tag-bad ip4-udp ip6-bad {_UDP6}".split()),
    ),
    ("meta l4proto != 17", frozenset(KINDS) - frozenset(f"{_UNREAD} {_UDP4} {_UDP6}".split())),
    ("meta l4proto 6", frozenset(f"tag tag-bad ip6-bad {_TCP}".split())),
)
"""Conditions, and all kinds of which a frame can be if one holds: the usual ones first. Where all
of these are led alike the condition leads there, and nobody looks which of them it is."""
