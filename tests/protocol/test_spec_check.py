"""What `spec check` finds in a description, each at its place."""

# ruff: noqa: E501 - tables, a case a line

import pytest

from broker.protocol.load import load_spec
from broker.text.problems import ProblemsError

GOOD = """\
protocol: thing
header: thing.h
frontend:
  kinds: [thing]
  first: initialising
  transitions:
    initialising: [initialised]
    initialised: [connected, closed]
    connected: [closed]
    closed: [initialising]
  needs:
    connected: [connected]
  keys:
    count: {type: uint, range: [1, 8], writer: [frontend], default: "1", by: initialised, required: true}
    ring: {type: gref, writer: [frontend], by: initialised, required: true, needed_if: [{at_most: [frontend/count, "1"]}], fixed: frontend}
    mode: {type: enum, values: [a, b], writer: [toolstack], example: a}
    shown: {type: text, writer: [backend], read_only: true}
  groups:
    queues:
      instances: [4]
      count: [frontend/count]
      only_if: [{not: {at_most: [frontend/count, "1"]}}]
      keys:
        "queue-{}/ring": {type: gref, writer: [frontend], by: initialised, required: true}
backend:
  kinds: [thing]
  first: initialising
  transitions:
    initialising: [init-wait]
    init-wait: [connected, closed]
    connected: [closed]
    closed: [init-wait]
  needs:
    connected: [initialised]
  keys:
    most: {type: uint, writer: [backend], by: init-wait, required: true, example: "4"}
    path: {type: path, writer: [hotplug]}
gate:
  side: backend
  into: connected
  open_if: [{has: backend/path}]
  opened_by: {backend/path: /dev/a}
invariants:
  offered:
    holds: {at_most: [frontend/count, backend/most]}
    blame: frontend
    broken_by: {frontend/count: "5"}
deadlines:
  connects: {frontend: [initialised], backend: [init-wait], owner: backend, within: 30, when: [{has: backend/path}]}
examples:
  one: {}
"""

CASES = [
    # reachability, dead ends, non-determinism
    ("connected: [closed]\n    closed: [initialising]", "connected: []\n    closed: [initialising]", ["F:9:5: no moves lead from 'connected' to 'closed'"]),
    ("initialised: [connected, closed]", "initialised: [connected, connected, closed]", ["F:8:30: the move to 'connected' stands here twice"]),
    ("first: initialising\n  transitions:\n    initialising: [initialised]", "first: closed\n  transitions:\n    initialising: [initialised]", []),
    ("  first: initialising\n  transitions:\n    initialising: [init-wait]\n", "  transitions:\n    initialising: [init-wait]\n", ["F:26:3: 'first' and 'transitions' are given both, or neither"]),
    # a transition nobody can make
    ("  needs:\n    connected: [connected]", "  needs:\n    connected: [reconfigured]", ["F:12:17: the other end is never 'reconfigured', so nobody can make this move"]),
    ("  needs:\n    connected: [connected]", "  needs:\n    reconfigured: [connected]", ["F:12:5: 'reconfigured' has no line in 'transitions'"]),
    ("  needs:\n    connected: [initialised]", "  needs:\n    connected: [connected]", ["F:8:19: nobody can make this move: 'connected' needs what is never seen", "F:9:5: no moves lead from 'initialising' to 'connected'", "F:30:17: nobody can make this move: 'connected' needs what is never seen", "F:31:5: no moves lead from 'initialising' to 'connected'"]),
    # keys
    ("writer: [hotplug]", "writer: [frontend]", ["F:37:5: nobody may write 'path': here the backend, the toolstack and scripts can"]),
    ("writer: [hotplug]", "writer: []", ["F:37:5: nobody may write 'path': here the backend, the toolstack and scripts can"]),
    ("writer: [hotplug]", "writer: [hotplug, frontend]", ["F:37:42: 'frontend' cannot write here: here the backend, the toolstack and scripts can"]),
    ("writer: [hotplug]", "writer: [root]", ["F:37:33: unknown writer 'root'; known: frontend, backend, toolstack, hotplug"]),
    ("writer: [backend], read_only: true", "writer: [backend]", ["F:17:5: nobody may write 'shown': here the frontend, the toolstack and scripts can"]),
    ("type: path, writer: [hotplug]", "type: path, writer: [hotplug], read_only: true", ["F:37:11: 'read_only' is for keys of the frontend's directory"]),
    ("path: {type: path", "path: {type: pth", ["F:37:18: unknown type 'pth'; known: uint, uint64, gref, port, mfn, domid, bool, text, bytes, path, mac, uuid, devno, bdf, bus, hex, hctl, size, xenbus-state, enum, list"]),
    ("range: [1, 8]", "range: [8, 1]", ["F:14:12: 'range' is the lowest and the highest value"]),
    ("range: [1, 8]", "range: [8]", ["F:14:12: 'range' is the lowest and the highest value"]),
    ("path: {type: path", "path: {type: path, range: [1, 2]", ["F:37:18: 'range' is for numbers"]),
    ("path: {type: path", "path: {type: path, values: [x]", ["F:37:18: 'values' is for enum and list"]),
    ("values: [a, b], writer: [toolstack], example: a", "writer: [toolstack]", ["F:16:18: an enum needs its 'values'"]),
    ("example: a}", "example: c}", ["F:16:70: 'c' is no enum as described"]),
    ('default: "1"', 'default: "9"', ["F:14:69: '9' is no uint as described"]),
    ("writer: [backend], by: init-wait", "writer: [backend], by: initialised", ["F:36:47: the backend is never 'initialised'"]),
    ("writer: [backend], by: init-wait, ", "writer: [backend], ", ["F:36:11: 'required' needs 'by': the state by which it has to be there"]),
    ("writer: [backend], by: init-wait", "writer: [toolstack], by: init-wait", ["F:36:11: 'required' is for what the backend's driver writes"]),
    ("by: initialised, required: true, needed_if", "by: initialised, needed_if", ["F:15:73: 'needed_if' is for a key that is 'required'"]),
    ("fixed: frontend", "fixed: never", ["F:15:131: unknown word for 'fixed' 'never'; known: frontend, backend, always"]),
    ("path: {type: path", "path: {type: path, moves: {closed: [shut]}", ["F:37:18: 'moves' is for keys of type xenbus-state", "F:37:41: unknown state 'shut'; known: unknown, initialising, init-wait, initialised, connected, closing, closed, reconfiguring, reconfigured"]),
    ("    mode:", "    state:", ["F:16:5: 'state' cannot name a key here"]),
    ("    mode:", "    mo{}de:", ["F:16:5: 'mo{}de' cannot name a key here"]),
    # numbered keys
    ('"queue-{}/ring":', '"queue/ring":', ["F:24:9: 'queue/ring' needs '{}' 1 times"]),
    ('"queue-{}/ring":', '"queue-{}}/ring":', ["F:24:9: 'queue-{}}/ring' cannot name a key here", "F:24:9: 'queue-{}}/ring' needs '{}' 1 times"]),
    ('"queue-{}/ring":', '"queue-{{}/ring":', ["F:24:9: 'queue-{{}/ring' cannot name a key here", "F:24:9: 'queue-{{}/ring' needs '{}' 1 times"]),
    ("instances: [4]", "instances: [256, 256]", ["F:20:7: 'instances' has to give 1 to 1024 in all", "F:21:15: 'count' has to give 2, as 'instances' does", "F:24:9: 'queue-{}/ring' needs '{}' 2 times"]),
    ("count: [frontend/count]", "count: [frontend/coun]", ["F:21:15: the frontend has no key 'coun'"]),
    ("count: [frontend/count]", "count: [many]", ["F:21:15: 'many' is neither a key nor a number"]),
    ("    mode: {", '    "queue-3/ring": {', ["F:24:9: 'queue-3/ring' is described twice, here and on line 16"]),
    ("      count: [frontend/count]", '      each: "q-{}"\n      count: [frontend/count]', ["F:21:13: 'q-{}' is no key of this group"]),
    # conditions and invariants over unknown keys
    ("holds: {at_most: [frontend/count, backend/most]}", "holds: {at_most: [frontend/count, backend/mst]}", ["F:45:39: the backend has no key 'mst'"]),
    ("holds: {at_most: [frontend/count, backend/most]}", "holds: {at_most: [frontend/count]}", ["F:45:12: 'at_most' takes two operands"]),
    ("holds: {at_most: [frontend/count, backend/most]}", "holds: {has: frontend/count, lacks: frontend/ring}", ["F:45:12: a condition is one thing, not 2"]),
    ("holds: {at_most: [frontend/count, backend/most]}", "holds: {}", ["F:45:12: a condition is one thing, not 0"]),
    ("holds: {at_most: [frontend/count, backend/most]}", "holds: {has: count}", ["F:45:18: 'count' is no key: write frontend/KEY or backend/KEY"]),
    ("holds: {at_most: [frontend/count, backend/most]}", "holds: {state: {backend: [closing]}}", ["F:45:31: the backend is never 'closing'"]),
    ("broken_by: {frontend/count", "broken_by: {frontend/kount", ["F:47:17: the frontend has no key 'kount'"]),
    ('broken_by: {frontend/count: "5"}', "broken_by: {}", ["F:45:5: 'broken_by' has to give values that break it"]),
    ("blame: frontend", "blame: nobody", ["F:46:12: expected frontend or backend or both, not 'nobody'"]),
    ("when: [{has: backend/path}]", "when: [{has: backend/pth}]", ["F:49:102: the backend has no key 'pth'"]),
    # a deadline without an owner, or whose owner cannot move
    ("owner: backend, ", "", ["F:49:13: 'owner' is missing"]),
    ("owner: backend,", "owner: nobody,", ["F:49:68: expected frontend or backend or both, not 'nobody'"]),
    ("backend: [init-wait], owner", "backend: [reconfigured], owner", ["F:49:49: the backend cannot leave 'reconfigured'", "F:49:49: the backend is never 'reconfigured'"]),
    (", when: [{has: backend/path}]}", "}\n  other: {frontend: [initialised], backend: [init-wait], owner: frontend, within: 30}", ["F:50:3: not determined who has to move in initialised/init-wait: 'connects' names the other end"]),
    ("within: 30", "within: 0", ["F:49:85: Expected `int` >= 1"]),
    # gate and examples
    ("into: connected", "into: reconfigured", ["F:40:9: the backend is never 'reconfigured'"]),
    ("open_if: [{has: backend/path}]", "open_if: []", ["F:39:3: 'open_if' has to say when it is open"]),
    ("opened_by: {backend/path", "opened_by: {backend/pth", ["F:42:15: the backend has no key 'pth'"]),
    ("one: {}", 'one: {path: "x"}', ["F:51:9: 'path' is no key: write frontend/KEY or backend/KEY"]),
]  # fmt: skip


def test_the_description_the_cases_start_from_is_good():
    load_spec(GOOD.encode(), "F")


@pytest.mark.parametrize(("old", "new", "wanted"), CASES)
def test_what_is_wrong_is_found_at_its_place(old, new, wanted):
    assert GOOD.count(old) == 1
    try:
        load_spec(GOOD.replace(old, new).encode(), "F")
    except ProblemsError as error:
        found = [str(problem) for problem in error.problems]
    else:
        found = []
    assert found == wanted
