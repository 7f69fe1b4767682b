"""Which bridges are governed: those named, where the kernel can tell; else every one."""

from __future__ import annotations

import pytest
from net_rig import OBSERVER, all_frames, delivered, expected, found_marker, frame_for, teach

from broker.net.model import Target

pytestmark = pytest.mark.root


@pytest.fixture
def bed(labelled):
    """br0 is governed; br1 is not, and has two ports and an observer of its own."""
    rig = labelled("br0", "br1")
    rig.bridges = frozenset({"br0"})
    one, two = rig.net.add("one", "two", bridge="br1")
    (observer,) = rig.net.add(OBSERVER, bridge="br1")
    return rig, one, two, observer


def test_a_bridge_that_is_not_named_is_left_alone_if_the_kernel_can_tell(bed):
    rig, one, two, observer = bed
    everybody = [one, two, observer]
    teach(everybody)
    rig.enforcer.start(rig.target([], set()))
    if rig.abilities.knows_bridge:
        seen = delivered(everybody, observer, all_frames(everybody))
        assert seen == expected(everybody, lambda _a, _b: True)
    else:
        with pytest.raises(TimeoutError):
            delivered(everybody, observer, all_frames(everybody), timeout=0.3)
        assert not [f for g in everybody for f in g.received() if found_marker(f)]


def test_a_port_with_a_class_stays_governed_where_its_bridge_is_not(bed):
    """A bridge that is renamed leaves the set of names; its ports must not be open for that."""
    rig, one, two, observer = bed
    ports = [rig.port(one, 1), rig.port(observer, 2)]
    rig.enforcer.start(rig.target(ports, {(1, 2), (2, 1)}))
    teach([one, two, observer])
    two.send(frame_for("ipv4", two, one))
    one.send(frame_for("ipv4", one, two))
    seen = delivered([one, two], observer, [(one, frame_for("odd broadcast", one))])
    assert {(a, b) for _, a, b in seen} == {(one.number, observer.number)}


def test_ports_of_a_named_bridge_are_closed_unless_they_have_a_class(labelled):
    rig = labelled()
    one, two = rig.net.add("one", "two")
    (observer,) = rig.net.add(OBSERVER)
    rig.enforcer.start(rig.target([rig.port(one, 1), rig.port(observer, 1)], {(1, 1)}))
    two.send(frame_for("odd broadcast", two))
    seen = delivered([one, two], observer, [(one, frame_for("odd broadcast", one))])
    assert {(a, b) for _, a, b in seen} == {(one.number, observer.number)}


def test_a_bridge_may_be_named_later(bed):
    rig, one, two, observer = bed
    rig.enforcer.start(rig.target([], set()))
    rig.enforcer.update(Target(frozenset({"br0", "br1"})))
    with pytest.raises(TimeoutError):
        delivered([one, two], observer, all_frames([one, two]), timeout=0.3)
    assert not [f for g in (one, two, observer) for f in g.received() if found_marker(f)]
    assert rig.alarms == []
