"""Well-behaved ends of every class, as their descriptions have them, give no alarm."""

import pytest
from support.specs import CLASSES, monitor, spec

from broker.protocol.replay import replay
from broker.sim.protocol_pair import Pair

EXAMPLES = [
    pytest.param(name, example, id=f"{name}-{example}")
    for name in CLASSES
    for example in spec(name).form.examples
]


def lived(name, example):
    pair = Pair(spec(name), spec(name).form.examples[example])
    pair.create()
    pair.connect()
    return pair


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_a_whole_life_is_fine(name, example):
    pair = lived(name, example)
    if spec(name).frontend.transitions:
        assert (pair.state("frontend"), pair.state("backend")) == (4, 4)
        assert pair.drive(6, 6)
        assert pair.drive(4, 4)
    pair.remove()
    assert replay(monitor(name), pair.changes) == []


def test_every_class_has_an_example():
    assert all(spec(name).form.examples for name in CLASSES)
