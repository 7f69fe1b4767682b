from __future__ import annotations

import pytest
from labelled_rig import Labelled
from net_rig import OBSERVER


@pytest.fixture
def labelled():
    made = []

    def make(*bridges):
        made.append(Labelled(*bridges))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def bed(labelled):
    """Two red guests and an observer, in force."""
    rig = labelled()
    one, two = rig.net.add("vif1.0", "vif2.0")
    (observer,) = rig.net.add(OBSERVER)
    ports = [rig.port(one, 1), rig.port(two, 1), rig.port(observer, 9)]
    pairs = {(1, 1), (1, 9), (9, 1), (9, 9)}
    rig.enforcer.start(rig.target(ports, pairs))
    return rig, one, two, observer
