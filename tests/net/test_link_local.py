"""Frames that a bridge never forwards teach it nothing, and do not get past a filter to dom0."""

from __future__ import annotations

import contextlib
import selectors
import socket

import pytest
from filter_rig import FilterRig
from labelled_rig import Labelled
from net_rig import ethernet, run

from broker.net.filtering import Filtering
from broker.net.link_local import BridgeLearning
from broker.net.links import Link, LinkTable
from broker.net.messages import Done, Put, Start
from broker.net.model import NetError

pytestmark = pytest.mark.root
OWN = {"MAC": ["02:00:00:00:00:01"], "IP": ["10.0.0.1"], "IPV6": [], "LINK_LOCAL": []}
EAPOL = 0x888E


@pytest.fixture
def rig():
    made = FilterRig(Labelled())
    yield made
    made.rig.close()


@pytest.fixture
def filtering(rig):
    """What the helper has, in the host's namespace, and all that it said."""
    said = []
    with rig.rig.net.host.entered(), selectors.DefaultSelector() as selector:
        yield Filtering(LinkTable(), selector, said.append, said.append)
    assert said == []


def learned(rig):
    """The forged MACs that the bridge holds for a port's, by their last byte."""
    words = ["ip", "netns", "exec", rig.rig.net.host.name, "bridge", "fdb", "show", "br", "br0"]
    lines = run(words).splitlines()
    return {int(it.split()[0][-2:], 16) for it in lines if it.startswith("02:aa:")}


def send(rig, first=0):
    """Frames to all link-local groups, each as somebody else; they have been seen at the end."""
    for group in range(16):
        forged = f"02:aa:00:00:00:{first + group:02x}"
        rig.guest.send(ethernet(f"01:80:c2:00:00:{group:02x}", forged, EAPOL, b"x" * 60))
    rig.passes("to-guest", [])


def start(rig, filtering, *, host, bridges=("br0",)):
    target = rig.target(["clean-traffic"], None, **OWN)
    ports = [
        port if port.index != rig.guest.index else type(port)(
            port.name, port.index, 1, host, port.bridge, filter=port.filter
        )
        for port in target.ports.values()
    ]  # fmt: skip
    asked = Start(list(bridges), ports, [(1, 1)], dict(target.profiles))
    assert filtering.answer(asked) == Done()
    return ports


@pytest.mark.parametrize("host", [False, True])
def test_a_bridge_learns_nothing_from_frames_that_it_never_forwards(rig, filtering, host):
    start(rig, filtering, host=host)
    send(rig)
    assert learned(rig) == set()


def test_a_bridge_that_was_made_anew_is_held_to_it_with_its_first_port(rig, filtering):
    ports = start(rig, filtering, host=True)
    rig.rig.net.host.ip("link set br0 type bridge no_linklocal_learn 0")
    send(rig)
    assert 0x0E in learned(rig), "as a bridge does that nobody told"
    rig.rig.net.host.ip(*(f"link set {port.name} master br0" for port in ports))
    port = type(ports[0])(ports[0].name, ports[0].index, 1, False, "br0", filter=ports[0].filter)
    assert filtering.answer(Put(port)) == Done()
    send(rig, 0x80)
    assert all(it < 0x80 for it in learned(rig))


@pytest.mark.parametrize("uplink", [False, True])
def test_dom0_is_told_of_them_by_uplinks_alone(rig, uplink):
    rig.hold()
    if uplink:
        port = rig.rig.port(rig.guest, 1, host=True, uplink=True)
    else:
        port = rig.rig.port(rig.guest, 1, host=True)
    ports = {**rig.rig.enforcer.target.ports, port.index: port}
    rig.rig.enforcer.update(type(rig.rig.enforcer.target)(frozenset({"br0"}), ports, {(1, 1)}))
    with rig.rig.net.host.entered():
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EAPOL))
    with heard:
        heard.bind(("vif1.0", EAPOL))
        heard.setblocking(False)
        send(rig)
        groups = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                groups.add(heard.recv(100)[5])
    # To LLDP's group (0e) the bridge asks no hook.
    assert groups - {0x0E} == ({*range(2, 14), 15} if uplink else set())


def test_a_bridge_that_cannot_be_told_is_refused():
    class Links:
        def get(self, index):
            return Link(index, "br0", "bridge", 0, True, "", learns_link_local=True)

    learning = BridgeLearning(Links())
    learning.close()
    learning._socket = type("Deaf", (), {"ask": lambda *_: []})()
    with pytest.raises(NetError, match="br0 goes on learning from frames"):
        learning.hold(Links().get(3))
    learning.hold(Link(3, "br0", "bridge", 0, True, ""))
