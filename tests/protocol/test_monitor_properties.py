"""No sequence of snapshots crashes the monitor, or has a party blamed for the other's writes."""

from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.specs import CLASSES, monitor, spec

from broker.protocol.conditions import SIDES, all_of, compile_condition
from broker.protocol.instances import described_names
from broker.protocol.rules import defaults_of
from broker.sim.protocol_pair import Pair

VALUES = st.one_of(
    st.sampled_from([b"", b"0", b"1", b"2", b"4", b"64", b"connected", b"1,2", b"\xff\x00", b"-1"]),
    st.integers(0, 2**33).map(lambda number: b"%d" % number),
    st.binary(max_size=600),
)
STATES = st.sampled_from([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"x"])
WITH_STATES = [it for it in CLASSES if spec(it).frontend.transitions]


def keys_of(name, side):
    return sorted(monitor(name)._tables.fields[SIDES.index(side)])[:200]


def write(name, side):
    """(key, value or None to remove it) of one write into an end's directory."""
    some = st.tuples(st.sampled_from(keys_of(name, side)), st.none() | VALUES)
    state = st.tuples(st.just("state"), st.none() | STATES)
    return st.one_of(some, state, st.tuples(st.text(max_size=8), VALUES))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(CLASSES), st.data())
def test_whatever_both_ends_show_there_is_a_verdict(name, data):
    life = monitor(name).begin()
    shown = {"frontend": {}, "backend": {}}
    writers = st.sampled_from([*SIDES, "toolstack", "hotplug"])
    for _ in range(data.draw(st.integers(1, 12))):
        known = {}
        for side in SIDES:
            shown[side] = dict(shown[side])
            for key, value in data.draw(st.lists(write(name, side), max_size=4)):
                shown[side].pop(key, None)
                if value is not None:
                    shown[side][key] = value
                if data.draw(st.booleans()):
                    known[side, key] = data.draw(writers)
        now = data.draw(st.floats(-10, 1e6))
        life, found = monitor(name).step(life, now, shown["frontend"], shown["backend"], known)
        assert all(it.evidence.isascii() and it.evidence.isprintable() for it in found)
        assert all(it.party in (*SIDES, "both", "undetermined") for it in found)
        assert len(found) <= len(monitor(name).rule_names())


class Hostile(Pair):
    """A pair one of whose ends writes what it likes; the other goes on as it should."""

    def __init__(self, name, example, hostile):
        super().__init__(spec(name), example)
        self.name = name
        self.hostile = hostile
        self.good = SIDES[1 - SIDES.index(hostile)]

    def answer(self):
        """The well-behaved end does what the description has it do next, if anything."""
        own, other = self.state(self.good), self.state(self.hostile)
        if other in (0, 5, 6) and own not in (0, 1, 5, 6):
            self.move(self.good, 5)
        elif own == 5:
            self.move(self.good, 6)
        # A careful frontend asks for nothing before it has seen what is offered.
        elif other in (2, 3, 4) or (own < 2 and self.good == "backend"):
            target = self.next_state(self.good)
            if target is not None:
                self.move_if_offered(target)

    def move_if_offered(self, target):
        """Move on, but wait where that would ask for what the other end does not offer now."""
        before = len(self.changes), dict(self.directories[self.good]), self.now
        self.move(self.good, target)
        shown = [*map(self.bytes_of, SIDES), *map(self.state, SIDES)]
        asked = (*self.directories[self.good], None)
        if not all(test(*shown) for key, test in agreements(self.name, self.good) if key in asked):
            del self.changes[before[0] :]
            _, self.directories[self.good], self.now = before


@cache
def agreements(name, side):
    """(key or None, test) of what has to hold by this end's doing: always, or if a key stands."""
    defaults = defaults_of(spec(name))
    found = []
    for invariant in spec(name).form.invariants.values():
        if invariant.blame == side:
            when = all_of(invariant.when, defaults, unknown=False) or (lambda *_: True)
            holds = compile_condition(invariant.holds, defaults, unknown=True)
            found.append((None, lambda *shown, a=when, b=holds: not a(*shown) or b(*shown)))
    for key, (_, form) in described_names(getattr(spec(name).form, side)).items():
        if form.allowed_if:
            found.append((key, all_of(form.allowed_if, defaults, unknown=True)))
    return found


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(WITH_STATES), st.sampled_from(SIDES), st.data())
def test_nobody_is_blamed_for_what_the_other_end_wrote(name, hostile, data):
    examples = list(spec(name).form.examples.values())
    pair = Hostile(name, data.draw(st.sampled_from(examples)), hostile)
    pair.create()
    pair.open_gate()
    life = monitor(name).begin()
    blamed = set()
    seen = 0

    def look():
        nonlocal life, seen
        pace = data.draw(st.sampled_from([1, 1, 1, 3, 100]))
        shown = {"frontend": {}, "backend": {}}
        # Seen after every write, or only now and then.
        for number, change in enumerate(pair.changes, 1):
            shown[change.side] = dict(shown[change.side])
            shown[change.side].pop(change.key, None)
            if change.value is not None:
                shown[change.side][change.key] = change.value.encode("utf-8", "replace")
            if number > seen and (number % pace == 0 or number == len(pair.changes)):
                life, found = monitor(name).step(life, change.t, *shown.values())
                blamed.update((it.party, it.rule, it.evidence) for it in found)
        seen = len(pair.changes)

    for _ in range(data.draw(st.integers(1, 10))):
        key, value = data.draw(write(name, hostile))
        pair.write(hostile, key, None if value is None else value.decode("latin-1"))
        look()
        pair.answer()
        look()
    assert {it for it in blamed if it[0] == pair.good} == set()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(WITH_STATES), st.randoms(use_true_random=False))
def test_ends_that_move_as_described_are_never_blamed_whatever_is_missed(name, draw):
    """Each end may act on anything it saw in its life; what shows a new life is looked at."""
    ends = [spec(name).frontend, spec(name).backend]
    states, seen = [1, 1], [{1}, {1}]
    life = monitor(name).begin()
    moved = []
    for now in range(draw.randint(2, 40)):
        side = draw.randrange(2)
        targets = [
            target
            for target in ends[side].transitions[states[side]]
            if not ends[side].needs.get(target) or ends[side].needs[target] & seen[side]
        ]
        if now and targets:
            target = draw.choice(sorted(targets))
            if target == ends[side].first or (states[side] == 6 and target != 5):
                seen[side] = {states[1 - side]}
            states[side] = int(target)
            seen[1 - side].add(target)
            moved.append(tuple(states))
        if now == 0 or {5, 6, 7} & set(states) or draw.random() < 0.4:
            shown = [{"state": b"%d" % state} for state in states]
            life, found = monitor(name).step(life, now, *shown)
            wrong = [it for it in found if ".state." in it.rule or it.rule == "state.early"]
            assert wrong == [], moved
