"""What real Linux 6.1 drivers did on real Xen 4.17 gives no alarm, however it is looked at."""

import itertools
import random

import pytest
from support.dumps import DUMPS
from support.specs import monitor
from support.traces import devices_dumped, dumped, jsonl, real_trace

from broker.protocol.replay import parse_trace, replay

TRACED = [
    ("vif", ("vif", 1, 0)),
    ("vif", ("vif", 2, 0)),
    ("vbd", ("vbd", 1, 51712)),
    ("console-primary", ("console", 1, 0)),
    ("console-primary", ("console", 2, 0)),
]
DUMPED = [
    pytest.param(path.stem, device, id=f"{path.stem}-{'-'.join(map(str, device))}")
    for path in sorted(DUMPS.glob("[0-9]*-*.txt"))
    for device in devices_dumped(path.stem)
]


def violations(name, lines):
    return replay(monitor(name), parse_trace(jsonl(lines), "trace"))


@pytest.mark.parametrize(("name", "device"), TRACED)
@pytest.mark.parametrize("how", list(itertools.product([False, True], repeat=2)))
def test_the_traced_run_is_fine(name, device, how):
    lines = real_trace(*device, by_second=how[0], with_writers=how[1])
    assert len(lines) > 20
    assert violations(name, lines) == []


@pytest.mark.parametrize(("name", "device"), TRACED)
def test_it_is_fine_whichever_moments_are_missed(name, device):
    lines = real_trace(*device)
    draw = random.Random(str(device))
    # Moments far apart stay apart: who had to move would have been looked at in between.
    pauses = [n for n in range(1, len(lines)) if lines[n]["t"] - lines[n - 1]["t"] > 2]
    for _ in range(100):
        missed = draw.sample(range(1, len(lines)), draw.randint(1, len(lines) - 1))
        cuts = sorted({*missed, *pauses})
        seen = []
        for start, end in itertools.pairwise([0, *cuts, len(lines)]):
            together = [{**line, "t": lines[end - 1]["t"]} for line in lines[start:end]]
            seen += together
        assert violations(name, seen) == []


@pytest.mark.parametrize(("name", "device"), DUMPED)
def test_every_dumped_device_is_fine(name, device):
    lines = dumped(name, *device)
    assert len(lines) > 10
    described = "console-primary" if device[0] == "console" else device[0]
    assert violations(described, lines) == []


def test_devices_of_all_dumps_are_looked_at():
    assert len(DUMPED) > 20
