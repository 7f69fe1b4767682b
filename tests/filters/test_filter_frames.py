"""What a frame's fields are: read, absent, or claimed and unreadable; as docs/filters.md has it."""

from __future__ import annotations

import pytest
from filter_frames_by_hand import (
    DISCOVER,
    IP,
    IPV6,
    LINK_LOCAL,
    MAC,
    OTHER,
    advertise,
    arp,
    bootp,
    ether,
    fragment,
    icmp,
    ipv4,
    ipv6,
    lladdr,
    mac,
    nd,
    options,
    solicit,
    tagged,
    tcp,
    udp,
)
from hypothesis import given
from hypothesis import strategies as st

from broker.filters.fields import FIELDS, NO_LLADDR
from broker.filters.frame import ABSENT, UNREADABLE, Frame

V6 = {"kind": 0x86DD}
UPPER = ("tcp.dport", "udp.dport", "icmp.type", "icmpv6.type")
MALFORMED_V4 = (
    ipv4()[:19],
    b"\x65" + ipv4()[1:],
    b"\x44" + ipv4()[1:],
    b"\x46" + ipv4()[1:],
    ipv4()[:2] + b"\x00\x13" + ipv4()[4:],
    ipv4(udp())[:-1],
)
MALFORMED_V6 = (
    ipv6()[:39],
    b"\x40" + ipv6()[1:],
    ipv6(udp())[:-1],
    ipv6(protocol=0),
    ipv6(b"\x11", protocol=60),
    ipv6(options(b"", 60), protocol=60),
    ipv6(fragment(b"", 60), protocol=44),
    ipv6(options(fragment(udp(), 17), 44), protocol=0),
    ipv6(fragment(b"", 44), protocol=44),
)


def field(name, frame, state="new"):
    return Frame(frame, state).field(name)


def number(text):
    return int.from_bytes(mac(text))


@pytest.mark.parametrize(
    ("name", "frame", "wanted"),
    [
        ("ether.src", ether(), number(MAC)),
        ("ether.type", ether(kind=0x0020), 0x20),
        ("vlan.id", tagged(ether(), 0xF005), 5),
        ("vlan.type", tagged(ether()), 0x0800),
        ("vlan.id", tagged(tagged(ether()), 7, 0x88A8), 7),
        ("vlan.type", tagged(tagged(ether()), 7, 0x88A8), 0x8100),
        ("arp.op", ether(arp(2), 0x0806), 2),
        ("arp.sha", ether(arp(sha=OTHER), 0x0806), number(OTHER)),
        ("ip.protocol", ether(ipv4(tcp(), 6)), 6),
        ("ip.fragment", ether(ipv4()), 0),
        ("ip.fragment", ether(ipv4(more=True)), 1),
        ("ip.fragment", ether(ipv4(offset=8)), 2),
        ("ip.fragment", ether(ipv4(offset=8, more=True)), 2),
        ("tcp.dport", ether(ipv4(tcp(dport=22), 6, options=bytes(8))), 22),
        ("udp.sport", ether(ipv4(udp(68))), 68),
        ("udp.sport", ether(ipv4(udp(68), more=True)), 68),
        ("icmp.type", ether(ipv4(icmp(5), 1)), 5),
        ("ip6.nexthdr", ether(ipv6(options(udp(), 17), 0), **V6), 0),
        ("ip6.protocol", ether(ipv6(options(udp(), 17), 0), **V6), 17),
        ("ip6.protocol", ether(ipv6(options(options(udp(), 17, 16), 60), 0), **V6), 17),
        ("udp.dport", ether(ipv6(options(udp(dport=9), 17), 60), **V6), 9),
        ("ip6.protocol", ether(ipv6(b"\x06\x00" + bytes(6) + tcp(), 51), **V6), 51),
        ("ip6.fragment", ether(ipv6(), **V6), 0),
        ("ip6.fragment", ether(ipv6(fragment(udp(), 17), 44), **V6), 1),
        ("ip6.fragment", ether(ipv6(fragment(udp(), 17, 8), 44), **V6), 2),
        ("ip6.protocol", ether(ipv6(fragment(b"", 58, 8), 44), **V6), 58),
        ("ip6.hoplimit", ether(ipv6(hops=3), **V6), 3),
        ("icmpv6.type", ether(ipv6(icmp(134), 58), **V6), 134),
        ("icmpv6.code", ether(ipv6(icmp(1, 4), 58), **V6), 4),
        ("nd.lladdr", ether(ipv6(solicit(IPV6), 58), **V6), NO_LLADDR),
        ("nd.lladdr", ether(ipv6(solicit(IPV6, lladdr(1, MAC)), 58), **V6), number(MAC)),
        ("nd.lladdr", ether(ipv6(solicit(IPV6, lladdr(14, MAC)), 58), **V6), NO_LLADDR),
        ("nd.lladdr", ether(ipv6(advertise(IPV6, lladdr(2, OTHER)), 58), **V6), number(OTHER)),
        ("nd.lladdr", ether(ipv6(nd(133, bytes(4), lladdr(1, MAC)), 58), **V6), number(MAC)),
        ("dhcp.op", ether(DISCOVER), 1),
        ("dhcp.chaddr", ether(DISCOVER), number(MAC)),
        ("dhcpv6.type", ether(ipv6(udp(547, 546, b"\x07"), 17), **V6), 7),
        ("ct.state", ether(), 2),
    ],
)
def test_a_field_that_is_there_is_read(name, frame, wanted):
    assert field(name, frame) == wanted


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("vlan.id", ether()),
        ("arp.op", ether(arp())),
        ("arp.op", ether(arp(), 0x8035)),
        ("ip.saddr", ether(arp(), 0x0806)),
        ("ip.saddr", ether(ipv6(), **V6)),
        ("ip6.saddr", ether(ipv4())),
        ("ip.saddr", ether(ipv4(), 0x0040)),
        ("tcp.dport", ether(ipv4(udp()))),
        ("udp.dport", ether(arp(), 0x0806)),
        ("icmp.type", ether(ipv6(icmp(), 1), **V6)),
        ("icmpv6.type", ether(ipv4(icmp(), 58))),
        ("nd.target", ether(ipv6(icmp(128), 58), **V6)),
        ("nd.lladdr", ether(ipv6(nd(137, bytes(36)), 58), **V6)),
        ("dhcp.op", ether(ipv4(udp(53, 54)))),
        ("dhcp.op", ether(ipv6(udp(68, 67)), **V6)),
        ("dhcpv6.type", ether(ipv4(udp(546, 547)))),
    ],
)
def test_a_header_that_is_not_claimed_is_absent(name, frame):
    assert field(name, frame) is ABSENT


@pytest.mark.parametrize("packet", MALFORMED_V4)
@pytest.mark.parametrize("name", ["ip.saddr", "ip.protocol", "ip.fragment", *UPPER[:3], "dhcp.op"])
def test_a_malformed_ipv4_header_hides_all_of_it(packet, name):
    assert field(name, ether(packet)) is UNREADABLE


@pytest.mark.parametrize("packet", MALFORMED_V6)
@pytest.mark.parametrize("name", ["ip6.saddr", "ip6.nexthdr", "ip6.protocol", "nd.target"])
def test_a_malformed_ipv6_header_hides_all_of_it(packet, name):
    assert field(name, ether(packet, **V6)) is UNREADABLE


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("vlan.id", tagged(ether())[:17]),
        ("arp.op", ether(arp()[:27], 0x0806)),
        ("arp.op", ether(arp(head="0006080006040001"), 0x0806)),
        ("arp.op", ether(arp(head="0001080006060001"), 0x0806)),
        ("tcp.dport", ether(ipv4(tcp()[:19], 6))),
        ("tcp.dport", ether(ipv4(tcp(), 6, offset=8))),
        ("udp.dport", ether(ipv4(udp()[:7]))),
        ("udp.dport", ether(ipv6(fragment(udp(), 17, 8), 44), **V6)),
        ("udp.dport", ether(ipv6(fragment(udp()[:4], 17), 44), **V6)),
        ("icmp.type", ether(ipv4(icmp()[:7], 1))),
        ("icmpv6.type", ether(ipv6(icmp()[:7], 58), **V6)),
        ("icmpv6.type", ether(ipv6(options(b"", 58), 0), **V6)),
        ("nd.target", ether(ipv6(solicit(IPV6)[:23], 58), **V6)),
        ("nd.lladdr", ether(ipv6(solicit(IPV6)[:23], 58), **V6)),
        ("nd.lladdr", ether(ipv6(solicit(IPV6, lladdr(2, MAC)), 58), **V6)),
        ("nd.lladdr", ether(ipv6(advertise(IPV6, lladdr(1, MAC)), 58), **V6)),
        ("nd.lladdr", ether(ipv6(solicit(IPV6, b"\x01\x02" + bytes(6)), 58), **V6)),
        ("nd.lladdr", ether(ipv6(solicit(IPV6, lladdr(14, MAC), lladdr(1, MAC)), 58), **V6)),
        ("nd.lladdr", ether(ipv6(options(solicit(IPV6), 58), 0), **V6)),
        ("nd.lladdr", ether(ipv6(fragment(solicit(IPV6), 58), 44), **V6)),
        ("dhcp.op", ether(ipv4(udp(68, 67, bootp()[:235])))),
        ("dhcp.op", ether(ipv4(udp(68, 67, bootp(head="0606"))))),
        ("dhcpv6.type", ether(ipv6(udp(546, 547)), **V6)),
    ],
)
def test_a_header_that_is_claimed_and_not_there_is_unreadable(name, frame):
    assert field(name, frame) is UNREADABLE


@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"ct.state"}))
def test_behind_a_tag_nothing_is_read(name):
    found = field(name, tagged(ether(ipv4(udp()))))
    if name.startswith(("ether.", "vlan.")):
        assert isinstance(found, int)
    else:
        assert found is UNREADABLE


def test_what_is_shorter_than_a_header_is_no_frame():
    assert not Frame(ether()[:13]).whole
    assert Frame(ether()).whole


@given(
    st.binary(max_size=80),
    st.sampled_from([0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x8035, 0x30]),
    st.sampled_from(sorted(FIELDS)),
)
def test_whatever_the_bytes_a_field_is_a_number_that_fits_or_missing(payload, kind, name):
    found = field(name, ether(payload, kind))
    assert found in (ABSENT, UNREADABLE) or 0 <= found < 1 << FIELDS[name].bits


@given(st.data())
def test_a_frame_cut_short_reads_as_it_was_or_not_at_all(data):
    frame = data.draw(
        st.sampled_from(
            [
                ether(ipv4(udp(68, 67, bootp()))),
                ether(ipv6(options(tcp(), 6), 0), **V6),
                ether(ipv6(advertise(LINK_LOCAL, lladdr(2, MAC)), 58), **V6),
                ether(arp(spa=IP), 0x0806),
            ]
        )
    )
    cut = frame[: data.draw(st.integers(14, len(frame) - 1))]
    for name in FIELDS:
        found, whole = field(name, cut), field(name, frame)
        assert found is UNREADABLE or found == whole
