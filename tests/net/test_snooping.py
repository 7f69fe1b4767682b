"""Addresses learned from DHCP: from whom, for whom, and from the helper's side of the frames."""

from __future__ import annotations

import time

import pytest
from filter_rig import FilterRig
from net_rig import frame_for
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from broker.net.filters.snoop import LONGEST, Lease, Snoop, read
from broker.net.learning import Learning

ME, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
STATION = bytes.fromhex(ME.replace(":", ""))
MINE = int.from_bytes(bytes((10, 0, 0, 5)))


def message(kind="request", op=1, chaddr=STATION, xid=7, src="0.0.0.0", **more):
    ports = (68, 67) if op == 1 else (67, 68)
    options = [("message-type", kind)]
    if "lease_time" in more:
        options.append(("lease_time", more.pop("lease_time")))
    return bytes(
        IP(src=src, dst="255.255.255.255") / UDP(sport=ports[0], dport=ports[1])
        / BOOTP(op=op, chaddr=chaddr, xid=xid, **more) / DHCP(options=[*options, "end"])
    )  # fmt: skip


def ack(**more):
    given = {"op": 2, "yiaddr": "10.0.0.5", "src": "10.0.0.9", "lease_time": 600}
    return message("ack", **{**given, **more})


@pytest.fixture
def snoop():
    made = Snoop()
    made.asked(4, message(), 100.0)
    return made


def answered(snoop, packet, index=4, now=101.0, server=True):
    return snoop.answered(index, packet, now, lambda source: server and source == 0x0A000009)


def test_the_answer_to_a_request_is_a_lease(snoop):
    assert answered(snoop, ack()) == Lease(4, MINE, 600.0)
    assert answered(snoop, ack(lease_time=0xFFFFFFFF)) == Lease(4, MINE, LONGEST)


@pytest.mark.parametrize(
    "packet",
    [
        ack(xid=8),
        ack(chaddr=b"\2" + bytes(5)),
        ack(src="10.0.0.8"),
        ack(yiaddr="0.0.0.0"),
        ack(lease_time=0),
        message("offer", op=2, yiaddr="10.0.0.5", src="10.0.0.9", lease_time=600),
        message("nak", op=2, yiaddr="10.0.0.5", src="10.0.0.9", lease_time=600),
        message("ack", op=1, yiaddr="10.0.0.5", src="10.0.0.9", lease_time=600),
        ack()[:270],
        b"",
    ],
    ids=[
        *("transaction", "station", "server", "no address", "no time", "offer", "nak", "operation"),
        *("cut", "nothing"),
    ],
)
def test_what_is_not_quite_an_answer_is_none(snoop, packet):
    assert answered(snoop, packet) is None


def test_an_answer_is_for_who_asked_and_in_time(snoop):
    assert answered(snoop, ack(), index=5) is None
    assert answered(snoop, ack(), now=200.0) is None
    assert answered(snoop, ack(), server=False) is None
    snoop.forget(4)
    assert answered(snoop, ack()) is None


def test_requests_that_wait_are_few(snoop):
    for xid in range(100, 120):
        snoop.asked(4, message(xid=xid), 100.0)
    assert answered(snoop, ack()) is None
    assert answered(snoop, ack(xid=119)) is not None


def test_what_is_given_back_is_no_lease_any_more(snoop):
    packet = message("release", ciaddr="10.0.0.5", src="10.0.0.5")
    assert snoop.asked(4, packet, 100.0) == Lease(4, MINE, 0.0)


@pytest.mark.parametrize("length", [0, 10, 20, 28, 100, 263, 267, 268, 270])
def test_a_message_that_is_cut_is_read_as_far_as_it_makes_sense(length):
    read(message()[:length])
    found = read(message())
    assert found is not None
    assert (found.kind, found.transaction, found.station) == (3, 7, STATION)


def test_fragments_and_other_hardware_are_not_read():
    packet = bytearray(message())
    packet[6] = 0x20
    assert read(bytes(packet)) is None
    packet = bytearray(message())
    packet[29] = 6
    assert read(bytes(packet)) is None


@pytest.fixture
def learning(labelled):
    bed = FilterRig(labelled())
    bed.hold("clean-traffic", MAC=[ME])
    with bed.rig.net.host.entered():
        made = Learning(bed.rig.enforcer, bed.rig.alarms.append)
    yield bed, made
    made.close()


def ether(packet, source):
    return bytes(Ether(src=source, dst="ff:ff:ff:ff:ff:ff", type=0x0800) / Raw(packet))


def exchange(bed, made, **more):
    """The guest asks, the peer answers; what the guest has learned once that was heard."""
    assert bed.passes("from-guest", [ether(message(), ME)]) == [True]
    assert bed.passes("to-guest", [ether(ack(**more), OTHER)]) == [True]
    end = time.monotonic() + 1
    while not bed.rig.enforcer.learned().get(bed.guest.index) and time.monotonic() < end:
        made.hear()
        time.sleep(0.01)
    return list(bed.rig.enforcer.learned().get(bed.guest.index, ()))


@pytest.mark.root
def test_a_guest_speaks_from_the_address_that_an_uplinks_server_gave_it(learning):
    bed, made = learning
    frame = frame_for("ipv4", bed.guest, bed.observer).replace(
        bytes((10, 0, 0, bed.guest.number)), bytes((10, 0, 0, 5)), 1
    )
    assert bed.passes("from-guest", [frame]) == [False]
    bed.rig.enforcer.put(bed.rig.port(bed.peer, 1, uplink=True))
    assert exchange(bed, made) == [MINE]
    assert bed.passes("from-guest", [frame]) == [True]
    release = message("release", ciaddr="10.0.0.5", src="10.0.0.5")
    bed.passes("from-guest", [ether(release, ME)])
    end = time.monotonic() + 20
    while bed.rig.enforcer.learned().get(bed.guest.index):
        assert time.monotonic() < end
        made.hear()
    assert bed.passes("from-guest", [frame]) == [False]
    assert bed.rig.alarms == []


@pytest.mark.root
def test_another_guest_is_a_server_only_where_its_address_is_its_own(learning):
    bed, made = learning
    assert exchange(bed, made) == []
    own = {"MAC": [OTHER], "IP": ["10.0.0.9"]}
    bed.rig.enforcer.put(bed.port(bed.peer, ["no-mac-spoofing", "no-arp-spoofing"], **own))
    assert exchange(bed, made) == [MINE]
