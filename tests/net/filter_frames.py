"""Frames and filter profiles at random, of few addresses and numbers, so that they often meet.

Each is made from a `random.Random`: what hypothesis draws is its seed.
"""

from __future__ import annotations

import ipaddress
import re
import struct

from net_rig import raw

from broker.filters.fields import ETHER_IPV4, ETHER_IPV6
from broker.filters.load import load_profile
from broker.text.problems import ProblemsError

GUEST, OTHER = "02:00:00:00:00:01", "02:00:00:00:99:01"
SOURCES = (GUEST, OTHER)
TARGETS = (
    "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "33:33:ff:00:00:01", "01:00:5e:00:00:05",
    "02:99:00:00:00:07",
)  # fmt: skip
ADDRESSES = ("10.0.0.1", "10.0.0.2", "0.0.0.0", "255.255.255.255", "224.0.0.1")
ADDRESSES6 = ("fd00::1", "fd00::2", "fe80::1", "::", "ff02::1")
PORTS = (67, 68, 546, 547, 80, 1000)
VARIABLES = {
    "MAC": ("mac", [GUEST]),
    "IP": ("ipv4", ["10.0.0.1", "10.0.0.3"]),
    "NET": ("ipv4", ["10.0.0.2-10.0.0.9"]),
    "IPV6": ("ipv6", ["fd00::1"]),
    "NET6": ("ipv6", ["fe80::/64", "fd00::2"]),
    "PORTS": ("port", ["67-68", "1000"]),
    "PROTO": ("protocol", ["6", "58"]),
    "TYPES": ("ethertype", ["0x0800", "0x88b5"]),
    "TAGS": ("vlan", ["5"]),
    "NONE": ("ipv4", []),
    "MACS": ("mac", [GUEST, OTHER]),
    "IPS": ("ipv4", ["10.0.0.1", "10.0.0.2"]),
}
_EXTENSIONS = (0, 43, 44, 51, 60)


def ip4(text):
    return ipaddress.IPv4Address(text).packed


def ip6(text):
    return ipaddress.IPv6Address(text).packed


class Maker:
    """Makes them."""

    def __init__(self, random, families=None):
        self.random = random
        self.pick = random.choice
        self._families = families or FAMILIES

    def some(self, one_in):
        return self.random.randrange(one_in) == 0

    # frames

    def frame(self):
        """One frame, now and then cut, padded or with a byte changed."""
        kind = self.pick(
            ["ip", "ip", "ip", "ip6", "ip6", "ip6", "ip6", "arp", "arp", "tag", "odd", "llc"]
        )
        ethertype, payload = getattr(self, f"_{kind}")()
        frame = raw(self.pick(TARGETS)) + raw(self.pick(SOURCES)) + struct.pack(">H", ethertype)
        made = bytearray(frame + payload)
        what = self.random.random()
        if what < 0.15:
            del made[self.random.randrange(14, len(made) + 1) :]
        elif what < 0.25:
            made += bytes(self.random.randrange(1, 30))
        elif what < 0.4 and len(made) > 14:
            made[self.random.randrange(14, min(len(made), 80))] = self.random.randrange(256)
        # A tag whose inside is not there at all is thrown away before any hook.
        tagged = made[12:14] in (b"\x81\x00", b"\x88\xa8")
        return bytes(made) + bytes(24) if tagged and len(made) < 24 else bytes(made)

    def frames(self, count):
        return list(dict.fromkeys(self.frame() for _ in range(count)))

    # frames of connections: few ends, so that they often answer one another

    def conversations(self, count):
        """Frames between few ends in all states of connections, some of them like any other."""
        listed = (self.frame() if self.some(6) else self._spoken() for _ in range(count))
        return list(dict.fromkeys(listed))

    def _spoken(self):
        ethertype, packet = self._said(self.pick([4, 6]))
        if self.some(5):
            ethertype, packet = self._error(packet, 4 if ethertype == ETHER_IPV4 else 6)
        if self.some(30):
            packet = packet[: self.random.randrange(20, len(packet))]
        target, source = raw(self.pick(TARGETS)), raw(self.pick(SOURCES))
        return target + source + struct.pack(">H", ethertype) + packet

    def _said(self, version):
        protocol = self.pick(["tcp", "tcp", "udp", "echo"])
        number = self.random.randrange(256)
        ends = struct.pack(">HH", *self.random.sample([80, 1000, 1001], 2))
        if protocol == "tcp":
            flags = self.pick([2, 2, 18, 16, 16, 24, 17, 4, 0, 3, 20, 0x42])
            upper = 6, ends + bytes([number]) * 8 + bytes([0x50, flags]) + bytes(6)
        elif protocol == "udp":
            upper = 17, ends + struct.pack(">HH", 9, 0) + bytes([number])
        else:
            kinds = (8, 0, 13) if version == 4 else (128, 129, 130)
            head = bytes([self.pick(kinds), 0, 0, 0, 0, self.pick([1, 2]), 0, number])
            upper = (1 if version == 4 else 58), head
        return self._packet(version, *upper)

    def _packet(self, version, protocol, upper):
        if version == 4:
            ends = self.random.sample(["10.0.0.1", "10.0.0.2"], 2)
            options = bytes([1]) * (4 if self.some(20) else 0)
            fragment = self.pick([0x2000, 5]) if self.some(20) else self.pick([0, 0x4000])
            size = 20 + len(options) + len(upper)
            first = 0x45 + len(options) // 4
            head = struct.pack(">BBHHHBBH", first, 0, size, 1, fragment, 64, protocol, 0)
            return ETHER_IPV4, head + ip4(ends[0]) + ip4(ends[1]) + options + upper
        ends = self.random.sample(["fd00::1", "fd00::2"], 2)
        if self.some(20):
            upper, protocol = bytes([protocol, 0]) + bytes(6) + upper, 60
        head = struct.pack(">IHBB", 0x60000000, len(upper), protocol, 64)
        return ETHER_IPV6, head + ip6(ends[0]) + ip6(ends[1]) + upper

    def _error(self, quoted, version):
        kind = self.pick([3, 11, 12] if version == 4 else [1, 2, 3, 4])
        body = quoted[: self.pick([20, 28, 40, 48, 56, 200])]
        return self._packet(version, 1 if version == 4 else 58, bytes([kind]) + bytes(7) + body)

    def _tag(self):
        tag = self.pick([0, 5, 0x6005])
        inner = self.pick([0x0800, 0x8100, 0x86DD])
        return self.pick([0x8100, 0x88A8]), struct.pack(">HH", tag, inner) + self._ip()[1]

    def _odd(self):
        return self.pick([0x88B5, 0x8035, 0x8847]), bytes(50)

    def _llc(self):
        return 0x20, b"\xaa\xaa\x03" + bytes(43)

    def _arp(self):
        head = struct.pack(
            ">HHBBH", self.pick([1, 1, 1, 6]), 0x0800, self.pick([6, 6, 6, 8]), 4,
            self.pick([1, 2, 3]),
        )  # fmt: skip
        ends = (
            raw(self.pick(SOURCES)) + ip4(self.pick(ADDRESSES))
            + raw(self.pick([*SOURCES, "00:00:00:00:00:00"])) + ip4(self.pick(ADDRESSES))
        )  # fmt: skip
        return 0x0806, head + ends

    def _ip(self):
        options = bytes([1]) * self.pick([0, 0, 0, 4, 40])
        protocol, upper = self._upper(6 if self.some(12) else 4)
        fragment = self.pick([0, 0, 0, 0x4000, 0x2000, 3, 0x2003])
        length = 20 + len(options) + len(upper)
        first = 0x40 | (5 + len(options) // 4)
        return 0x0800, (
            struct.pack(">BBHHHBBH", first, 0, length, 1, fragment, 64, protocol, 0)
            + ip4(self.pick(ADDRESSES)) + ip4(self.pick(ADDRESSES)) + options + upper
        )  # fmt: skip

    def _ip6(self):
        following, rest = self._upper(4 if self.some(12) else 6)
        if self.some(12):
            following, rest = 59, b""
        for _ in range(self.pick([0, 0, 0, 0, 1, 1, 2])):
            kind = self.pick(_EXTENSIONS)
            if kind == 44:
                place = self.pick([0, 1, 0x18, 0x19])
                head = struct.pack(">BBHI", following, self.pick([0, 9]), place, 7)
            else:
                size = self.pick([0, 1])
                more = (size + 2) * 4 if kind == 51 else (size + 1) * 8
                head = bytes([following, size]) + bytes(more - 2)
            following, rest = kind, head + rest
        hops = self.pick([255, 255, 64])
        return 0x86DD, (
            struct.pack(">IHBB", 0x60000000, len(rest), following, hops)
            + ip6(self.pick(ADDRESSES6)) + ip6(self.pick(ADDRESSES6)) + rest
        )  # fmt: skip

    def _upper(self, version):
        kinds = ["tcp", "udp", "udp", "other", "dhcp"]
        kinds += ["icmp"] if version == 4 else ["icmp6", "nd", "nd", "nd"]
        return getattr(self, f"_{self.pick(kinds)}")()

    def _tcp(self):
        ends = struct.pack(">HH", self.pick(PORTS), self.pick(PORTS))
        return 6, ends + bytes(8) + bytes([0x50, 2]) + bytes(6)

    def _udp(self):
        data = bytes([self.pick([1, 2, 7])]) * self.pick([0, 1, 30])
        return 17, struct.pack(
            ">HHHH", self.pick(PORTS), self.pick(PORTS), 8 + len(data), 0
        ) + data  # fmt: skip

    def _other(self):
        return self.pick([2, 47, 132]), bytes(12)

    def _icmp(self):
        return 1, bytes([self.pick([0, 5, 8, 9]), self.pick([0, 0, 1])]) + bytes(self.pick([6, 20]))

    def _icmp6(self):
        return 58, bytes([self.pick([1, 128, 131, 134, 137]), 0]) + bytes(self.pick([6, 20, 40]))

    def _nd(self):
        kind = self.pick([133, 135, 135, 136, 136, 137])
        body = bytes([kind, 0]) + bytes(6)
        if kind != 133:
            body += ip6(self.pick(ADDRESSES6))
        if kind == 137:
            body += ip6(self.pick(ADDRESSES6))
        for _ in range(self.pick([0, 1, 1, 1, 1, 2])):
            head = self.pick([b"\x01\x01", b"\x02\x01", b"\x0e\x01", b"\x01\x02"])
            body += head + raw(self.pick(SOURCES))
        return 58, body

    def _dhcp(self):
        head = bytes([self.pick([1, 2]), self.pick([1, 1, 1, 6]), self.pick([6, 6, 6, 8]), 0])
        message = head + bytes(24) + raw(self.pick(SOURCES)) + bytes(202)
        message = message[: self.pick([236, 236, 236, 235])] + bytes(self.pick([0, 20]))
        ports = self.pick([(68, 67), (67, 68), (67, 67), (68, 80), (1000, 68)])
        return 17, struct.pack(">HHHH", *ports, 8 + len(message), 0) + message

    # profiles

    def profile(self, name="random", includes=()):
        """The text of a profile of rules that make sense each and together."""
        rules = [f"  - {{include: {it}}}" for it in includes if self.some(2)]
        wanted = len(rules) + self.random.randrange(1, 9)
        while len(rules) < wanted:
            rule = self._rule()
            if not refused([rule]):
                rules.append(rule)
        self.random.shuffle(rules)
        default = self.pick(["accept", "drop", "{from-guest: accept, to-guest: drop}"])
        while bad := refused(rules):
            rules = [rule for n, rule in enumerate(rules) if n not in bad]
        return text_of(rules, name, default)

    def _rule(self):
        matches = {}
        family = self.pick(self._families)
        for _ in range(self.pick([1, 1, 2, 2, 3])):
            field = self.pick([it for it in _VALUES if it.partition(".")[0] in family])
            matches[field] = self._value(field)
        if self.some(8):
            matches |= {"ether.src": "$MACS@1", self.pick(["ip.saddr", "arp.spa"]): "$IPS@1"}
        if self.some(12):
            matches |= {"ether.src": "$MACS@2", "arp.sha": "$MACS@2"}
        listed = ", ".join(f"{field}: {value}" for field, value in matches.items())
        verdict = self.pick(["accept", "drop"])
        direction = self.pick(["from-guest", "to-guest", "both"])
        return f"  - {{{verdict}: {direction}, match: {{{listed}}}}}"

    def _value(self, field):
        values = _VALUES[field]
        if self.some(3):
            return self.pick(values)
        constants = [it for it in values if not it.startswith("$")] or list(values)
        if len(constants) == 1 or self.some(2):
            return self.pick(constants)
        return f"[{', '.join(self.random.sample(constants, 2))}]"


FAMILIES = (
    ("ether",), ("ether", "vlan"), ("ether", "arp"), ("ether", "ip"), ("ip", "tcp"), ("ip", "udp"),
    ("ip", "icmp"), ("ip", "dhcp"), ("udp", "dhcp"), ("ether", "ip6"), ("ip6", "tcp"),
    ("ip6", "udp"), ("ip6", "icmpv6"), ("ip6", "dhcpv6"), ("icmpv6", "nd"), ("ether", "nd"),
    ("tcp",), ("udp",), ("icmpv6",),
)  # fmt: skip
FAMILIES_OF_STATES = (
    ("ct",), ("ct",), ("ct", "tcp"), ("ct", "udp"), ("ct", "icmp"), ("ct", "icmpv6"), ("ct", "ip"),
    ("ct", "ip6"), ("ct", "ether"), ("tcp",), ("icmp",),
)  # fmt: skip


def text_of(rules, name="random", default="accept"):
    """A profile of these rules, and the variables they use."""
    used = set(re.findall(r"\$([A-Z0-9]+)", " ".join(rules)))
    variables = [
        f"  {it}: {{type: {kind}, description: x}}"
        for it, (kind, _) in VARIABLES.items()
        if it in used
    ]
    return "\n".join(
        [
            f"profile: {name}", "description: at random", f"default: {default}",
            *(["variables:", *variables] if variables else []),
            "rules:" if rules else "rules: []", *rules, "",
        ]
    )  # fmt: skip


def refused(rules):
    """Which of these rules, by number from 0, the language's own checks refuse."""
    text = text_of(rules)
    try:
        load_profile(text.encode(), "random")
    except ProblemsError as error:
        first = text.count("\n") - len(rules)
        found = {problem.line - first - 1 for problem in error.problems}
        assert found <= set(range(len(rules))), f"{error}\n{text}"
        return found
    return set()


_MACS = ('"02:00:00:00:00:01"', '"02:00:00:00:00:00-02:00:00:00:00:ff"', "$MAC", "$MACS")
_FOUR = ("10.0.0.1", "10.0.0.0/30", "0.0.0.0", "224.0.0.0/4", "$IP", "$NET", "$NONE")
_SIX = ('"fd00::1"', '"fe80::/10"', '"::"', '"ff00::/8"', "$IPV6", "$NET6")
_PORTS = ("67", "60-100", "546", "1000", "$PORTS")
_VALUES = {
    "ether.src": _MACS,
    "ether.dst": (
        *_MACS, "broadcast", "multicast", '"33:33:00:00:00:00/ff:ff:00:00:00:00"',
    ),
    "ether.type": ("ipv4", "arp", "ipv6", "vlan", "0x0000-0x05ff", "$TYPES"),
    "vlan.id": ("5", "0-3", "$TAGS"),
    "vlan.type": ("ipv4", "0x8100", "$TYPES"),
    "arp.op": ("request", "reply", "3-9"),
    "arp.sha": _MACS,
    "arp.spa": _FOUR,
    "arp.tha": (*_MACS, '"00:00:00:00:00:00"'),
    "arp.tpa": _FOUR,
    "ip.saddr": _FOUR,
    "ip.daddr": _FOUR,
    "ip.protocol": ("tcp", "udp", "icmp", "40-60", "$PROTO"),
    "ip.fragment": ("none", "first", "later"),
    "ip6.saddr": _SIX,
    "ip6.daddr": _SIX,
    "ip6.nexthdr": ("tcp", "icmpv6", "fragment", "hop-by-hop", "$PROTO"),
    "ip6.protocol": ("tcp", "udp", "icmpv6", "59", "$PROTO"),
    "ip6.fragment": ("none", "first", "later"),
    "ip6.hoplimit": ("255", "0-64"),
    "icmp.type": ("echo-request", "redirect", "9-20"),
    "icmp.code": ("0", "1-255"),
    "icmpv6.type": ("neighbour-solicit", "neighbour-advert", "router-solicit", "130-134"),
    "icmpv6.code": ("0", "1-255"),
    "nd.target": _SIX,
    "nd.lladdr": (*_MACS, "none"),
    "tcp.sport": _PORTS,
    "tcp.dport": _PORTS,
    "udp.sport": _PORTS,
    "udp.dport": _PORTS,
    "dhcp.op": ("request", "reply"),
    "dhcp.chaddr": _MACS,
    "dhcpv6.type": ("1", "2-10"),
    "ct.state": ("new", "established", "related", "invalid", "untracked"),
}  # fmt: skip
