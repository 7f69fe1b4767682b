"""A trace as xenstored writes it, cut to one run's devices: read, and judged by the product."""

import json
import sys
from pathlib import Path

import pytest
from support.dumps import DUMPS
from support.specs import monitor

sys.path.insert(0, str(Path(__file__).parents[2]))

from broker.protocol.replay import parse_trace, replay
from tools.testbed.trace import operations, traces

TEXT = (DUMPS / "connected-by-hand.xenstored-trace.txt").read_text()
CARD = ("vif", 5, 0, 0)
"""Connected by hand, reset, and disconnected."""


def trace(text=TEXT, channel=CARD):
    return next(it for it in traces(operations(text)) if it.channel == channel)


def blamed(found, **how):
    changes = parse_trace(found.jsonl(**how).encode(), "trace")
    return {(it.party, it.rule) for it in replay(monitor(found.channel.kind), changes)}


def test_each_life_of_each_channel_is_in_it_from_start_to_end():
    lives = {it.channel: (it.begun, it.ended) for it in traces(operations(TEXT))}
    assert lives == {CARD: (2, 2), ("vbd", 5, 51712, 0): (1, 1), ("vif", 6, 0, 0): (1, 1)}


@pytest.mark.parametrize("by_second", [False, True])
def test_nobody_is_blamed(by_second):
    assert [blamed(it, by_second=by_second) for it in traces(operations(TEXT))] == [set()] * 3


@pytest.mark.parametrize(
    ("right", "wrong", "party"),
    [
        (" WRITE (device/vif/0/state 4)", " WRITE (device/vif/0/state 9)", "frontend"),
        (" WRITE (backend/vif/5/0/state 2)", " WRITE (backend/vif/5/0/state 9)", "backend"),
    ],
)
def test_who_writes_no_state_is_blamed(right, wrong, party):
    assert right in TEXT
    assert {it[0] for it in blamed(trace(TEXT.replace(right, wrong)))} == {party}


def test_a_guest_is_known_by_the_connection_its_introduction_made():
    written = [json.loads(line) for line in trace().jsonl().splitlines()]
    keys = {it["key"] for it in written if it.get("writer") == "frontend"}
    assert {"state", "event-channel-tx", "request-rx-copy"} <= keys
    assert not {"backend-id", "mac", "handle"} & keys


def told(*lines):
    head = "20260102 10:02:44"
    return "".join(f"{way} 0x{who:x} {head} {said}\n" for way, who, said in lines)


def test_what_was_refused_is_left_out():
    asked = told(
        ("IN", 1, "WRITE (/local/domain/0/backend/vif/1/0/state 1)"),
        ("IN", 1, "WRITE (/local/domain/0/backend/vif/1/0/state 9)"),
        ("OUT", 1, "WRITE (OK )"),
        ("OUT", 1, "WATCH_EVENT (/local/domain/0/backend/vif/1/0/state x )"),
        ("OUT", 1, "ERROR (EACCES )"),
    )
    assert [it.value for it in operations(asked)] == ["1"]


def test_an_answer_to_what_was_asked_before_is_passed_over():
    asked = told(
        ("OUT", 1, "ERROR (ENOENT )"), ("IN", 1, "WRITE (/a b)"), ("OUT", 1, "WRITE (OK )")
    )
    assert [(it.path, it.value) for it in operations(asked)] == [("/a", "b")]


def test_a_channel_that_does_not_end_is_not_counted_as_ended():
    found = trace(TEXT[: TEXT.rindex(" RM (/local/domain/5/device/vif/0")])
    assert (found.begun, found.ended) == (2, 1)
