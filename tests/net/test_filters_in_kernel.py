"""Profiles in the kernel decide as the plain evaluator of the language does, frame for frame."""

from __future__ import annotations

import random

import pytest
from filter_frames import FAMILIES_OF_STATES, VARIABLES, Maker
from filter_rig import FilterRig, shipped
from followed import Followed
from guided_frames import guided
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from labelled_rig import Labelled

from broker.filters.bind import bind
from broker.filters.evaluate import Asking, evaluate
from broker.filters.frame import Frame
from broker.net.filters.held import library_of

pytestmark = pytest.mark.root

ALL = {name: values for name, (_, values) in VARIABLES.items()}
SHIPPED = {
    "MAC": ["02:00:00:00:00:01"],
    "IP": ["10.0.0.1"],
    "IPV6": ["fd00::1"],
    "LINK_LOCAL": ["fe80::1"],
    "GATEWAY_MAC": ["02:99:00:00:00:07"],
    "GATEWAY": ["10.0.0.2"],
    "GATEWAY_V6": ["fd00::2"],
}
DIRECTIONS = ("from-guest", "to-guest")


@pytest.fixture(scope="module")
def rig():
    made = FilterRig(Labelled())
    yield made
    made.rig.close()


def differences(rig, names, variables, frames, direction, *, followed=None):
    """Frames of which kernel and evaluator think differently.

    `followed` has what passed before; nothing, if there is none.
    """
    followed = followed or Followed()
    library = library_of(rig.rig.enforcer.target.profiles)
    environment, _ = bind(library, names, {k: tuple(v) for k, v in variables.items()})
    passed = rig.passes(direction, frames)
    found = []
    for frame, kernel in zip(frames, passed, strict=True):
        state = followed.state(frame, direction)
        outcome = evaluate(Asking(library, environment, direction, Frame(frame, state)), names)
        if outcome.verdict == "accept":
            followed.note(frame, direction)
        if (outcome.verdict == "accept") != kernel:
            found.append((frame.hex(), state, kernel, outcome))
    return found


@given(st.integers(0, 2**32 - 1))
@settings(
    max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_random_profiles_decide_as_the_evaluator_does(rig, seed):
    make = Maker(random.Random(seed))
    texts = {"inner": make.profile("inner").encode()}
    texts |= {name: make.profile(name, ["inner"]).encode() for name in ("one", "two")}
    names = make.pick([["one"], ["one", "two"]])
    rig.hold(*names, texts=texts, **ALL)
    frames = make.frames(120)
    for direction in DIRECTIONS:
        assert differences(rig, names, ALL, frames, direction) == [], texts
    assert rig.rig.alarms == []


@given(st.integers(0, 2**32 - 1))
@settings(
    max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_random_profiles_follow_connections_as_the_evaluator_does(rig, seed):
    make = Maker(random.Random(seed), FAMILIES_OF_STATES)
    texts = {"inner": make.profile("inner").encode()}
    texts |= {name: make.profile(name, ["inner"]).encode() for name in ("one", "two")}
    names = make.pick([["one"], ["one", "two"]])
    rig.hold(*names, texts=texts, **ALL)
    followed = Followed()
    for direction in DIRECTIONS * 2:
        frames = make.conversations(150)
        assert differences(rig, names, ALL, frames, direction, followed=followed) == []
    rig.rig.enforcer.remove(rig.guest.index)
    assert rig.rig.alarms == []


@pytest.mark.parametrize(
    "names",
    [[name.removesuffix(".yaml")] for name in shipped() if name != "rate-limited.yaml"]
    + [["no-broadcast", "no-multicast", "clean-traffic"]],
    ids=",".join,
)
def test_shipped_profiles_decide_as_the_evaluator_does(rig, names):
    rig.hold(*names, **SHIPPED)
    library = library_of(rig.rig.enforcer.target.profiles)
    frames = Maker(random.Random(",".join(names))).frames(300)
    frames += guided(library, names, SHIPPED, rounds=4000)
    frames = list(dict.fromkeys(frames))
    for direction in DIRECTIONS:
        assert differences(rig, names, SHIPPED, frames, direction) == []
