"""Protocol descriptions: the shipped ones, and what is refused."""

# ruff: noqa: E501 - tables, a case a line

from pathlib import Path

import pytest

from broker.protocol.load import load_spec
from broker.protocol.states import State
from broker.text.problems import ProblemsError

SHIPPED = sorted((Path(__file__).parents[2] / "protocol_specs").glob("*.yaml"))
WITHOUT_STATES = {"console-primary", "vchan"}
GOOD = """\
protocol: thing
header: thing.h
frontend:
  kinds: [thing]
  first: initialising
  transitions:
    initialising: [connected]
    connected: [closed]
    closed: []
backend:
  kinds: [thing, qthing]
  first: initialising
  transitions:
    initialising: [init-wait]
    init-wait: [closed]
    closed: [init-wait]
"""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda it: it.stem)
def test_shipped_descriptions_are_good_and_named_as_their_files(path):
    spec = load_spec(path.read_bytes(), str(path))
    assert spec.name == path.stem
    for side in (spec.frontend, spec.backend):
        if spec.name in WITHOUT_STATES:
            assert (side.first, side.transitions) == (State.UNKNOWN, {})
        else:
            assert side.first == State.INITIALISING
            assert {State.CONNECTED, State.CLOSED} <= side.reachable(side.first)


def test_every_class_of_split_driver_is_shipped():
    wanted = "vif vbd 9pfs pvcalls vkbd vfb console console-primary vscsi vtpm vusb vsnd vdispl"
    assert {path.stem for path in SHIPPED} == {*wanted.split(), "pci", "vchan"}


def test_a_description_says_who_may_move_where():
    spec = load_spec(GOOD.encode(), "F")
    assert (spec.name, spec.header, spec.backend.kinds) == ("thing", "thing.h", ("thing", "qthing"))
    assert spec.digest.startswith("sha256:")
    assert spec.frontend.transitions[State.CONNECTED] == {State.CLOSED}
    assert spec.frontend.reachable(State.CONNECTED) == {State.CONNECTED, State.CLOSED}
    assert spec.backend.reachable(State.CLOSED) == {State.CLOSED, State.INIT_WAIT}


CASES = [
    ("protocol: thing", "protocol: th/ing", ["F:1:11: 'th/ing' cannot name a protocol"]),
    ("[thing, qthing]", "[thing, 'q thing']", ["F:11:18: 'q thing' cannot name a kind"]),
    ("[thing, qthing]", "[]", ["F:11:3: 'kinds' is empty"]),
    ("[connected]", "[conected]", ["F:7:20: unknown state 'conected'; known: unknown, initialising, init-wait, initialised, connected, closing, closed, reconfiguring, reconfigured"]),
    ("[connected]", "[connected, initialising]", ["F:7:31: a state needs no move to itself"]),
    ("[connected]", "[connected, closing]", ["F:7:31: 'closing' has no line of its own in 'transitions'"]),
    ("closed: []", "closed: []\n    closing: [closed]", ["F:10:5: no moves lead from 'initialising' to 'closing'"]),
    ("connected: [closed]", "connected: []", ["F:7:5: no moves lead from 'initialising' to 'closed'", "F:8:5: no moves lead from 'connected' to 'closed'", "F:9:5: no moves lead from 'initialising' to 'closed'"]),
    ("header: thing.h\n", "", ["F:1:1: 'header' is missing"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted"), CASES)
def test_what_is_wrong_is_said_with_its_place(old, new, wanted):
    assert GOOD.count(old) == 1
    with pytest.raises(ProblemsError) as caught:
        load_spec(GOOD.replace(old, new).encode(), "F")
    assert [str(problem) for problem in caught.value.problems] == wanted
