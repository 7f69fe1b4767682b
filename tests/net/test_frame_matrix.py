"""Every ordered pair of labels, every kind of frame, on a real bridge."""

from __future__ import annotations

from itertools import product

import pytest
from net_rig import OBSERVER, all_frames, delivered, expected, found_marker, teach

pytestmark = pytest.mark.root

LABELS = ("red", "blue", "both", "alone", "selfish")
PAIRS = {("red", "red"), ("blue", "blue"), ("both", "both"), ("red", "both"), ("both", "blue")}
"""`alone` reaches nobody, not even itself; `selfish` the same: they share a class."""


@pytest.fixture
def guests(labelled):
    rig = labelled()
    made = {}
    for label in LABELS:
        for copy in ("a", "b"):
            made.update(dict.fromkeys(rig.net.add(f"{label}-{copy}"), label))
    (observer,) = rig.net.add(OBSERVER)
    made[observer] = OBSERVER
    return rig, made, observer


def test_frames_reach_exactly_the_ports_whose_label_may_hear_the_sender(guests):
    rig, label_of, observer = guests
    classes = rig.classes(LABELS, PAIRS)
    assert len(classes.members) == 5, "alone and selfish share one"
    ports = [rig.port(g, classes.number[label]) for g, label in label_of.items()]
    rig.enforcer.start(rig.target(ports, classes.pairs))
    everybody = list(label_of)
    teach(everybody)

    seen = delivered(everybody, observer, all_frames(everybody))

    allowed = {frozenset(pair) for pair in PAIRS}
    allowed |= {frozenset((OBSERVER, label)) for label in LABELS}
    assert seen == expected(
        everybody, lambda a, b: frozenset((label_of[a], label_of[b])) in allowed
    )
    assert rig.alarms == []


def test_without_any_port_nothing_passes(guests):
    rig, label_of, observer = guests
    rig.enforcer.start(rig.target([], product(range(1, 9), repeat=2)))
    everybody = list(label_of)
    with pytest.raises(TimeoutError):
        delivered(everybody, observer, all_frames(everybody), timeout=0.5)
    assert not [f for g in everybody for f in g.received() if found_marker(f)]
