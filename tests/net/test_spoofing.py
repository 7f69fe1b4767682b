"""What a guest under clean-traffic may pretend, and what others may pretend to it: nothing."""

from __future__ import annotations

import pytest
from filter_rig import FilterRig
from labelled_rig import Labelled
from net_rig import OBSERVER
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Raw

pytestmark = pytest.mark.root

ME, OTHER, PEER = "02:00:00:00:00:01", "02:00:00:00:99:01", "02:99:00:00:00:07"
ALL = "ff:ff:ff:ff:ff:ff"
IP4, IP4_OTHER, GATE = "10.0.0.1", "10.0.0.66", "10.0.0.254"
IP6, LL, IP6_OTHER = "fd00::1", "fe80::ff:fe00:1", "fd00::66"
SERVER = "10.0.0.253"
VARIABLES = {
    "MAC": [ME], "IP": [IP4], "IPV6": [IP6], "LINK_LOCAL": [LL], "DHCP_SERVER": [SERVER],
}  # fmt: skip
DATA = Raw(b"x" * 32)
STATION = bytes.fromhex(ME.replace(":", ""))


def ether(src=ME, dst=PEER, **more):
    return Ether(src=src, dst=dst, **more)


def ip(src=IP4, dst=GATE, **more):
    return IP(src=src, dst=dst, **more)


def ip6(src=IP6, dst=IP6_OTHER, **more):
    return IPv6(src=src, dst=dst, **more)


def arp(**more):
    return ARP(
        **{"op": 1, "hwsrc": ME, "psrc": IP4, "hwdst": "00:00:00:00:00:00", "pdst": GATE} | more
    )


def nd(message, *options, src=IP6, dst="ff02::1", **more):
    frame = ether(dst="33:33:00:00:00:01") / ip6(src, dst, hlim=255, **more) / message
    for option in options:
        frame /= option
    return frame


def asks(kind="discover", chaddr=STATION, op=1, src="0.0.0.0", dst="255.255.255.255", **more):
    return (
        IP(src=src, dst=dst) / UDP(**{"sport": 68, "dport": 67} | more)
        / BOOTP(op=op, chaddr=chaddr, xid=7) / DHCP(options=[("message-type", kind), "end"])
    )  # fmt: skip


def offer(src=SERVER, op=2, kind="offer", **more):
    return (
        IP(src=src, dst="255.255.255.255") / UDP(**{"sport": 67, "dport": 68} | more)
        / BOOTP(op=op, yiaddr=IP4, chaddr=STATION, xid=7)
        / DHCP(options=[("message-type", kind), ("lease_time", 600), "end"])
    )  # fmt: skip


def cut(frame, length):
    return bytes(frame)[:length]


MINE, THEIRS = ICMPv6NDOptSrcLLAddr(lladdr=ME), ICMPv6NDOptSrcLLAddr(lladdr=OTHER)
TARGET_MINE, TARGET_THEIRS = ICMPv6NDOptDstLLAddr(lladdr=ME), ICMPv6NDOptDstLLAddr(lladdr=OTHER)
NS, NA = ICMPv6ND_NS(tgt=IP6_OTHER), ICMPv6ND_NA(tgt=IP6, R=0)
SENT = {
    # What a guest must be able to do.
    "udp": (ether() / ip() / UDP() / DATA, True),
    "tcp with options": (ether() / ip() / TCP(options=[("MSS", 1400)]) / DATA, True),
    "ip options": (ether() / ip(options=[IPOption_RR()]) / UDP() / DATA, True),
    "icmp": (ether() / ip() / ICMP() / DATA, True),
    "gre": (ether() / ip() / GRE() / DATA, True),
    "first fragment": (ether() / ip(flags=1) / UDP() / DATA, True),
    "later fragment": (ether() / ip(frag=4, proto=17) / DATA, True),
    "later fragment of icmp": (ether() / ip(frag=4, proto=1) / DATA, True),
    "broadcast": (ether(dst=ALL) / ip(dst="10.0.0.255") / UDP() / DATA, True),
    "multicast": (ether(dst="01:00:5e:00:00:05") / ip(dst="224.0.0.5") / UDP() / DATA, True),
    "arp request": (ether(dst=ALL) / arp(), True),
    "arp reply": (ether() / arp(op=2, hwdst=PEER), True),
    "arp probe": (ether(dst=ALL) / arp(psrc="0.0.0.0", pdst=IP4), True),
    "gratuitous arp": (ether(dst=ALL) / arp(pdst=IP4), True),
    "dhcp discover": (ether(dst=ALL) / asks(), True),
    "dhcp renewal": (ether() / asks("request", src=IP4, dst=SERVER), True),
    "ipv6": (ether() / ip6() / UDP() / DATA, True),
    "ipv6 from link-local": (ether() / ip6(LL) / UDP() / DATA, True),
    "ipv6 hop-by-hop": (ether() / ip6() / IPv6ExtHdrHopByHop() / UDP() / DATA, True),
    "ipv6 first fragment": (ether() / ip6() / IPv6ExtHdrFragment(m=1) / UDP() / DATA, True),
    "ipv6 later fragment": (
        ether() / ip6() / IPv6ExtHdrFragment(offset=4, nh=17) / DATA, True,
    ),
    "echo over ipv6": (ether() / ip6() / ICMPv6EchoRequest() / DATA, True),
    "neighbour solicitation": (nd(NS, MINE), True),
    "neighbour solicitation without option": (nd(NS), True),
    "duplicate address detection": (nd(ICMPv6ND_NS(tgt=IP6), src="::"), True),
    "detection of link-local": (nd(ICMPv6ND_NS(tgt=LL), src="::"), True),
    "neighbour advertisement": (nd(NA, TARGET_MINE), True),
    "advertisement of link-local": (nd(ICMPv6ND_NA(tgt=LL, R=0), TARGET_MINE, src=LL), True),
    "router solicitation": (nd(ICMPv6ND_RS(), MINE, src=LL), True),
    "router solicitation from nowhere": (nd(ICMPv6ND_RS(), src="::"), True),
    "multicast listener report": (
        ether(dst="33:33:00:00:00:16")
        / ip6("::", "ff02::16", hlim=1) / IPv6ExtHdrHopByHop() / ICMPv6MLReport2(), True,
    ),
    # Whose frame it is.
    "forged mac": (ether(OTHER) / ip() / UDP() / DATA, False),
    "forged mac of ipv6": (ether(OTHER) / ip6() / UDP() / DATA, False),
    "forged mac of arp": (ether(OTHER, ALL) / arp(), False),
    "forged mac of odd ethertype": (ether(OTHER, type=0x88B5) / DATA, False),
    # Whose packet it is.
    "forged ipv4": (ether() / ip(IP4_OTHER) / UDP() / DATA, False),
    "forged ipv4 first fragment": (ether() / ip(IP4_OTHER, flags=1) / UDP() / DATA, False),
    "forged ipv4 later fragment": (ether() / ip(IP4_OTHER, frag=4, proto=17) / DATA, False),
    "forged ipv4 with options": (
        ether() / ip(IP4_OTHER, options=[IPOption_RR()]) / UDP() / DATA, False,
    ),
    "forged ipv4 gre": (ether() / ip(IP4_OTHER) / GRE() / DATA, False),
    "forged ipv4 icmp": (ether() / ip(IP4_OTHER) / ICMP(), False),
    "forged ipv4 multicast": (
        ether(dst="01:00:5e:00:00:05") / ip(IP4_OTHER, "224.0.0.5") / UDP() / DATA, False,
    ),
    "forged ipv4 from nowhere": (ether() / ip("0.0.0.0") / UDP() / DATA, False),
    "forged ipv4 from broadcast": (ether() / ip("255.255.255.255") / UDP() / DATA, False),
    "forged ipv4 header cut": (cut(ether() / ip() / UDP() / DATA, 14 + 15), False),
    "forged ipv4 header length too short": (ether() / ip(ihl=4) / UDP() / DATA, False),
    "forged ipv4 of version 6": (ether() / ip(version=6) / UDP() / DATA, False),
    "forged ipv4 longer than it is": (ether() / ip(len=999) / UDP() / DATA, False),
    "forged ipv6": (ether() / ip6(IP6_OTHER) / UDP() / DATA, False),
    "forged ipv6 link-local": (ether() / ip6("fe80::66") / UDP() / DATA, False),
    "forged ipv6 from nowhere": (ether() / ip6("::") / UDP() / DATA, False),
    "forged ipv6 hop-by-hop": (
        ether() / ip6(IP6_OTHER) / IPv6ExtHdrHopByHop() / UDP() / DATA, False,
    ),
    "forged ipv6 routing header": (
        ether() / ip6(IP6_OTHER) / IPv6ExtHdrRouting() / UDP() / DATA, False,
    ),
    "forged ipv6 first fragment": (
        ether() / ip6(IP6_OTHER) / IPv6ExtHdrFragment(m=1) / UDP() / DATA, False,
    ),
    "forged ipv6 later fragment": (
        ether() / ip6(IP6_OTHER) / IPv6ExtHdrFragment(offset=4, nh=17) / DATA, False,
    ),
    "forged ipv6 header cut": (cut(ether() / ip6() / UDP() / DATA, 14 + 30), False),
    "forged ipv6 of version 4": (ether() / ip6(version=4) / UDP() / DATA, False),
    "forged ipv6 longer than it is": (ether() / ip6(plen=999) / UDP() / DATA, False),
    # ARP.
    "forged arp sender mac": (ether(dst=ALL) / arp(hwsrc=OTHER), False),
    "forged arp sender address": (ether(dst=ALL) / arp(psrc=IP4_OTHER), False),
    "forged arp reply for the gateway": (ether() / arp(op=2, psrc=GATE), False),
    "forged arp reply from nowhere": (ether() / arp(op=2, psrc="0.0.0.0"), False),
    "forged arp probe with another mac": (ether(dst=ALL) / arp(psrc="0.0.0.0", hwsrc=OTHER), False),
    "forged gratuitous arp for another": (ether(dst=ALL) / arp(psrc=GATE, pdst=GATE), False),
    "forged arp for odd hardware": (ether(dst=ALL) / arp(hwtype=6), False),
    "forged arp of odd length": (ether(dst=ALL) / arp(hwlen=8), False),
    "forged arp cut": (cut(ether(dst=ALL) / arp(), 14 + 20), False),
    "forged arp of operation 9": (ether(dst=ALL) / arp(op=9), False),
    "forged rarp": (ether(dst=ALL, type=0x8035) / Raw(bytes(arp(op=3))), False),
    # Neighbour discovery.
    "forged solicitation with another mac": (nd(NS, THEIRS), False),
    "forged advertisement with another mac": (nd(NA, TARGET_THEIRS), False),
    "forged advertisement for another": (nd(ICMPv6ND_NA(tgt=IP6_OTHER, R=0), TARGET_MINE), False),
    "forged advertisement without option for another": (nd(ICMPv6ND_NA(tgt=IP6_OTHER, R=0)), False),
    "forged two options": (nd(NA, TARGET_MINE, TARGET_THEIRS), False),
    "forged option of the other kind": (nd(NA, THEIRS), False),
    "forged option without length": (nd(NA, Raw(b"\x02\x00" + bytes(6))), False),
    "forged detection of another's": (nd(ICMPv6ND_NS(tgt=IP6_OTHER), src="::"), False),
    "forged detection with an option": (nd(ICMPv6ND_NS(tgt=IP6), MINE, src="::"), False),
    "forged from another hop": (
        ether() / ip6(hlim=64) / NA / TARGET_MINE, False,
    ),
    "forged advertisement behind hop-by-hop": (
        ether() / ip6(hlim=255) / IPv6ExtHdrHopByHop() / NA / TARGET_THEIRS, False,
    ),
    "forged advertisement behind destination options": (
        ether() / ip6(hlim=255) / IPv6ExtHdrDestOpt() / NA / TARGET_THEIRS, False,
    ),
    "forged advertisement in a fragment": (
        ether() / ip6(hlim=255) / IPv6ExtHdrFragment(m=1) / NA / TARGET_THEIRS, False,
    ),
    "forged advertisement behind two headers": (
        ether() / ip6(hlim=255) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment() / NA / TARGET_THEIRS,
        False,
    ),
    "forged advertisement cut": (cut(nd(ICMPv6ND_NA(tgt=IP6_OTHER), plen=10), 14 + 50), False),
    "forged router solicitation with another mac": (nd(ICMPv6ND_RS(), THEIRS, src=LL), False),
    # Routers and servers.
    "forged router advertisement": (nd(ICMPv6ND_RA(), src=LL), False),
    "forged router advertisement behind hop-by-hop": (
        ether() / ip6(LL, "ff02::1", hlim=255) / IPv6ExtHdrHopByHop() / ICMPv6ND_RA(), False,
    ),
    "forged router advertisement in a fragment": (
        ether() / ip6(LL, "ff02::1", hlim=255) / IPv6ExtHdrFragment(m=1) / ICMPv6ND_RA(), False,
    ),
    "forged redirect": (nd(ICMPv6ND_Redirect(tgt=IP6, dst=IP6_OTHER), src=LL), False),
    "forged ipv4 redirect": (ether() / ip() / ICMP(type=5, code=1) / DATA, False),
    "forged ipv4 router advertisement": (ether() / ip() / ICMP(type=9) / DATA, False),
    "forged icmp cut": (ether() / ip(proto=1, len=24) / Raw(b"\x05\x01\0\0"), False),
    "forged dhcp offer": (ether(dst=ALL) / offer(src=IP4), False),
    "forged dhcp reply from another port": (ether(dst=ALL) / offer(src=IP4, sport=1067), False),
    "forged dhcp for another station": (ether(dst=ALL) / asks(chaddr=b"\x02" + bytes(5)), False),
    "forged dhcp from another address": (ether(dst=ALL) / asks(src=IP4_OTHER), False),
    "forged dhcp cut": (cut(ether(dst=ALL) / asks(), 14 + 20 + 8 + 100), False),
    "forged dhcpv6 advertise": (
        ether() / ip6(LL) / UDP(sport=547, dport=546) / Raw(b"\x02xxx"), False,
    ),
    "forged dhcpv6 reply from another port": (
        ether() / ip6(LL) / UDP(sport=1547, dport=546) / Raw(b"\x07xxx"), False,
    ),
    # What nobody can look into.
    "forged vlan": (ether() / Dot1Q(vlan=5) / ip() / UDP() / DATA, False),
    "forged vlan 0": (ether() / Dot1Q(vlan=0, prio=3) / ip(IP4_OTHER) / UDP() / DATA, False),
    "forged vlan arp": (ether(dst=ALL) / Dot1Q(vlan=0) / arp(psrc=GATE), False),
    "forged vlan ipv6": (ether() / Dot1Q(vlan=5) / ip6() / UDP() / DATA, False),
    "forged double tag": (ether() / Dot1Q(vlan=5) / Dot1Q(vlan=6) / ip() / UDP() / DATA, False),
    "forged service tag": (ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ip() / UDP() / DATA, False),
    "forged service tag alone": (ether() / Dot1AD(vlan=5) / ip() / UDP() / DATA, False),
    "forged llc": (Dot3(src=ME, dst=PEER) / LLC() / DATA, False),
    "forged snap ipv4": (
        Dot3(src=ME, dst=PEER) / LLC() / SNAP(code=0x800) / ip(IP4_OTHER) / DATA, False,
    ),
    "forged odd ethertype": (ether(type=0x88B5) / DATA, False),
    "forged mpls": (ether(type=0x8847) / DATA, False),
    "forged pppoe": (ether(type=0x8864) / DATA, False),
    "forged experimental": (ether(type=0x0600) / DATA, False),
}  # fmt: skip
HEARD = {
    "udp": (ether(OTHER) / ip(GATE, IP4) / UDP() / DATA, True),
    "ipv6": (ether(OTHER) / ip6(IP6_OTHER, IP6) / UDP() / DATA, True),
    "arp": (ether(OTHER, ALL) / arp(hwsrc=OTHER, psrc=GATE, pdst=IP4), True),
    "router advertisement": (
        ether(OTHER, "33:33:00:00:00:01") / ip6("fe80::9", "ff02::1", hlim=255) / ICMPv6ND_RA(),
        True,
    ),
    "dhcp offer of the server": (ether(OTHER, ALL) / offer(), True),
    "dhcp offer of another": (ether(OTHER, ALL) / offer(IP4_OTHER), False),
    "dhcp offer from another port": (ether(OTHER, ALL) / offer(sport=1067), False),
    "dhcp offer with options": (
        ether(OTHER, ALL)
        / IP(src=IP4_OTHER, dst="255.255.255.255", options=[IPOption_RR()])
        / UDP(sport=67, dport=68) / DATA,
        False,
    ),
    "dhcp offer cut": (cut(ether(OTHER, ALL) / offer(IP4_OTHER), 14 + 20 + 6), False),
    "later fragment": (ether(OTHER) / ip(GATE, IP4, frag=4, proto=17) / DATA, True),
}  # fmt: skip
CASES = [("from-guest", *it) for it in SENT.items()] + [("to-guest", *it) for it in HEARD.items()]


@pytest.fixture(scope="module")
def rig():
    made = FilterRig(Labelled())
    made.hold("clean-traffic", **VARIABLES)
    yield made
    made.rig.close()


def passes(rig, direction, frame):
    """Whether it passes; the sender is the guest, or the peer."""
    return rig.passes(direction, [bytes(frame)]) == [True]


@pytest.mark.parametrize(
    ("direction", "name", "case"), CASES, ids=[f"{way}: {name}" for way, name, _ in CASES]
)
def test_a_guest_is_nobody_else_and_hears_nobody_pretend(rig, direction, name, case):
    del name
    frame, wanted = case
    assert passes(rig, direction, frame) is wanted
    assert rig.rig.alarms == []


def test_with_br_netfilter_nothing_more_passes(rig):
    rig.netfilter(on=True)
    try:
        for direction, name, (frame, wanted) in CASES:
            if not wanted:
                assert not passes(rig, direction, frame), name
        assert passes(rig, "from-guest", SENT["icmp"][0])
        assert passes(rig, "from-guest", SENT["arp request"][0])
        # dom0's inet hooks see these too, and go by the sender's class in the mark.
        assert passes(rig, "to-guest", HEARD["udp"][0])
        assert passes(rig, "to-guest", HEARD["ipv6"][0])
    finally:
        rig.netfilter(on=False)


def test_without_the_profile_it_could_be_anybody(rig):
    rig.hold()
    try:
        assert passes(rig, "from-guest", SENT["forged mac"][0])
        assert passes(rig, "from-guest", SENT["forged router advertisement"][0])
        assert passes(rig, "to-guest", HEARD["dhcp offer of another"][0])
    finally:
        rig.hold("clean-traffic", **VARIABLES)
    assert rig.observer.port == OBSERVER
