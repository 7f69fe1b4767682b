"""The vif gate with labels: elements before the bridge, and refusals leave the link closed."""

from __future__ import annotations

import pytest
import pytest_twisted
from net_rig import OBSERVER, all_frames, delivered, teach
from net_rules import FakeRules

from broker.agent.gates.base import Device, GateError
from broker.agent.gates.labelled import open_port
from broker.agent.gates.vif import VifGate
from broker.net.link_changes import LinkChanges
from broker.net.links import LinkTable
from broker.net.model import InvalidError, NetError
from broker.net.ports import LabelledPorts, OpenPort
from broker.xenstore.paths import Channel

pytestmark = pytest.mark.root


class Nodes:
    async def check(self, device):
        pass

    async def write(self, device, items):
        pass

    async def remove(self, device, names):
        pass


class LabelFilter:
    """Gives each vif the class of what `label` says of its frontend, as the agent's bridges do."""

    def __init__(self, ports, label):
        self._ports, self._label = ports, label

    def admit(self, device, link):
        label = self._label.get(device.channel.frontend)
        if label is None:
            raise GateError(f"{link}: no label is granted")
        try:
            self._ports.admit(open_port(device, link, label))
        except NetError as error:
            raise GateError(f"{link}: {error}") from error

    def expel(self, device, link):
        self._ports.expel(link)


def device(domid, **values):
    keys = {"bridge": b"br0", **values}
    return Device(channel=Channel(0, "vif", domid, "0"), kind="vif", values=keys, nonce="0" * 32)


@pytest.fixture
def bed(labelled):
    rig = labelled()
    one, two = rig.net.add("vif1.0", "vif2.0", bridge=None, up=False)
    (observer,) = rig.net.add(OBSERVER)
    with rig.net.host.entered():
        table = LinkTable()
        changes = LinkChanges(table)
    ports = LabelledPorts(rig.enforcer, table, {"br0"})
    watch = OpenPort(OBSERVER, "watch", "br0")
    ports.start(FakeRules([("red", "red"), ("red", "watch"), ("blue", "watch")]), [watch])
    label = {1: "red", 2: "red"}
    gate = VifGate(table, changes, Nodes(), LabelFilter(ports, label))
    return rig, gate, label, (one, two), observer


@pytest_twisted.ensureDeferred
async def test_a_granted_vif_passes_by_its_label_and_suspended_it_passes_nothing(bed):
    rig, gate, label, (one, two), observer = bed
    await gate.open(device(1, mac=one.mac.encode()))
    await gate.open(device(2, mac=two.mac.encode()))
    rig.net.forwarding(one.port, two.port)
    everybody = [one, two, observer]
    teach(everybody)
    ends = {(a, b) for _, a, b in delivered(everybody, observer, all_frames([one, two]))}
    assert (one.number, two.number) in ends
    assert rig.enforcer.target.ports[one.index].macs == (one.mac,)

    await gate.suspend(device(2))
    assert set(rig.enforcer.target.ports) == {one.index, observer.index}
    label[2] = "blue"
    await gate.open(device(2))
    rig.net.forwarding(two.port)
    ends = {(a, b) for _, a, b in delivered(everybody, observer, all_frames([one, two]))}
    assert ends == {(one.number, observer.number), (two.number, observer.number)}


@pytest.mark.parametrize("granted", [None, "green"])
@pytest_twisted.ensureDeferred
async def test_without_a_known_label_the_link_stays_down_and_unbridged(bed, granted):
    _rig, gate, label, *_ = bed
    label[1] = granted
    with pytest.raises(GateError, match="label"):
        await gate.open(device(1))
    assert not gate.observe(device(1)).open


@pytest_twisted.ensureDeferred
async def test_a_mac_that_is_none_leaves_the_gate_closed(bed):
    _rig, gate, *_ = bed
    with pytest.raises(GateError, match="mac"):
        await gate.open(device(1, mac=b"ff:ff:ff:ff:ff:ff"))
    assert not gate.observe(device(1)).open


def test_the_script_says_whether_a_port_is_bridged_or_routed():
    assert open_port(device(1, script=b"/etc/xen/scripts/vif-bridge"), "x", "red").bridge == "br0"
    assert open_port(device(1, script=b"/etc/xen/scripts/vif-route"), "x", "red").bridge is None
    with pytest.raises(GateError, match="not supported"):
        open_port(device(1, script=b"vif-nat"), "x", "red")


def test_only_good_addresses_are_taken():
    port = open_port(device(1, ip=b"10.0.0.1 fe80::1 10.0.0.0/24 \xff"), "vif1.0", "red")
    assert port.ips == ("10.0.0.1", "fe80::1")
    with pytest.raises(InvalidError, match=r"mac \\x"):
        open_port(device(1, mac=b"\xff"), "vif1.0", "red")
