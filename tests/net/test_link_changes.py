"""Changing guests' links, in process and through the helper: what is touched, and what never is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from net_rig import Net, run

from broker.net import client, messages
from broker.net.link_changes import LinkChanges
from broker.net.links import Link, LinkTable
from broker.net.messages import ProtocolError
from broker.net.model import NetError

pytestmark = pytest.mark.root

NET_ADMIN = 1 << 12


@pytest.fixture
def net():
    made = Net("br0")
    made.add("vif1.0", bridge=None, up=False)
    yield made
    made.close()


@pytest.fixture
def table(net):
    with net.host.entered():
        made = LinkTable()
    yield made
    made.close()


@pytest.fixture
def helper(net):
    with net.host.entered():
        made, process = client.spawn()
    made.process = process
    yield made
    made.close()
    assert process.wait(timeout=10) == 0


def test_a_guests_link_is_renamed_bridged_and_brought_up_and_back(helper, net, table):
    index, bridge = net.index("vif1.0"), net.index("br0")
    helper.change_link(index, name="web0", mtu=1400, address=bytes.fromhex("feffffffffff"))
    helper.change_link(index, master=bridge)
    helper.change_link(index, up=True)
    shown = table.get(index)
    assert (shown.name, shown.master, shown.up) == ("web0", bridge, True)
    assert "mtu 1400" in run(["ip", "-n", net.host.name, "link", "show", "web0"])
    assert "fe:ff:ff:ff:ff:ff" in run(["ip", "-n", net.host.name, "link", "show", "web0"])
    helper.change_link(index, name="web0")  # it may be repeated while it is up
    helper.change_link(index, up=False, master=0)
    shown = table.get(index)
    assert (shown.master, shown.up) == (0, False)
    assert "xpb_" not in net.host.listing("tables"), "nftables is not touched for that"


@pytest.mark.parametrize("name", ["br0", "lo"])
def test_what_is_no_guests_link_is_not_touched(helper, net, table, name):
    net.host.ip("link set lo up")
    before = table.named(name)
    with pytest.raises(NetError, match=f"{name} is no guest's link"):
        helper.change_link(before.index, up=False)
    with pytest.raises(NetError, match=f"{name} is no guest's link"):
        helper.route_to(before.index, ["10.1.0.1/32"], "lo")
    assert table.named(name) == before


def test_a_links_parent_tells_whose_it_is():
    class OneLink:
        def __init__(self, kind, parent):
            self.link = Link(7, "x", kind=kind, master=0, up=False, parent=parent)

        def get(self, _index):
            return self.link

    def guests(kind, parent):
        try:
            LinkChanges(OneLink(kind, parent))._guest_link(7)
        except NetError:
            return False
        return True

    assert guests("", "xen-backend/vif-3-0")
    assert guests("", "")
    assert guests("veth", "")
    assert not guests("", "pci/0000:00:03.0")
    assert not guests("veth", "virtio/virtio0")
    assert not guests("vlan", "")


def test_only_a_bridge_is_joined(helper, net):
    net.add("vif2.0", bridge=None, up=False)
    with pytest.raises(NetError, match="no bridge to join"):
        helper.change_link(net.index("vif1.0"), master=net.index("vif2.0"))
    with pytest.raises(NetError, match="no bridge to join"):
        helper.change_link(net.index("vif1.0"), master=4242)


def test_what_is_not_there_cannot_be_changed(helper):
    with pytest.raises(NetError, match="no link 4242"):
        helper.change_link(4242, up=True)


def test_the_kernels_refusal_is_told(helper, net):
    with pytest.raises(NetError, match=r"link vif1\.0: .*exists"):
        helper.change_link(net.index("vif1.0"), name="br0")


@pytest.mark.parametrize(
    "fields",
    [
        {"index": 0},
        {"master": -1},
        {"name": "a b"},
        {"name": ""},
        {"mtu": 67},
        {"mtu": 65536},
        {"address": b"\1\0\0\0\0\0"},
        {"address": b"\2\0\0\0\0"},
        {"up": "yes"},
        {"flags": 1},
    ],
)
def test_a_change_with_a_wrong_field_is_no_request(fields):
    good = {"type": "SetLink", "index": 5, "name": "vif1.0", "mtu": 1500, "address": b"\2" * 6}
    assert messages.request(msgspec.msgpack.encode(good))
    with pytest.raises(ProtocolError):
        messages.request(msgspec.msgpack.encode({**good, **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"index": 0},
        {"through": "a b"},
        {"networks": ["10.0.0.1"]},
        {"networks": ["10.0.0.1/24"]},
        {"networks": ["x"]},
        {"networks": ["10.0.0.1/32"] * 65},
    ],
)
def test_routes_with_a_wrong_field_are_no_request(fields):
    good = {"type": "RouteTo", "index": 5, "networks": ["10.0.0.1/32"], "through": "eth0"}
    assert messages.request(msgspec.msgpack.encode(good))
    with pytest.raises(ProtocolError):
        messages.request(msgspec.msgpack.encode({**good, **fields}))


@pytest.fixture
def routed(net):
    net.add("eth0", bridge=None)
    net.host.ip("addr add 192.0.2.7/24 dev eth0", "addr add 192.0.2.8/24 dev eth0")
    net.host.ip("link set lo up")  # whose address is not eth0's
    return net.index("vif1.0")


def test_routes_are_those_that_vif_route_makes(helper, net, table, routed):
    helper.change_link(routed, up=False)
    for _ in range(2):  # it may be repeated
        helper.route_to(routed, ["10.1.0.1/32", "10.2.0.0/16", "fd00:1::/64"], "eth0")
        assert table.get(routed).up
    shown = run(["ip", "-n", net.host.name, "route", "show", "dev", "vif1.0"])
    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        "10.1.0.1 scope link src 192.0.2.7 metric 2",
        "10.2.0.0/16 scope link src 192.0.2.7 metric 2",
    ]
    shown = run(["ip", "-n", net.host.name, "-6", "route", "show", "dev", "vif1.0"])
    assert "fd00:1::/64 metric 2" in shown
    shown = run(["ip", "-n", net.host.name, "-4", "-o", "addr", "show", "dev", "vif1.0"])
    assert "inet 192.0.2.7/32" in shown
    with net.host.entered():
        assert Path("/proc/sys/net/ipv4/conf/vif1.0/proxy_arp").read_text() == "1\n"
        assert Path("/proc/sys/net/ipv4/conf/br0/proxy_arp").read_text() == "0\n"
    helper.change_link(routed, up=False)
    for family in "-4", "-6":
        assert not run(["ip", "-n", net.host.name, family, "route", "show", "dev", "vif1.0"])


def test_without_an_address_to_route_through_the_link_does_not_come_up(helper, net, table, routed):
    helper.change_link(routed, up=False)
    with pytest.raises(NetError, match="no link eth9"):
        helper.route_to(routed, ["10.1.0.1/32"], "eth9")
    with pytest.raises(NetError, match="br0 has no IPv4 address"):
        helper.route_to(routed, ["10.1.0.1/32"], "br0")
    assert not table.get(routed).up


def sets(pid):
    """Capability sets, user and whether new privileges may be had, by /proc."""
    words = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    caps = {name: int(words[f"Cap{name}"], 16) for name in ("Eff", "Prm", "Inh", "Bnd", "Amb")}
    return caps, words["Uid"].split(), words["Groups"].split(), words["NoNewPrivs"].strip()


def test_the_helper_keeps_no_group_of_its_parents(net):
    ours, theirs = socket.socketpair()
    program = (
        "import os, sys; from broker.net.helper import main; os.setgroups([4242]);"
        f"sys.exit(main(['--fd', '{theirs.fileno()}']))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()])
    theirs.close()
    helper = client.HelperClient(ours)
    helper.check()
    assert sets(process.pid)[2] == []
    helper.close()
    assert process.wait(timeout=10) == 0


def test_the_helper_has_cap_net_admin_and_nothing_else(helper):
    helper.check()
    caps, users, groups, no_new = sets(helper.process.pid)
    assert set(caps.values()) == {NET_ADMIN}
    assert set(users) == {"65534"}
    assert (groups, no_new) == ([], "1")


def test_a_process_that_gave_it_up_changes_nothing_and_its_helper_does(net):
    program = """
import subprocess, sys
from broker.net import client
from broker.net.link_changes import LinkChanges
from broker.net.links import LinkTable
from broker.net.model import NetError
from broker.net.privileges import give_up_net_admin

give_up_net_admin()
table = LinkTable()
index = table.named("vif1.0").index
try:
    LinkChanges(table).change_link(index, up=True)
except NetError as error:
    assert "not permitted" in str(error), error
else:
    sys.exit("it still could")
helper, process = client.spawn()
helper.change_link(index, up=True)
assert table.get(index).up
print(open("/proc/self/status").read())
"""
    inside = ["ip", "netns", "exec", net.host.name, sys.executable, "-c", program]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    for name in ("Eff", "Prm", "Inh"):
        assert not int(words[f"Cap{name}"], 16) & NET_ADMIN
    assert int(words["CapBnd"], 16) & NET_ADMIN
    assert os.geteuid() == 0
