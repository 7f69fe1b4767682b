"""The `filtered` scenario's frames are what they say: by the evaluator, under clean-traffic."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from broker.filters.bind import bind
from broker.filters.evaluate import Asking, evaluate
from broker.filters.frame import Frame
from broker.filters.library import load_library
from tools.testbed.frames import MARK, Sender

SHIPPED = Path(__file__).parents[2] / "etc/filters"
LIBRARY = load_library({path.name: path.read_bytes() for path in SHIPPED.glob("*.yaml")})
PROFILES = ["clean-traffic"]
GIVEN = {
    "MAC": ["00:16:3e:00:00:01"],
    "IP": ["10.0.0.1"],
    "IPV6": ["fd00::1"],
    "LINK_LOCAL": ["fe80::216:3eff:fe00:1"],
}
SENDER = Sender(
    "00:16:3e:00:00:01", "10.0.0.1", "fd00::1", to=("00:16:3e:00:00:02", "10.0.0.2", "fd00::2")
)


def verdict(frame):
    environment, _ = bind(LIBRARY, PROFILES, GIVEN)
    return evaluate(Asking(LIBRARY, environment, "from-guest", Frame(frame)), PROFILES).verdict


@pytest.mark.parametrize(("what", "frame"), SENDER.honest().items())
def test_what_is_honest_passes(what, frame):
    assert verdict(frame) == "accept", what


@pytest.mark.parametrize(("what", "frame"), SENDER.spoofed().items())
def test_what_is_spoofed_does_not(what, frame):
    assert verdict(frame) == "drop", what


def test_each_frame_has_a_mark_of_its_own():
    frames = [*SENDER.honest().values(), *SENDER.spoofed().values()]
    assert all(frame[-5:-1] == MARK for frame in frames)
    assert len({frame[-1] for frame in frames}) == len(frames)
