"""Connections of real stacks through a filtered port: TCP, UDP and errors, with guests and dom0."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import closing

import pytest
from connection_bed import ANSWERS, HEAD, again
from conversation import echo_header
from filter_rig import FilterRig
from net_rig import Namespace, mac

pytestmark = pytest.mark.root

RESOLVED = (
    "  - {accept: to-guest, match: {arp.op: [request, reply]}}\n"
    "  - {accept: to-guest, match: {icmpv6.type: [neighbour-solicit, neighbour-advert]}}\n"
)
OUTWARD = {"p": (HEAD.format(name="p", out="accept") + RESOLVED + ANSWERS).encode()}
PATIENCE = 30.0
FOUR = {"guest": "10.0.0.1", "other": "10.0.0.2", "dom0": "10.0.0.100"}
SIX = {"guest": "fd00::1", "other": "fd00::2", "dom0": "fd00::100"}


class Bed(FilterRig):
    """The guest under `p`, another without filters, and dom0: each a station with addresses."""

    def __init__(self, rig):
        super().__init__(rig)
        rig.net.host.ip("link set br0 address 02:00:00:00:01:00")
        self.stations = {"dom0": rig.net.host}
        self.settle(rig.net.host, "dom0", "br0")
        indexes = {}
        for n, name in ((51, "guest"), (52, "other")):
            place = self.stations[name] = Namespace()
            link = f"vif{n}.0"
            rig.net.host.ip(
                f"link add {link} type veth peer name eth0 address {mac(n)} netns {place.name}",
                f"link set {link} addrgenmode none master br0 up",
            )
            self.settle(place, name, "eth0")
            indexes[name] = link
        rig.net.forwarding(*indexes.values())
        self.links = indexes
        self.hold_live()

    def settle(self, place, name, link):
        place.ip(
            "link set lo up",
            f"link set {link} up",
            f"addr add {FOUR[name]}/24 dev {link}",
            f"addr add {SIX[name]}/64 dev {link} nodad",
        )

    def hold_live(self, texts=None):
        target = super().target(texts=texts or OUTWARD)
        made = dict(target.ports)
        for name, link in self.links.items():
            filters = {"filter": self.asked("p")} if name == "guest" else {}
            index = self.rig.net.index(link)
            made[index] = type(made[self.guest.index])(
                link, index, 1, host=True, bridge="br0", **filters
            )
        held = type(target)(target.bridges, made, target.pairs, target.profiles)
        if self.rig.enforcer.target.ports:
            self.rig.enforcer.update(held)
        else:
            self.rig.enforcer.start(held)

    def asked(self, *profiles):
        return self.port(self.guest, profiles).filter

    def close(self):
        for name in ("guest", "other"):
            self.stations[name].close()


@pytest.fixture
def bed(labelled):
    made = Bed(labelled())
    yield made
    made.close()


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listener(bed, name, address):
    with bed.stations[name].entered():
        made = socket.create_server((address, 7000), family=family(address))
    made.settimeout(PATIENCE)
    return made


def datagrams(bed, name, address):
    with bed.stations[name].entered():
        made = socket.socket(family(address), socket.SOCK_DGRAM)
    made.bind((address, 7000))
    made.settimeout(PATIENCE)
    return made


def calling(bed, name, address, wait=PATIENCE):
    with bed.stations[name].entered():
        made = socket.socket(family(address), socket.SOCK_STREAM)
    made.settimeout(wait)
    made.connect((address, 7000))
    return made


ENDS = pytest.mark.parametrize("other", ["other", "dom0"])
FAMILIES = pytest.mark.parametrize("addresses", [FOUR, SIX], ids=["ipv4", "ipv6"])


def echoed(one, other, size):
    """Whether so many bytes come whole from one end to the other."""
    data = bytes(range(256)) * (size // 256)
    sender = threading.Thread(target=one.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        got += other.recv(1 << 16)
    sender.join()
    return bytes(got) == data


@FAMILIES
@ENDS
def test_tcp_goes_out_with_all_it_carries_and_not_in(bed, addresses, other):
    with (
        closing(listener(bed, other, addresses[other])) as far,
        closing(calling(bed, "guest", addresses[other])) as near,
    ):
        there, _ = far.accept()
        with closing(there):
            assert echoed(near, there, 1 << 20)
            assert echoed(there, near, 1 << 20)
            # The helper ends, another takes over, the profile changes: it goes on.
            target = bed.rig.enforcer.target
            again(bed).start(target)
            assert echoed(there, near, 1 << 16)
            more = OUTWARD["p"] + b"  - {drop: from-guest, match: {tcp.dport: 25}}\n"
            bed.hold_live({"p": more})
            assert echoed(near, there, 1 << 16)
            assert echoed(there, near, 1 << 16)
    with (
        closing(listener(bed, "guest", addresses["guest"])),
        pytest.raises(TimeoutError),
    ):
        calling(bed, other, addresses["guest"], wait=1.5)


@FAMILIES
@ENDS
def test_datagrams_come_back_and_do_not_come_first(bed, addresses, other):
    near, far = (datagrams(bed, it, addresses[it]) for it in ("guest", other))
    with closing(near), closing(far):
        far.sendto(b"first", (addresses["guest"], 7000))
        near.sendto(b"asked", (addresses[other], 7000))
        assert far.recv(100) == b"asked"
        far.sendto(b"answer", (addresses["guest"], 7000))
        assert near.recv(100) == b"answer", "what came before it was asked for did not come"


@FAMILIES
@ENDS
def test_a_closed_port_is_said_to_be_closed(bed, addresses, other):
    """TCP's reset is the answer, UDP's is an ICMP error about the guest's own packet."""
    with pytest.raises(ConnectionRefusedError):
        calling(bed, "guest", addresses[other])
    near = datagrams(bed, "guest", addresses["guest"])
    with closing(near):
        near.connect((addresses[other], 7001))
        near.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            near.recv(100)


def pinged(bed, name, to, wait):
    """Whether a ping comes back."""
    six = ":" in to
    protocol, kinds = (58, (128, 129)) if six else (1, (8, 0))
    with bed.stations[name].entered():
        made = socket.socket(family(to), socket.SOCK_RAW, protocol)
    with closing(made):
        made.settimeout(wait)
        request = echo_header(kinds[0], 77)
        if not six:
            request = request[:2] + struct.pack(">H", checksum(request)) + request[4:]
        made.sendto(request, (to, 0))
        wanted = bytes([kinds[1], 0])
        try:
            while made.recv(2000)[0 if six else 20 :][:2] != wanted:
                pass
        except TimeoutError:
            return False
        return True


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


@FAMILIES
@ENDS
def test_pings_are_answered_to_the_guest_alone(bed, addresses, other):
    assert pinged(bed, "guest", addresses[other], PATIENCE)
    assert not pinged(bed, other, addresses["guest"], 1.0)
