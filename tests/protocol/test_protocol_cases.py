"""The recorded cases of every class: the good ones are fine, the bad ones are found as wanted."""

import json
from pathlib import Path

import pytest
from support.specs import CLASSES, monitor

from broker.protocol.replay import parse_trace, replay

CASES = Path(__file__).parents[1] / "data" / "protocol-cases"


def files(kind):
    return [
        pytest.param(path, id=f"{path.parent.name}-{path.stem}")
        for path in sorted(CASES.glob(f"*/{kind}-*.jsonl"))
    ]


def found(path):
    changes = parse_trace(path.read_bytes(), str(path))
    return [[it.party, it.rule, it.time] for it in replay(monitor(path.parent.name), changes)]


@pytest.mark.parametrize("path", files("good"))
def test_good_cases_are_fine(path):
    assert found(path) == []


@pytest.mark.parametrize("path", files("bad"))
def test_bad_cases_are_found_and_the_party_named(path):
    wanted = json.loads((path.parent / "wanted.json").read_text())
    assert found(path) == wanted[path.name] != []


def test_every_class_has_good_and_bad_cases():
    for kind in ("good", "bad"):
        assert {path.parent.name for path in CASES.glob(f"*/{kind}-*.jsonl")} == set(CLASSES)
