"""Dom0's own traffic with guests, dom0 as a router between them, and uplinks."""

from __future__ import annotations

import socket

import pytest
from net_rig import (
    OBSERVER,
    all_frames,
    arp,
    delivered,
    ethernet,
    frame_for,
    ipv4,
    mac,
    marker,
    teach,
)

from broker.net.model import Port

pytestmark = pytest.mark.root
ROUTE_MAC = "02:00:00:aa:00:01"


@pytest.fixture
def two(labelled):
    """One guest that may talk with dom0 and one that may not, on a bridge with an address."""
    rig = labelled()
    friend, stranger = rig.net.add("friend", "stranger")
    rig.net.host.ip(f"link set br0 address {ROUTE_MAC}", "addr add 10.0.0.100/24 dev br0")
    ports = [rig.port(friend, 1, host=True), rig.port(stranger, 2)]
    rig.enforcer.start(rig.target(ports, {(1, 1), (2, 2)}))
    return rig, friend, stranger


def asks(guest, timeout):
    """Whether dom0 answers the guest's ARP request."""
    guest.socket.settimeout(timeout)
    request = arp(guest.number, 100, marker(guest.number, 0, 0))
    guest.send(ethernet("ff:ff:ff:ff:ff:ff", guest.mac, 0x0806, request))
    try:
        while True:
            frame = guest.socket.recv(2048)
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
                return True
    except TimeoutError:
        return False
    finally:
        guest.socket.setblocking(False)


def test_dom0_answers_only_ports_whose_label_may_talk_with_it(two):
    _, friend, stranger = two
    assert asks(friend, 5)
    assert not asks(stranger, 0.3)


def test_dom0_reaches_only_ports_whose_label_may_talk_with_it(two):
    rig, friend, stranger = two
    with rig.net.host.entered():
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        packets.bind(("br0", 0))
    with packets:
        data = marker(99, 0, 0)
        packets.send(ethernet("ff:ff:ff:ff:ff:ff", ROUTE_MAC, 0x88B5, data))
    assert [data in frame for frame in wait_for(friend, data)]
    assert not [frame for frame in stranger.received() if data in frame]


def wait_for(guest, data):
    guest.socket.settimeout(5)
    try:
        while data not in (frame := guest.socket.recv(2048)):
            pass
        return [frame]
    finally:
        guest.socket.setblocking(False)


@pytest.fixture
def routed_between(labelled):
    """Two guests on two bridges, dom0 routing between them and allowed to talk with both."""
    rig = labelled("br0", "br1")
    (one,) = rig.net.add("one", bridge="br0")
    (two,) = rig.net.add("two", bridge="br1")
    rig.net.host.sysctl("ipv4/ip_forward", "1")
    rig.net.host.ip(
        f"link set br0 address {ROUTE_MAC}",
        "addr add 10.0.0.100/24 dev br0",
        "addr add 10.0.1.100/24 dev br1",
        f"neigh add 10.0.1.2 lladdr {two.mac} dev br1",
    )
    ports = [
        rig.port(one, 1, host=True),
        rig.port(two, 2, host=True, bridge="br1"),
    ]
    return rig, one, two, ports


def through_dom0(one, two, timeout):
    """Whether a packet of `one` arrives at `two` by way of dom0's routing."""
    data = marker(one.number, two.number, 1)
    packet = ipv4(1, 0, data, target=bytes((10, 0, 1, 2)))
    two.socket.settimeout(timeout)
    one.send(ethernet(ROUTE_MAC, one.mac, 0x0800, packet))
    try:
        while data not in two.socket.recv(2048):
            pass
    except TimeoutError:
        return False
    finally:
        two.socket.setblocking(False)
    return True


def test_dom0_routes_between_labels_that_may_exchange_frames(routed_between):
    rig, one, two, ports = routed_between
    rig.enforcer.start(rig.target(ports, {(1, 2), (2, 1)}))
    assert through_dom0(one, two, 5)


def test_dom0_does_not_route_between_labels_that_may_not(routed_between):
    rig, one, two, ports = routed_between
    rig.enforcer.start(rig.target(ports, {(1, 1), (2, 2)}))
    assert not through_dom0(one, two, 0.3)


def test_an_unlabelled_network_is_not_routed_to_a_guest_as_if_it_were_dom0(routed_between):
    rig, _, two, ports = routed_between
    rig.net.host.ip("link add name plain type veth peer name far", "link set far up")
    rig.net.host.ip("link set plain up address 02:00:00:bb:00:01", "addr add 10.9.9.9/24 dev plain")
    for name in ("all", "plain"):
        rig.net.host.sysctl(f"ipv4/conf/{name}/rp_filter", "0")
    with rig.net.host.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("far", 0))
    data = marker(77, 2, 1)
    packet = ipv4(1, 0, data, target=bytes((10, 0, 1, 2)))
    frame = ethernet("02:00:00:bb:00:01", "02:00:00:bb:00:02", 0x0800, packet)
    with wire:
        wire.send(frame)  # without the tables it does arrive
        assert wait_for(two, data)
        rig.enforcer.start(rig.target(ports, {(1, 2), (2, 1)}))
        wire.send(frame)
    two.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        while data not in two.socket.recv(2048):
            pass


def test_a_guest_is_routed_out_only_by_a_labelled_uplink(routed_between):
    rig, one, _, ports = routed_between
    rig.net.host.ip("link add name plain type veth peer name far", "link set far up")
    rig.net.host.ip(
        "link set plain up",
        "addr add 10.9.9.9/24 dev plain",
        "neigh add 10.9.9.1 lladdr 02:00:00:bb:00:02 dev plain",
    )
    with rig.net.host.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind(("far", 0))
    data = marker(one.number, 88, 1)
    packet = ipv4(1, 0, data, target=bytes((10, 9, 9, 1)))

    def goes_out(timeout):
        wire.settimeout(timeout)
        one.send(ethernet(ROUTE_MAC, one.mac, 0x0800, packet))
        try:
            while data not in wire.recv(2048):
                pass
        except TimeoutError:
            return False
        return True

    with wire:
        rig.enforcer.start(rig.target(ports, {(1, 3), (3, 1)}))
        assert not goes_out(0.3)
        uplink = Port("plain", rig.net.index("plain"), 3, uplink=True)
        rig.enforcer.put(uplink)
        assert goes_out(5)
        rig.enforcer.update(rig.target([*ports, uplink], {(1, 1)}))
        assert not goes_out(0.3)


@pytest.fixture
def with_uplink(labelled):
    rig = labelled()
    guest, other = rig.net.add("guest", "other")
    wire, observer = rig.net.add("eth9", OBSERVER)
    ports = [
        rig.port(guest, 1, macs=(guest.mac,)),
        rig.port(other, 2, macs=(other.mac,)),
        rig.port(wire, 3, uplink=True),
        rig.port(observer, 4),
    ]
    pairs = {(1, 3), (3, 1), *((n, 4) for n in (1, 2, 3)), *((4, n) for n in (1, 2, 3))}
    return rig, guest, other, wire, observer, ports, pairs


def test_an_uplink_carries_only_labels_that_may_use_it(with_uplink):
    rig, guest, other, wire, observer, ports, pairs = with_uplink
    rig.enforcer.start(rig.target(ports, pairs))
    guests = [guest, other, wire]
    teach([*guests, observer])
    seen = delivered([*guests, observer], observer, all_frames(guests))
    ends = {(sender, receiver) for _, sender, receiver in seen if receiver != observer.number}
    assert ends == {(guest.number, wire.number), (wire.number, guest.number)}


def test_an_uplink_without_a_label_is_closed(with_uplink):
    rig, guest, _, wire, observer, ports, pairs = with_uplink
    rig.enforcer.start(rig.target([p for p in ports if not p.uplink], pairs))
    seen = delivered([guest, wire], observer, [(guest, frame_for("odd broadcast", guest))])
    assert not [one for one in seen if one[2] == wire.number]
    with pytest.raises(TimeoutError):
        delivered([guest, wire], observer, all_frames([wire, guest]), timeout=0.3)


@pytest.mark.parametrize("way", ["start", "guest last", "uplink last"])
def test_an_uplink_may_not_send_as_a_local_guest(with_uplink, way):
    rig, guest, other, wire, observer, ports, pairs = with_uplink
    if way == "start":
        rig.enforcer.start(rig.target(ports, pairs))
    else:
        rig.enforcer.start(rig.target([], pairs))
        for port in sorted(ports, key=lambda p: p.uplink == (way == "uplink last")):
            rig.enforcer.put(port)
    teach([guest, other, observer])
    forged = ethernet(observer.mac, other.mac, 0x88B5, marker(wire.number, observer.number, 5))
    honest = ethernet(observer.mac, mac(200), 0x88B5, marker(wire.number, observer.number, 0))
    seen = delivered([observer], observer, [(wire, forged), (wire, honest)])
    assert seen == {("arp", wire.number, observer.number)}
    # Nor has the bridge learnt that the guest is out there.
    data = marker(observer.number, other.number, 6)
    observer.send(ethernet(other.mac, observer.mac, 0x88B5, data))
    assert wait_for(other, data)
    assert rig.alarms == []


def test_a_port_without_a_class_teaches_the_bridge_nothing(with_uplink):
    rig, guest, other, _, observer, ports, pairs = with_uplink
    rig.enforcer.start(rig.target([p for p in ports if p.index != other.index], pairs))
    teach([guest, observer])
    other.send(ethernet("ff:ff:ff:ff:ff:ff", guest.mac, 0x88B5, marker(9, 9, 9)))
    data = marker(observer.number, guest.number, 6)
    observer.send(ethernet(guest.mac, observer.mac, 0x88B5, data))
    assert wait_for(guest, data)
