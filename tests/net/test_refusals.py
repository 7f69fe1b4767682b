"""What becomes of a refused packet in the tables: by whom it is counted, and how many are shown.

The packet's own mark and priority may have been set by somebody else's rules before: `soiled`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections import Counter

import pytest
from labelled_rig import lay
from net_rig import OBSERVER, delivered, ethernet, frame_for, ipv4, ipv6, mac, marker, run, teach

from broker.net.label_ids import DOM0, NOBODY, label_id
from broker.net.samples import Samples
from broker.net.show import drops
from broker.net.tables import SAMPLES_PER_SECOND

pytestmark = pytest.mark.root

RED, BLUE, LAN = label_id("red"), label_id("blue"), label_id("uplink:lan")
SOILING = """
    table bridge soil {{
      chain early {{ type filter hook prerouting priority -301; {soil}; }}
      chain late {{ type filter hook prerouting priority -250; {soil}; }}
      chain out {{ type filter hook output priority -201; meta priority set abcd:1 ; }}
    }}
    table inet soil {{
      chain forward {{ type filter hook forward priority -201; {soil}; }}
      chain input {{ type filter hook input priority -201; {soil}; }}
      chain output {{ type filter hook output priority -201; {soil}; }}
    }}
"""
SOIL = SOILING.format(soil="meta mark set 0x77; meta priority set abcd:1 ")


MANY = 50
"""More than dom0 itself may ask of links without a class meanwhile: those are nobody's too."""


class Counting:
    """A rig, and what its tables have counted since they were last asked."""

    def __init__(self, rig):
        self.rig = rig
        self._seen = {}

    def news(self):
        now = {(d.sender, d.receiver): d.packets for d in drops(self.rig.enforcer._readback)}
        before, self._seen = self._seen, now
        return {ends: n - before.get(ends, 0) for ends, n in now.items() if n > before.get(ends, 0)}

    def all_of(self, wanted):
        """Wait until all of these ends have been counted."""
        missing, end = set(wanted), time.monotonic() + 10
        while missing:
            assert time.monotonic() < end, f"{missing} not counted"
            missing -= set(self.news())

    def until(self, *ends, packets=1):
        """Wait until so many of these ends are counted; what else labels have sent."""
        found, end = Counter(), time.monotonic() + 10
        while found[ends] < packets:
            assert time.monotonic() < end, f"{ends} {packets} times not in {found}"
            found.update(self.news())
        return {it: n for it, n in found.items() if it != ends and it[0] not in {DOM0, NOBODY}}


@pytest.fixture(params=["", SOIL], ids=["clean", "soiled"])
def soil(request):
    return request.param


@pytest.fixture
def bridged(labelled, soil):
    """Red and blue, an uplink, a port without a class, and dom0's address on the bridge."""
    rig = labelled()
    red, blue, bare, wire = rig.net.add("vif1.0", "vif2.0", "vif3.0", "eth9")
    (observer,) = rig.net.add(OBSERVER)
    own = "02:00:00:aa:00:01"
    rig.net.host.ip(
        f"link set br0 address {own}",
        "addr add 10.0.0.100/24 dev br0",
        f"neigh add 10.0.0.{red.number} lladdr {red.mac} dev br0",
        f"neigh add 10.0.0.{bare.number} lladdr {bare.mac} dev br0",
    )
    ports = [
        rig.port(red, 1, label=RED, macs=(red.mac,)),
        rig.port(blue, 2, label=BLUE),
        rig.port(wire, 3, uplink=True, label=LAN),
        rig.port(observer, 9),
    ]
    rig.enforcer.start(rig.target(ports, {(9, 9), (1, 9), (9, 1), (2, 9), (9, 2), (3, 9), (9, 3)}))
    teach([red, blue, wire, observer])
    if soil:
        rig.net.host.nft(soil)
    counting = Counting(rig)
    # Of the lessons the uplink's came last of those that are refused.
    counting.all_of({(LAN, it) for it in (RED, BLUE, NOBODY, DOM0)})
    return counting, red, blue, bare, wire, observer, own


def test_between_ports_it_is_counted_by_both_labels(bridged):
    counting, red, blue, *_ = bridged
    red.send(frame_for("ipv4", red, blue))
    assert counting.until(RED, BLUE) == {}
    blue.send(frame_for("odd", blue, red))
    assert counting.until(BLUE, RED) == {}


def test_for_a_port_without_a_class_the_receiver_is_nobody(bridged):
    counting, red, _, bare, _, observer, _ = bridged
    red.send(frame_for("unknown unicast", red))
    others = counting.until(RED, NOBODY)
    assert set(others) <= {(RED, BLUE), (RED, LAN)}, f"{bare.number}, {observer.number}"


def test_of_a_port_without_a_class_nothing_is_known(bridged):
    counting, red, _, bare, *_ = bridged
    for _ in range(MANY):
        bare.send(frame_for("ipv4", bare, red))
    assert counting.until(NOBODY, NOBODY, packets=MANY) == {}


def test_an_uplink_that_sends_as_a_local_guest_is_counted_as_the_uplink(bridged):
    counting, red, _, _, wire, observer, _ = bridged
    wire.send(ethernet(observer.mac, red.mac, 0x88B5, marker(wire.number, observer.number, 0)))
    assert counting.until(LAN, NOBODY) == {}


def test_for_dom0_and_from_dom0_its_own_end_is_dom0(bridged):
    counting, red, _, bare, _, _, own = bridged
    red.send(ethernet(own, red.mac, 0x0800, ipv4(red.number, 100, b"x")))
    assert counting.until(RED, DOM0) == {}
    with counting.rig.net.host.entered():
        dom0 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with dom0:
        for guest, ends in ((red, (DOM0, RED)), (bare, (DOM0, NOBODY))):
            with contextlib.suppress(OSError):
                dom0.sendto(b"x", (f"10.0.0.{guest.number}", 9))
            assert counting.until(*ends) == {}


def test_what_passes_keeps_no_class_in_its_priority(bridged):
    counting, red, _, _, _, observer, _ = bridged
    counting.rig.net.host.nft(
        "table bridge seen { counter set_ {}; chain post {"
        " type filter hook postrouting priority 300;"
        " ether type 0x88b5 meta priority != none counter name set_; }; }"
    )
    delivered([red], observer, [(red, frame_for("odd", red, observer))])
    listed = counting.rig.net.host.listing("counters", "table", "bridge", "seen")
    assert "packets 0 " in listed


def test_what_dom0_relays_to_another_bridge_is_counted_by_the_senders_class(labelled, soil):
    rig = labelled("br0", "br1")
    (one,) = rig.net.add("one", bridge="br0")
    two, bare = rig.net.add("two", "bare", bridge="br1")
    rig.net.host.sysctl("ipv4/ip_forward", "1")
    own = "02:00:00:aa:00:01"
    rig.net.host.ip(
        f"link set br0 address {own}",
        "addr add 10.0.0.100/24 dev br0",
        "addr add 10.0.1.100/24 dev br1",
        f"neigh add 10.0.1.2 lladdr {two.mac} dev br1",
        f"neigh add 10.0.1.3 lladdr {bare.mac} dev br1",
        f"neigh add 10.0.1.4 lladdr {mac(200)} dev br1",
    )
    ports = [
        rig.port(one, 1, host=True, label=RED),
        rig.port(two, 2, host=True, bridge="br1", label=BLUE),
    ]
    rig.enforcer.start(rig.target(ports, {(1, 1), (2, 2)}))
    teach([one, two])
    if soil:
        rig.net.host.nft(
            "table bridge soil { chain out {"
            " type filter hook output priority -201; meta priority set abcd:1 ; }; }"
        )
    counting = Counting(rig)

    def send(last):
        packet = ipv4(1, 0, b"x", target=bytes((10, 0, 1, last)))
        one.send(ethernet(own, one.mac, 0x0800, packet))

    for last, receiver in ((2, BLUE), (4, BLUE), (4, NOBODY)):
        counting.news()
        send(last)
        counting.until(DOM0 + 1, receiver)
    # What is relayed because it may be keeps no class in its priority.
    rig.enforcer.update(rig.target(ports, {(1, 2), (2, 1)}))
    rig.net.host.nft(
        "table bridge seen { counter set_ {}; counter all_ {}; chain post {"
        " type filter hook postrouting priority 300; udp dport 2000 counter name all_;"
        " udp dport 2000 meta priority 5842:2 counter name set_; }; }"
    )
    send(2)
    end = time.monotonic() + 10
    while "packets 1 " not in rig.net.host.listing("counter", "bridge", "seen", "all_"):
        assert time.monotonic() < end, "it is not relayed"
    assert "packets 0 " in rig.net.host.listing("counter", "bridge", "seen", "set_")


@pytest.mark.parametrize("table", ["bridge", "inet"])
def test_samples_come_at_a_bounded_rate_and_every_refusal_is_counted(bridged, labelled, table):
    counting, red, blue, bare, *_, own = bridged
    rig = counting.rig
    if table == "inet":
        rig.net.host.ip("link set vif3.0 nomaster", "addr add 10.3.0.100/24 dev vif3.0")
    with rig.net.host.entered():
        samples = Samples()
    began, count = time.monotonic(), 0
    if table == "bridge":
        for _ in range(300):
            red.send(frame_for("ipv4", red, blue))
        wanted, sender = (RED, BLUE), red
    else:
        station = json.loads(run(["ip", "-n", rig.net.host.name, "-j", "link", "show", "vif3.0"]))
        to = station[0]["address"]
        for _ in range(300):
            packet = ipv4(bare.number, 0, b"x", target=bytes((10, 3, 0, 100)))
            bare.send(ethernet(to, bare.mac, 0x0800, packet))
        wanted, sender = (NOBODY, NOBODY), bare
    found, end = 0, time.monotonic() + 10
    while found < 300:
        assert time.monotonic() < end, f"{found} counted"
        found += counting.news().get(wanted, 0)
    end = time.monotonic() + 10
    while not count:
        assert time.monotonic() < end, "no sample"
        count += sum(it.sender == sender.index for it in samples.received())
    spent = time.monotonic() - began
    count += sum(it.sender == sender.index for it in samples.received())
    samples.close()
    assert count <= SAMPLES_PER_SECOND * (2 + spent) + 1, f"in {spent:.1f} s; {own}"


@pytest.fixture
def routed(labelled, soil):
    """Red and blue routed, a vif without a class, a plain link, and green on a governed bridge."""
    rig, guests = lay(labelled(), "vif1.0", "vif2.0", "vif3.0", "lan0")
    (green,) = rig.net.add("vif5.0")
    rig.net.host.ip(
        "addr add 10.5.0.100/24 dev br0", f"neigh add 10.5.0.1 lladdr {green.mac} dev br0"
    )
    red, blue, bare, plain = guests
    ports = [
        rig.port(red, 1, label=RED, bridge=None),
        rig.port(blue, 2, label=BLUE, bridge=None),
        rig.port(green, 4, label=label_id("green")),
    ]
    rig.enforcer.start(rig.target(ports, {(1, 1), (2, 2)}))
    if soil:
        rig.net.host.nft(soil)
    counting = Counting(rig)
    counting.news()
    # Of who has no port nothing is known but the mark, whoever set it.
    stranger = 0x77 if soil else NOBODY
    return counting, red, blue, bare, plain, stranger


def sends(guest, n, to, family="ipv4"):
    """The n-th guest sends a packet by way of dom0 (`to` 1 to 5: a guest's net; 0: dom0 itself)."""
    data = marker(n, to, 0)
    if family == "ipv4":
        target = bytes((10, to, 0, 1)) if to else bytes((10, n, 0, 100))
        content = 0x0800, ipv4(1, 0, data, target=target)
    else:
        net, last = (to, "0001") if to else (n, "0100")
        target = bytes.fromhex(f"fd0{net}" + "00" * 12 + last)
        content = 0x86DD, ipv6(1, 0, data, target=target)
    guest.send(ethernet(mac(100 + n), guest.mac, *content))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_routed_packets_are_counted_by_both_labels(routed, family):
    counting, red, _, bare, plain, stranger = routed
    sends(red, 1, 2, family)
    assert counting.until(RED, BLUE) == {}
    sends(red, 1, 3, family)
    assert counting.until(RED, NOBODY) == {}
    sends(red, 1, 0, family)
    assert counting.until(RED, DOM0) == {}
    for sender, n in ((plain, 4), (bare, 3)):
        sends(sender, n, 1, family)
        assert counting.until(stranger, RED) == {}
    for sender, n, to in ((bare, 3, 4), (bare, 3, 0), (plain, 4, 3)):
        for _ in range(MANY):
            sends(sender, n, to, family)
        assert counting.until(NOBODY, NOBODY, packets=MANY) == {}


def test_dom0s_own_packets_for_routed_ports_are_counted_as_dom0s(routed):
    counting, *_ = routed
    with counting.rig.net.host.entered():
        dom0 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with dom0:
        for n, ends in ((1, (DOM0, RED)), (3, (NOBODY, NOBODY))):
            for _ in range(MANY):
                with contextlib.suppress(OSError):
                    dom0.sendto(b"x", (f"10.{n}.0.1", 9))
            assert counting.until(*ends, packets=MANY) == {}


def test_a_network_without_a_label_for_a_governed_bridge_is_counted(routed):
    counting, _, _, _, plain, _ = routed
    for _ in range(MANY):
        sends(plain, 4, 5)
    assert counting.until(NOBODY, NOBODY, packets=MANY) == {}


def solicitation(n, hops, kind=135):
    """A neighbour solicitation (or another ICMPv6 message) of the n-th guest's for dom0."""
    source, target = (bytes.fromhex(f"fd0{n}" + "00" * 12 + last) for last in ("0001", "0100"))
    body = struct.pack(">BBHI", kind, 0, 0, 0) + target + b"\x01\x01" + bytes(6)
    head = struct.pack(">IHBB", 0x60000000, len(body), 58, hops) + source + target
    return head + body


@pytest.mark.parametrize(("hops", "kind"), [(64, 135), (254, 136), (255, 128)])
def test_a_routed_port_reaches_dom0_with_nothing_but_true_neighbour_discovery(routed, hops, kind):
    counting, red, *_ = routed
    for _ in range(MANY):
        red.send(ethernet(mac(101), red.mac, 0x86DD, solicitation(1, hops, kind)))
    assert counting.until(RED, DOM0, packets=MANY) == {}


@pytest.mark.parametrize(("hops", "kind"), [(64, 135), (254, 136), (255, 128)])
def test_dom0_reaches_a_routed_port_with_nothing_but_true_neighbour_discovery(routed, hops, kind):
    counting, *_ = routed
    with counting.rig.net.host.entered():
        messages = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    messages.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    with messages:
        for _ in range(MANY):
            with contextlib.suppress(PermissionError):
                messages.sendto(struct.pack(">BBHI", kind, 0, 0, 0) + bytes(16), ("fd01::1", 0))
    assert counting.until(DOM0, RED, packets=MANY) == {}


def test_what_dom0_routes_keeps_no_class_in_its_priority(routed):
    counting, red, blue, *_ = routed
    rig = counting.rig
    ports = list(rig.enforcer.target.ports.values())
    rig.enforcer.update(rig.target(ports, {(1, 2), (2, 1)}))
    rig.net.host.nft(
        "table inet seen { counter set_ {}; counter all_ {}; chain post {"
        " type filter hook postrouting priority 300; udp dport 2000 counter name all_;"
        " udp dport 2000 meta priority 5842:2 counter name set_; }; }"
    )
    sends(red, 1, 2)
    end = time.monotonic() + 10
    while "packets 1 " not in rig.net.host.listing("counter", "inet", "seen", "all_"):
        assert time.monotonic() < end, blue
    assert "packets 0 " in rig.net.host.listing("counter", "inet", "seen", "set_")
