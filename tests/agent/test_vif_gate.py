"""The vif gate on real links: closed passes no frame, open passes, suspended passes none again."""

from __future__ import annotations

import pytest
import pytest_twisted
from netns import Lab
from nodes import Nodes
from support.xenstoreds import wait_until

from broker.agent.gates.base import Device, GateError, NotReadyError
from broker.agent.gates.vif import VifGate
from broker.net.link_changes import LinkChanges
from broker.net.links import Link, LinkMonitor, LinkTable
from broker.net.model import InvalidError, NetError, interface_name
from broker.xenstore.paths import Channel

pytestmark = pytest.mark.root


class NoFilter:
    def admit(self, device, link):
        pass

    def expel(self, device, link):
        pass


class Filter(NoFilter):
    """Notes what it is told, and what the link was like then."""

    def __init__(self, lab):
        self.lab = lab
        self.told = []
        self.fails = False
        self.stuck = False

    def admit(self, device, link):
        self.told.append(("admit", link, self.lab.shown(link)))
        if self.fails:
            raise GateError("no elements")

    def expel(self, device, link):
        self.told.append(("expel", link, self.lab.shown(link)))
        if self.stuck:
            raise GateError("elements may be there")


@pytest.fixture(scope="module")
def shared_lab():
    lab = Lab()
    yield lab
    lab.close()


class Fixture:
    def __init__(self, lab):
        self.lab = lab
        with lab.host.entered():
            self.links = LinkTable()
            self.changes = LinkChanges(self.links)
            self.monitor = LinkMonitor()
        self.nodes = Nodes()
        self.filter = Filter(lab)
        self.gate = VifGate(self.links, self.changes, self.nodes, self.filter)


@pytest.fixture
def it(shared_lab):
    made = Fixture(shared_lab)
    yield made
    made.links.close()
    made.changes.close()
    made.monitor.close()
    shared_lab.host.ip("link", "set", "vif3.0", "down")
    shared_lab.host.ip("link", "set", "vif3.0", "nomaster")


def device(frontend=3, devid="0", **values):
    nodes = {"bridge": b"xpbr0", **values}
    return Device(
        channel=Channel(0, "vif", frontend, devid), kind="vif", values=nodes, nonce="a" * 32
    )


@pytest_twisted.ensureDeferred
async def test_frames_pass_only_between_open_and_suspend(it):
    vif = device()
    assert not it.gate.observe(vif).open
    assert not it.lab.passes()
    await it.gate.open(vif)
    assert it.lab.shown("vif3.0") == (True, True)
    assert it.gate.observe(vif).open
    wait_until(it.lab.passes, "frames")
    assert it.nodes.done == ["hotplug-status=connected"]
    await it.gate.suspend(device(**{"hotplug-status": b"connected"}))
    assert it.lab.shown("vif3.0") == (False, False)
    assert not it.gate.observe(vif).open
    assert not it.lab.passes()
    assert it.nodes.done[1:] == ["-hotplug-status"]
    await it.gate.open(vif)
    wait_until(it.lab.passes, "frames")


@pytest_twisted.ensureDeferred
async def test_every_step_may_be_repeated(it):
    vif = device()
    for _ in range(2):
        await it.gate.open(vif)
    wait_until(it.lab.passes, "frames")
    for _ in range(2):
        await it.gate.suspend(vif)
        await it.gate.release(vif)
    assert not it.lab.passes()


@pytest_twisted.ensureDeferred
async def test_the_filter_is_filled_while_closed_and_emptied_while_still_up(it):
    vif = device()
    await it.gate.open(vif)
    await it.gate.suspend(vif)
    assert it.filter.told == [
        ("admit", "vif3.0", (False, False)),
        ("expel", "vif3.0", (True, True)),
    ]


@pytest_twisted.ensureDeferred
async def test_without_its_filter_a_link_stays_closed(it):
    it.filter.fails = True
    with pytest.raises(GateError, match="no elements"):
        await it.gate.open(device())
    assert it.lab.shown("vif3.0") == (False, False)


@pytest_twisted.ensureDeferred
async def test_up_alone_or_bridged_alone_counts_as_open(it):
    it.lab.host.ip("link", "set", "vif3.0", "up")
    assert it.gate.observe(device()).open
    it.lab.host.ip("link", "set", "vif3.0", "down")
    it.lab.host.ip("link", "set", "vif3.0", "master", "xpbr0")
    assert it.gate.observe(device()).open
    await it.gate.suspend(device())
    assert it.lab.shown("vif3.0") == (False, False)


@pytest_twisted.ensureDeferred
async def test_a_life_that_is_over_opens_nothing(it):
    it.nodes.over = True
    with pytest.raises(GateError, match="gone"):
        await it.gate.open(device(vifname=b"red-web"))
    assert it.lab.shown("vif3.0") == (False, False)  # under its name: nothing was touched
    assert it.filter.told == []


@pytest_twisted.ensureDeferred
async def test_a_life_that_ends_while_it_is_opened_is_closed_again(it):
    async def write(device, items):
        assert it.lab.shown("vif3.0") == (True, True)
        raise GateError("another took its place")

    it.nodes.write = write
    with pytest.raises(GateError, match="another"):
        await it.gate.open(device())
    assert it.lab.shown("vif3.0") == (False, False)


@pytest_twisted.ensureDeferred
async def test_a_final_revocation_closes_and_removes_the_directory(it):
    await it.gate.open(device())
    await it.gate.revoke(device(), final=True)
    assert it.nodes.done[-1] == "-"
    assert not it.lab.passes()


@pytest_twisted.ensureDeferred
async def test_a_link_that_is_not_there_yet_is_not_ready(it):
    assert not it.gate.observe(device(frontend=9)).open
    with pytest.raises(NotReadyError):
        await it.gate.open(device(frontend=9))


@pytest.mark.parametrize(
    "bridge", [b"", b"../x", b"nosuch0", b"vif4.0", b"a" * 16, b"xpbr0\n", b"\xff", b"-x"]
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_bridge_is_not_joined(it, bridge):
    with pytest.raises(GateError, match="bridge"):
        await it.gate.open(device(bridge=bridge))
    assert it.lab.shown("vif3.0") == (False, False)
    assert it.filter.told == []  # it did not come as far as that


@pytest.mark.parametrize("name", [b"../x", b"a" * 16, b"a b", b"\xff", b"-n"])
@pytest_twisted.ensureDeferred
async def test_a_vifname_that_is_no_links_name_is_refused(it, name):
    with pytest.raises(GateError, match="vifname"):
        await it.gate.open(device(vifname=name))
    assert it.lab.shown("vif3.0") == (False, False)


@pytest_twisted.ensureDeferred
async def test_a_vifname_renames_the_link_and_is_found_again(it):
    it.lab.plug(3, "vif3.7", inner="eth7")
    vif = device(devid="7", vifname=b"red-web")
    await it.gate.open(vif)
    assert it.lab.shown("red-web") == (True, True)
    await it.gate.suspend(vif)
    assert it.lab.shown("red-web") == (False, False)
    it.lab.host.ip("link", "del", "red-web")


@pytest_twisted.ensureDeferred
async def test_a_vifname_cannot_take_another_kind_of_link(it):
    it.lab.host.ip("link", "add", "uplink", "type", "bridge")
    with pytest.raises(NotReadyError):
        await it.gate.open(device(frontend=9, vifname=b"uplink"))
    it.lab.host.ip("link", "del", "uplink")


@pytest_twisted.ensureDeferred
async def test_a_link_belonging_to_another_device_is_not_taken_for_it():
    class Table:
        def __init__(self, *links):
            self.links = links

        def named(self, name):
            return next((link for link in self.links if link.name == name), None)

        def all(self):
            return self.links

    def shown(*links):
        gate = VifGate(Table(*links), None, Nodes(), NoFilter())
        return gate.observe(device(vifname=b"red-web"))

    def seen(name, kind, parent):
        return shown(Link(7, name, up=True, master=0, kind=kind, parent=parent)).open

    assert seen("red-web", "", "xen-backend/vif-3-0")
    assert seen("whatever", "", "xen-backend/vif-3-0")
    assert not seen("red-web", "", "xen-backend/vif-4-0")
    assert not seen("red-web", "", "pci/0000:00:03.0")
    assert not seen("whatever", "", "")
    own = Link(7, "vif3.0", up=False, master=0, kind="", parent="xen-backend/vif-3-0")
    stranger = Link(8, "red-web", up=True, master=0, kind="veth", parent="")
    assert shown(stranger, own).detail.startswith("vif3.0 ")


@pytest.mark.parametrize(
    ("mtu", "good"), [(b"1400", True), (b"", True), (b"67", False), (b"x", False)]
)
@pytest_twisted.ensureDeferred
async def test_an_mtu_is_set_if_it_is_one(it, mtu, good):
    if good:
        await it.gate.open(device(mtu=mtu))
    else:
        with pytest.raises(GateError, match="mtu"):
            await it.gate.open(device(mtu=mtu))
        assert it.lab.shown("vif3.0") == (False, False)


def test_the_monitor_tells_which_links_changed(it):
    assert it.monitor.changed() == ()
    it.lab.host.ip("link", "set", "vif3.0", "up")
    names = {link.name for link in it.monitor.changed()}
    assert "vif3.0" in names
    it.lab.host.ip("link", "set", "vif3.0", "down")


def test_the_kernel_is_asked_not_remembered(it):
    assert it.links.named("nosuch0") is None
    assert it.links.get(99999) is None
    shown = {link.name: link for link in it.links.all()}
    assert shown["xpbr0"].kind == "bridge"
    assert it.links.named("vif4.0") == shown["vif4.0"]
    assert shown["vif4.0"].master == shown["xpbr0"].index
    with pytest.raises(NetError, match="no link 99999"):
        it.changes.change_link(99999, up=True)


def test_a_links_name_is_plain():
    assert interface_name("vif3.0") == "vif3.0"
    for name in ("", ".", "a/b", "a" * 16, "a\0", "a\n", " ", "\xe9", "a:b", "a@b", "12", "-x"):
        with pytest.raises(InvalidError):
            interface_name(name)


@pytest_twisted.ensureDeferred
async def test_where_the_filter_cannot_be_emptied_the_link_is_closed_all_the_same(it):
    await it.gate.open(device())
    it.filter.stuck = True
    with pytest.raises(GateError, match="elements may be there"):
        await it.gate.suspend(device())
    assert it.lab.shown("vif3.0") == (False, False)


@pytest.mark.parametrize("found", [["up"], ["master", "xpbr0"]])
@pytest_twisted.ensureDeferred
async def test_what_is_up_or_bridged_already_is_closed_before_it_gets_its_class(it, found):
    it.lab.host.ip("link", "set", "vif3.0", *found)
    await it.gate.open(device())
    assert it.filter.told == [("admit", "vif3.0", (False, False))]
    assert it.lab.shown("vif3.0") == (True, True)


class Forgetful:
    """Changes links as it is told, but for one thing that it says it did."""

    def __init__(self, changes, *forgotten):
        self._changes = changes
        self._forgotten = forgotten

    def change_link(self, index, **wanted):
        kept = {
            key: value for key, value in wanted.items() if (key, bool(value)) not in self._forgotten
        }
        self._changes.change_link(index, **kept)


@pytest.mark.parametrize("forgotten", [("up", True), ("master", True)])
@pytest_twisted.ensureDeferred
async def test_it_is_not_open_until_the_kernel_shows_it_so(it, forgotten):
    it.gate._changer = Forgetful(it.changes, forgotten)
    with pytest.raises(GateError, match="not up in xpbr0 after all"):
        await it.gate.open(device())
    assert it.nodes.done == []
    assert it.lab.shown("vif3.0") == (False, False)


@pytest.mark.parametrize("forgotten", [("up", False), ("master", False)])
@pytest_twisted.ensureDeferred
async def test_it_is_not_closed_until_the_kernel_shows_it_so(it, forgotten):
    await it.gate.open(device())
    it.gate._changer = Forgetful(it.changes, forgotten)
    for close in (it.gate.suspend, it.gate.release):
        with pytest.raises(GateError, match="still up or bridged"):
            await close(device(**{"hotplug-status": b"connected"}))
    with pytest.raises(GateError, match="still up or bridged"):
        await it.gate.revoke(device(), final=True)
    assert it.nodes.done == ["hotplug-status=connected"]
    it.gate._changer = it.changes


@pytest_twisted.ensureDeferred
async def test_a_links_own_name_may_be_another_and_a_bridge_it_is_in_too(it):
    """Closing finds the link wherever it is, and whatever bridge it was put in."""
    it.lab.host.ip("link", "add", "xpbr1", "type", "bridge")
    it.lab.host.ip("link", "set", "vif3.0", "master", "xpbr1")
    await it.gate.suspend(device())
    assert it.lab.shown("vif3.0") == (False, False)
    it.lab.host.ip("link", "del", "xpbr1")


class Router:
    """Changes links as it is told; notes what is to be routed and what the link was like before."""

    def __init__(self, it):
        self._it = it
        self.routes = []

    def change_link(self, index, **wanted):
        self._it.changes.change_link(index, **wanted)

    def route_to(self, index, networks, through):
        self.routes.append((networks, through, self._it.lab.shown("vif3.0")))
        self.change_link(index, up=True)


@pytest.mark.parametrize("script", [b"vif-route", b"/etc/xen/scripts/vif-broker-route"])
@pytest_twisted.ensureDeferred
async def test_a_routed_vif_gets_its_class_and_then_comes_up_with_its_routes(it, script):
    it.gate._changer = router = Router(it)
    await it.gate.open(device(script=script, ip=b"10.3.0.2 fd00::/64"))
    assert it.filter.told == [("admit", "vif3.0", (False, False))]
    assert router.routes == [(["10.3.0.2/32", "fd00::/64"], "eth0", (False, False))]
    assert it.lab.shown("vif3.0") == (True, False)
    assert it.nodes.done == ["hotplug-status=connected"]


@pytest_twisted.ensureDeferred
async def test_a_routed_vif_that_somebody_bridges_meanwhile_is_not_open(it):
    class Bridging(Router):
        def route_to(self, index, networks, through):
            super().route_to(index, networks, through)
            it.lab.host.ip("link", "set", "vif3.0", "master", "xpbr0")

    it.gate._changer = Bridging(it)
    with pytest.raises(GateError, match="not up in no bridge"):
        await it.gate.open(device(script=b"vif-route"))
    assert it.lab.shown("vif3.0") == (False, False)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"script": b"/etc/xen/scripts/vif-nat"}, "vif-nat is not supported"),
        ({"script": b"vif-openvswitch"}, "vif-openvswitch is not supported"),
        ({"script": b"vif-route", "ip": b"10.0.0.1 x"}, "not an IP address or network"),
        ({"script": b"vif-route", "ip": b"10.0.0.1 " * 65}, "more than 64"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_set_up_that_cannot_be_made_leaves_the_link_alone(it, values, why):
    it.gate._changer = router = Router(it)
    with pytest.raises(GateError, match=why):
        await it.gate.open(device(**values))
    assert (it.filter.told, router.routes) == ([], [])
    assert it.lab.shown("vif3.0") == (False, False)
