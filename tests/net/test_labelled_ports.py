"""Labelled ports in front of a kernel that only notes what it is told, or refuses it."""

from __future__ import annotations

import pytest
from net_rules import FakeRules

from broker.net.links import Link
from broker.net.model import NetError
from broker.net.policy_rules import Uplink
from broker.net.ports import LabelledPorts, OpenPort

RULES = FakeRules([("red", "red"), ("red", "dom0"), ("blue", "blue"), ("blue", "watch")])


class Kernel:
    def __init__(self):
        self.numbers = frozenset()
        self.ports = {}
        self.during = None
        self.fails = False

    def numbers_in_kernel(self):
        return self.numbers

    def _called(self):
        if self.fails:
            raise NetError("refused")

    def start(self, target):
        self._called()
        self.ports = dict(target.ports)

    def put(self, port):
        self._called()
        self.ports[port.index] = port

    def remove(self, index):
        self._called()
        self.ports.pop(index, None)

    def update(self, target, during=None):
        self._called()
        self.ports, self.during = dict(target.ports), during


class Links:
    def __init__(self, **there):
        self.there = there

    def named(self, name):
        index = self.there.get(name.replace(".", "_"))
        if index is None:
            return None
        return Link(index, name, kind="veth", master=0, up=False, parent="")


@pytest.fixture
def bed():
    kernel, links = Kernel(), Links(vif1_0=1, vif2_0=2, eth0=7)
    return kernel, links, LabelledPorts(kernel, links, {"br0"})


def port(name="vif1.0", label="red", bridge="br0"):
    return OpenPort(name, label, bridge)


def test_numbers_that_the_kernel_still_has_are_not_given_out(bed):
    kernel, _, ports = bed
    kernel.numbers = frozenset({1, 2, 3})
    ports.start(RULES, [])
    assert not kernel.numbers & set(ports.classes.members)


def test_whether_a_port_talks_with_dom0_is_asked_for_its_label(bed):
    kernel, _, ports = bed
    ports.start(RULES, [])
    ports.admit(port())
    ports.admit(port("vif2.0", "blue"))
    assert (kernel.ports[1].host, kernel.ports[2].host) == (True, False)


def test_a_name_that_is_another_interface_now_takes_the_class_off_the_first(bed):
    kernel, links, ports = bed
    ports.start(RULES, [port()])
    links.there["vif1_0"] = 9
    ports.admit(port(label="blue"))
    assert set(kernel.ports) == {9}


def test_what_the_kernel_refuses_is_no_port_any_more(bed):
    kernel, _, ports = bed
    ports.start(RULES, [port()])
    kernel.fails = True
    with pytest.raises(NetError):
        ports.admit(port(label="blue"))
    assert ports.label_of(1) is None
    kernel.fails = False
    ports.set_rules(RULES)
    assert kernel.ports == {}


def test_a_port_that_could_not_be_closed_is_still_one(bed):
    kernel, _, ports = bed
    ports.start(RULES, [port()])
    kernel.fails = True
    with pytest.raises(NetError):
        ports.expel("vif1.0")
    assert ports.label_of(1) == "red"


def test_a_label_that_a_policy_has_not_is_no_port_under_it(bed):
    kernel, _, ports = bed
    assert ports.start(RULES, [port(), port("vif2.0", "green")]) == ["vif2.0"]
    assert set(kernel.ports) == {1}
    assert ports.set_rules(FakeRules([("green", "green")])) == ["vif1.0"]
    assert kernel.ports == {}
    assert ports.label_of(1) is None


def test_numbers_that_retire_keep_what_both_policies_allow_for_a_moment(bed):
    kernel, _, ports = bed
    both = [("a", "a"), ("a", "b"), ("b", "b")]
    ports.start(FakeRules([*both, ("a", "c"), ("b", "c")]), [port(label="a")])
    old = kernel.ports[1].number
    ports.set_rules(FakeRules([*both, ("a", "c")]))
    assert kernel.during == ports.classes.during
    assert (old, old) in kernel.during


def test_without_a_policy_no_uplink_and_no_port_is_open(bed):
    kernel, _, ports = bed
    assert ports.start(None, [port()]) == ["vif1.0"]
    assert kernel.ports == {}
    with pytest.raises(NetError, match="no policy yet"):
        ports.admit(port())
    ports.refresh_uplinks()
    assert kernel.ports == {}


def test_an_uplink_that_is_another_interface_now_loses_the_class_of_the_first(bed):
    kernel, links, ports = bed
    rules = FakeRules([("red", "uplink:lan")], [Uplink("uplink:lan", "eth0", "br0")])
    ports.start(rules, [])
    assert {it.index: it.uplink for it in kernel.ports.values()} == {7: True}
    links.there["eth0"] = 8
    ports.refresh_uplinks()
    assert set(kernel.ports) == {8}
    del links.there["eth0"]
    ports.refresh_uplinks()
    assert kernel.ports == {}


def test_what_is_on_a_bridge_that_is_not_governed_is_not_even_asked_for(bed):
    kernel, _, ports = bed
    away = [Uplink("uplink:lan", "eth0", "br9")]
    ports.start(FakeRules([("red", "red"), ("red", "uplink:lan")], away), [])
    with pytest.raises(NetError, match="br9 is not governed; name it in `bridges`"):
        ports.admit(port(bridge="br9"))
    ports.refresh_uplinks()
    assert kernel.ports == {}


def test_names_stay_known_when_their_policy_goes(bed):
    _, _, ports = bed
    ports.start(RULES, [])
    ports.set_rules(FakeRules([("green", "green")]))
    assert {"red", "blue", "green"} <= set(ports.report().labels.values())
