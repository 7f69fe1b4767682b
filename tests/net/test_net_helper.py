"""The privileged helper, as a process of its own, and the labelled ports in front of it."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import time

import pytest
from net_rig import OBSERVER, all_frames, delivered, expected, frame_for, teach
from net_rules import FakeRules

from broker.net import client, filtering, messages
from broker.net.label_ids import NOBODY, label_id
from broker.net.links import LinkTable
from broker.net.messages import Alarm, Dropped, Traced
from broker.net.model import InvalidError, NetError, Port, Target
from broker.net.monitor import Changes
from broker.net.policy_rules import Uplink
from broker.net.ports import LabelledPorts, OpenPort
from broker.net.readback import Readback
from broker.net.tables import BRIDGE

pytestmark = pytest.mark.root


RULES = FakeRules([("red", "red"), ("blue", "blue"), ("red", "watch"), ("blue", "watch")])


@pytest.fixture
def bed(labelled):
    """A helper in the host namespace, its client, labelled ports and three guests."""
    rig = labelled()
    with rig.net.host.entered():
        helper, process = client.spawn()
        links = LinkTable()
    guests = rig.net.add("vif1.0", "vif2.0")
    (observer,) = rig.net.add(OBSERVER)
    yield rig, helper, LabelledPorts(helper, links, {"br0"}), guests, observer
    helper.close()
    assert process.wait(timeout=10) == 0


def opened(guest, label, **more):
    return OpenPort(guest.port, label, "br0", (guest.mac,), **more)


def events(helper, kind, wanted=lambda _event: True, timeout=5.0):
    """Wait for an event of this kind; answers all that came."""
    found, end = [], time.monotonic() + timeout
    while not any(isinstance(event, kind) and wanted(event) for event in found):
        left = end - time.monotonic()
        assert left > 0, f"no such event among {found}"
        select.select([helper], [], [], left)
        found += helper.events()
    return found


def test_ports_are_admitted_expelled_and_relabelled(bed):
    _rig, _helper, ports, (one, two), observer = bed
    assert ports.start(RULES, [opened(observer, "watch")]) == []
    assert ports.admit(opened(one, "red")) == one.index
    ports.admit(opened(two, "red"))
    everybody = [one, two, observer]
    teach(everybody)
    seen = delivered(everybody, observer, all_frames(everybody))
    assert seen == expected(everybody, lambda a, b: True)
    assert ports.label_of(one.index) == "red"

    ports.admit(opened(two, "blue"))
    seen = delivered(everybody, observer, all_frames(everybody))
    assert seen == expected(everybody, lambda a, b: observer in (a, b))

    ports.expel(two.port)
    ports.expel(two.port)
    assert ports.label_of(two.index) is None
    two.send(frame_for("ipv4", two, one))
    seen = delivered(everybody, observer, all_frames([one, observer]))
    assert {(a, b) for _, a, b in seen} == {
        (one.number, observer.number),
        (observer.number, one.number),
    }


def test_a_policy_change_moves_all_ports_at_once_and_drops_unknown_labels(bed):
    _rig, _helper, ports, (one, two), observer = bed
    ports.start(RULES, [opened(one, "red"), opened(two, "red"), opened(observer, "watch")])
    assert ports.set_rules(FakeRules([("blue", "watch"), ("watch", "watch")])) == [
        "vif1.0",
        "vif2.0",
    ]
    one.send(frame_for("ipv4", one, two))
    with pytest.raises(TimeoutError):
        delivered([one, two], observer, all_frames([one, two]), timeout=0.3)
    with pytest.raises(NetError, match="label red is not in the policy"):
        ports.admit(opened(one, "red"))
    ports.set_rules(RULES)
    ports.admit(opened(one, "red"))
    delivered([one], observer, [(one, frame_for("ipv4", one, observer))])


def test_numbers_that_a_policy_retires_leave_the_kernel_once_the_agent_has_its_answer(bed):
    rig, helper, ports, (one, two), observer = bed
    ports.start(RULES, [opened(one, "red"), opened(two, "red"), opened(observer, "watch")])
    index, pairs = one.index, {(1, 1), (1, 2), (2, 1)}
    started = Port(one.port, index, 1, bridge="br0")
    helper.update(Target(frozenset({"br0"}), {index: started}, frozenset(pairs)))
    moved = Port(one.port, index, 3, bridge="br0")
    helper.update(
        Target(frozenset({"br0"}), {index: moved}, frozenset({(3, 3)})), frozenset({(3, 3), (1, 1)})
    )
    with rig.net.host.entered():
        readback = Readback()
    end = time.monotonic() + 10
    while len(readback.elements(BRIDGE, "pairs")) > 1:
        assert time.monotonic() < end, "what was retired is still there"
    assert helper.show().pairs == [(3, 3)]


def test_what_cannot_be_admitted_is_refused_in_words(bed):
    _rig, _helper, ports, (one, two), _observer = bed
    with pytest.raises(NetError, match="no policy yet"):
        ports.admit(opened(one, "red"))
    assert ports.start(RULES, [opened(one, "red"), OpenPort("nowhere", "red", "br0")]) == [
        "nowhere"
    ]
    with pytest.raises(NetError, match="label green is not in the policy"):
        ports.admit(opened(two, "green"))
    with pytest.raises(NetError, match="br7 is not governed"):
        ports.admit(OpenPort(two.port, "red", "br7"))
    with pytest.raises(NetError, match="is not there"):
        ports.admit(OpenPort("vif9.0", "red", "br0"))
    with pytest.raises(InvalidError):
        ports.admit(opened(two, "red", ips=("not an address",)))


def test_an_uplink_gets_its_class_when_it_comes_and_again_when_it_comes_back(bed):
    rig, _helper, ports, (one, _two), observer = bed
    rules = FakeRules(
        [("red", "uplink:office"), ("red", "watch"), ("uplink:office", "watch")],
        [Uplink("uplink:office", "eth7", "br0"), Uplink("uplink:office", "eth8", "br9")],
    )
    ports.start(rules, [opened(one, "red"), opened(observer, "watch")])
    for _ in range(2):
        (wire,) = rig.net.add("eth7")
        ports.refresh_uplinks()
        assert ports.label_of(wire.index) == "uplink:office"
        forged = [(wire, frame_for("odd", one, observer)), (wire, frame_for("odd", wire, observer))]
        seen = delivered([one, wire], observer, forged)
        assert {a for _, a, _ in seen} <= {wire.number}
        rig.net.host.ip("link del eth7")
        wire.socket.close()
        ports.refresh_uplinks()
        assert ports.label_of(wire.index) is None


def test_flushing_the_ruleset_is_repaired_with_an_alarm(bed):
    rig, helper, ports, (one, two), observer = bed
    ports.start(RULES, [opened(one, "red"), opened(two, "blue"), opened(observer, "watch")])
    before = rig.content()
    rig.net.host.nft("flush ruleset")
    said = events(helper, Alarm, lambda event: "whole again" in event.text)
    alarms = [event.text for event in said if isinstance(event, Alarm)]
    assert any("changed by somebody else" in text for text in alarms)
    assert rig.content() == before


def test_an_agent_that_does_not_listen_keeps_nothing_from_being_repaired(bed):
    rig, helper, ports, (one, two), observer = bed
    ports.start(RULES, [opened(one, "red"), opened(two, "blue"), opened(observer, "watch")])
    before = rig.content()
    helper._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(200):
        rig.net.host.nft("flush chain bridge xpb_bridge forward")
    end = time.monotonic() + 5
    while rig.content() != before:
        assert time.monotonic() < end
    assert len(helper.show().ports) == 3
    ports.admit(opened(two, "red"))


def test_foreign_changes_elsewhere_raise_no_alarm(bed):
    rig, helper, ports, (one, _two), _observer = bed
    ports.start(RULES, [opened(one, "red")])
    rig.net.host.nft("add table inet other; delete table inet other")
    ports.admit(opened(one, "blue"))
    assert not [event for event in helper.events() if isinstance(event, Alarm)]


def test_a_port_that_goes_takes_its_elements_with_it(bed):
    rig, helper, ports, (one, two), _observer = bed
    ports.start(RULES, [opened(one, "red"), opened(two, "red")])
    rig.net.host.ip(f"link del {two.port}")
    end = time.monotonic() + 5
    while len(helper.show().ports) > 1:
        assert time.monotonic() < end
    ports.admit(opened(one, "blue"))
    (two,) = rig.net.add("vif2.0")
    assert ports.admit(opened(two, "red")) == two.index
    assert [port.index for port in helper.show().ports] == [one.index, two.index]


def test_refused_frames_are_counted_by_pair_of_labels_and_sampled(bed):
    _rig, helper, ports, (one, two), observer = bed
    ports.start(RULES, [opened(one, "red"), opened(two, "blue"), opened(observer, "watch")])
    teach([one, two])
    for _ in range(3):
        one.send(frame_for("ipv6", one, two))
    delivered([one], observer, [(one, frame_for("ipv4", one, observer))])
    ends = (label_id("red"), label_id("blue"))
    drops = {(d.sender, d.receiver): d for d in helper.drops()}
    assert {(d.sender, d.receiver): d for d in helper.show().drops}.keys() >= drops.keys()
    assert drops[ends].packets >= 3
    assert drops[ends].bytes >= 3 * 60
    said = events(helper, Dropped, lambda event: "fd00::" in event.packet)
    sample = next(e for e in said if isinstance(e, Dropped) and "fd00::" in e.packet)
    assert (sample.sender, sample.receiver) == (one.index, two.index)
    assert sample.label == label_id("red")
    assert [ports.report().end(it) for it in ends] == ["red", "blue"]
    assert "fd00::1 port 1000 > fd00::2 port 2000 UDP" in sample.packet


def test_what_a_port_without_a_class_sends_is_counted_and_sampled_too(bed):
    _rig, helper, ports, (one, _two), observer = bed
    ports.start(RULES, [opened(observer, "watch")])
    one.send(frame_for("arp", one, observer))
    said = events(helper, Dropped, lambda event: "ARP" in event.packet)
    sample = next(e for e in said if isinstance(e, Dropped) and "ARP" in e.packet)
    assert (sample.sender, sample.label) == (one.index, NOBODY)
    assert [d for d in helper.show().drops if d.sender == 0 and d.packets]


def test_a_trace_tells_what_became_of_a_frame_and_ends_by_itself(bed):
    rig, helper, ports, (one, two), observer = bed
    ports.start(RULES, [opened(one, "red"), opened(two, "blue"), opened(observer, "watch")])
    teach([one, two, observer])
    helper.trace(one.index, two.index, 0.5)
    one.send(frame_for("ipv4", one, two))
    one.send(frame_for("ipv4", one, observer))
    said = events(helper, Traced, lambda event: event.verdict.endswith("drop"))
    steps = [event for event in said if isinstance(event, Traced)]
    assert "refuse" in {step.chain for step in steps}
    assert any(f"{one.mac} > {two.mac} IPv4" in step.packet for step in steps)
    assert not any(observer.mac in step.packet for step in steps)
    end = time.monotonic() + 5
    while "xpb_trace" in rig.net.host.listing("tables"):
        assert time.monotonic() < end


def test_the_helper_takes_only_ports_that_are_what_they_are_said_to_be(bed):
    rig, helper, _ports, (one, two), _observer = bed
    with pytest.raises(NetError, match=r"^nothing is in force yet: ask for Start first$"):
        helper.put(rig.port(one, 1))
    helper.start(Target(frozenset({"br0"}), {}, frozenset({(1, 1)})))
    with pytest.raises(NetError, match="is not interface"):
        helper.put(Port("vif1.0", two.index, 1, bridge="br0"))
    with pytest.raises(NetError, match="is not interface"):
        helper.put(Port("vif1.0", 4242, 1, bridge="br0"))
    with pytest.raises(NetError, match="br1 is not governed"):
        helper.put(Port("vif1.0", one.index, 1, bridge="br1"))
    with pytest.raises(NetError, match="not a class number in a pair"):
        helper.update(Target(frozenset(), {}, frozenset({(1, 70000)})))
    assert helper.show().ports == []


def test_a_bridge_that_is_no_linux_bridge_is_refused(bed):
    rig, helper, _ports, (_one, two), _observer = bed
    with pytest.raises(NetError, match="is not a Linux bridge but veth"):
        helper.start(Target(frozenset({"vif1.0"})))
    rig.net.host.ip(f"link set {two.port} down", f"link set {two.port} name ovs-system")
    with pytest.raises(NetError, match="Open vSwitch"):
        helper.start(Target(frozenset({"vif1.0"})))


def test_a_port_of_a_bridge_that_became_something_else_is_refused(bed):
    rig, helper, _ports, (one, two), _observer = bed
    helper.start(Target(frozenset({"br0", "br5"})))
    with pytest.raises(NetError, match="there is no bridge br5"):
        helper.put(Port("vif1.0", one.index, 1, bridge="br5"))
    rig.net.host.ip(f"link set {two.port} down", f"link set {two.port} name br5")
    with pytest.raises(NetError, match="br5 is not a Linux bridge but veth"):
        helper.put(Port("vif1.0", one.index, 1, bridge="br5"))


def test_a_helper_that_was_told_nothing_yet_leaves_all_as_it_is(bed):
    rig, helper, _ports, (one, two), observer = bed
    assert helper.numbers_in_kernel() == frozenset()
    rig.enforcer.start(rig.target([rig.port(g, 1) for g in (one, two, observer)], {(1, 1)}))
    rig.net.host.ip(f"link del {two.port}")
    assert helper.numbers_in_kernel() == {1}
    assert rig.enforcer.check()


def test_samples_are_one_readers_and_another_is_told_so(bed):
    rig, helper, _ports, _guests, _observer = bed
    helper.start(Target(frozenset({"br0"})))
    with rig.net.host.entered():
        second, process = client.spawn()
    second.start(Target(frozenset({"br0"})))
    said = events(second, Alarm)
    assert any("counted but not shown" in it.text for it in said if isinstance(it, Alarm))
    second.close()
    assert process.wait(timeout=10) == 0


class Failing:
    """An enforcer whose next repairs fail, and that cannot take a port out meanwhile."""

    def __init__(self, times):
        self.times = times

    def _try(self, *_):
        if self.times:
            self.times -= 1
            raise NetError("no memory")
        return True

    check = remove = settle = _try


class Noting:
    """A monitor that notes how often it was told not to listen."""

    def __init__(self):
        self.pauses = 0

    @contextlib.contextmanager
    def unheard(self):
        self.pauses += 1
        yield


class Held:
    """An enforcer that notes what it is asked for."""

    def __init__(self, target):
        self.target, self.asked = target, []

    def update(self, target, during=None):
        self.target = target
        self.asked.append(("update", during))

    def settle(self):
        self.asked.append("settle")

    def check(self):
        self.asked.append("check")
        return True


def test_of_pairs_nobody_hears_while_they_are_written_and_all_is_looked_at_after_that():
    made = object.__new__(filtering.Filtering)
    made._enforcer, made._monitor, made._trace = Held(Target()), Noting(), None
    made._started, made._check_at, made._settle_at = True, None, None
    few, many = [(1, 1)], [(1, 1), (1, 2)]
    assert made.answer(messages.Update([], few)) == messages.Done()
    made.run_due()
    assert made._enforcer.asked == [("update", None), "check"]
    assert made.answer(messages.Update([], few)) == messages.Done()
    assert made.due() is None
    assert made._monitor.pauses == 1
    made._enforcer.asked.clear()
    assert made.answer(messages.Update([], few, many)) == messages.Done()
    made.run_due()
    assert made._enforcer.asked == [("update", frozenset(many)), "settle", "check"]
    assert made.due() is None
    assert made._monitor.pauses == 3


def test_what_could_not_be_repaired_is_tried_again():
    alarms = []
    made = object.__new__(filtering.Filtering)
    made._enforcer, made._alarm, made._trace = Failing(2), alarms.append, None
    made._learning, made._monitor = None, Noting()
    made._started, made._check_at, made._settle_at = True, 0.0, None
    made.run_due()
    assert made.due() is not None
    made._check_at = 0.0
    made.run_due()
    made._check_at = 0.0
    made.run_due()
    assert made.due() is None
    assert len(alarms) == 2

    made._enforcer, made._settle_at = Failing(1), 0.0
    made.run_due()
    assert "numbers of classes" in alarms.pop()
    assert made.due() is not None
    made._settle_at = 0.0
    made.run_due()
    assert made.due() is None
    assert len(alarms) == 2

    class Gone:
        def changes(self):
            return Changes(tables=False, gone=frozenset({7}))

    made._monitor, made._enforcer = Gone(), Failing(1)
    made._look()
    assert made.due() is not None
    assert "interface 7 is gone" in alarms[-1]


def test_a_bridge_that_comes_later_is_closed_from_the_start(bed):
    _rig, helper, _ports, (_one, _two), _observer = bed
    helper.start(Target(frozenset({"br0", "br5"})))
    assert helper.show().bridges == ["br0", "br5"]


def test_without_the_library_the_helper_does_its_work_through_the_program(labelled):
    rig = labelled()
    one, two = rig.net.add("vif1.0", "vif2.0")
    (observer,) = rig.net.add(OBSERVER)
    ours, theirs = socket.socketpair()
    program = (
        "import sys; from broker.net import libnftables; libnftables._LIBRARY = 'nowhere.so';"
        f"from broker.net.helper import main; sys.exit(main(['--fd', '{theirs.fileno()}']))"
    )
    inside = ["ip", "netns", "exec", rig.net.host.name, client.sys.executable, "-c", program]
    process = subprocess.Popen(inside, pass_fds=[theirs.fileno()])
    theirs.close()
    helper = client.HelperClient(ours)
    with rig.net.host.entered():
        links = LinkTable()
    ports = LabelledPorts(helper, links, {"br0"})
    ports.start(RULES, [opened(observer, "watch")])
    ports.admit(opened(one, "red"))
    ports.admit(opened(two, "blue"))
    everybody = [one, two, observer]
    teach(everybody)
    seen = delivered(everybody, observer, all_frames(everybody))
    assert seen == expected(everybody, lambda a, b: observer in (a, b))
    rig.net.host.nft("flush ruleset")
    events(helper, Alarm, lambda event: "whole again" in event.text)
    helper.close()
    assert process.wait(timeout=10) == 0
