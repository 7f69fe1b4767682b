"""Channels that go wrong: for every rule of a description, traces that break it.

Driven by the description alone, like the well-behaved pairs they start from. Each mutation is
one error of one party; what is expected is that the monitor names the rule, and no party but
the one that erred.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from broker.protocol.conditions import SIDES
from broker.protocol.instances import expanded
from broker.protocol.product import Product
from broker.protocol.rule import keeper
from broker.protocol.states import BY_WORD
from broker.protocol.tables import Tables
from broker.sim.protocol_pair import LEFT_OUT, Pair
from broker.sim.protocol_values import bad_values, other_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.protocol.form import KeyForm, SideForm
    from broker.protocol.parties import Party
    from broker.protocol.replay import Change
    from broker.protocol.spec import Spec

_STATES = range(1, 9)


class Mutation(msgspec.Struct, frozen=True):
    """A trace with one error in it: the rule it breaks, and the party that made it."""

    rule: str
    party: Party
    what: str
    changes: tuple[Change, ...]


class Mutations:
    """All mutations of one description."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._tables = Tables(spec)
        self._product = Product(spec)
        self._sides: dict[str, SideForm] = {
            "frontend": spec.form.frontend,
            "backend": spec.form.backend,
        }
        self._examples: list[dict[str, str]] = [
            {str(key): str(value) for key, value in it.items()}
            for it in spec.form.examples.values()
        ] or [{}]
        # What each example's ends show once they are connected.
        self._shown = [self._connected(example).directories for example in self._examples]

    def all(self) -> Iterator[Mutation]:
        """Every one, rule by rule."""
        for side, form in self._sides.items():
            for name, key in self._templates(side):
                yield from self._of_key(side, name, key)
            for kind in form.distinct:
                yield from self._doubled(side, str(kind))
            yield from self._misplaced(side)
            yield from self._foreign(side)
            if form.transitions is not None:
                yield from self._of_states(side)
        for group_rule in [rule.name for rule in self._tables.rules if rule.name[-6:] == ".exact"]:
            yield from self._beyond(group_rule)
        yield from self._ungated()
        yield from self._invariants()
        yield from self._stalls()

    def of_key(self, side: str, name: str) -> Iterator[Mutation]:
        """Those of one key of one end; none where it has no such key."""
        for known, key in self._templates(side):
            if known == name:
                yield from self._of_key(side, name, key)

    def _templates(self, side: str) -> Iterator[tuple[str, KeyForm]]:
        yield from ((str(name), key) for name, key in self._sides[side].keys.items())
        for group in self._sides[side].groups.values():
            yield from ((str(name), key) for name, key in group.keys.items())

    def _of_key(self, side: str, name: str, key: KeyForm) -> Iterator[Mutation]:
        yield from self._mistyped(side, name, key)
        if key.required:
            yield from self._omitted(side, name, key)
        if key.allowed_if:
            yield from self._uncalled(f"{side}.{name}.allowed", side, self._names(side, name), key)
        if key.fixed is not None:
            yield from self._changed(side, name, key)
        if key.moves is not None:
            yield from self._moved(side, name, key)

    def _names(self, side: str, name: str) -> list[str]:
        """The full names a key may have, few of them."""
        for group in self._sides[side].groups.values():
            if name in group.keys:
                names = list(expanded(group, name))
                return [*names[:4], *names[-1:]]
        return [name]

    def _connected(self, example: Mapping[str, str]) -> Pair:
        pair = Pair(self._spec, example)
        pair.create()
        pair.connect()
        return pair

    def _made(self, rule: str, party: Party, what: str, pair: Pair) -> Mutation:
        return Mutation(rule, party, what, tuple(pair.changes))

    def _broken(self, rule: str, pair: Pair) -> bool:
        """Whether this rule is broken by what a pair shows now."""
        found = next(it for it in self._tables.rules if it.name == rule)
        f, b = (pair.state(side) for side in SIDES)
        shown = [pair.bytes_of(side) for side in SIDES]
        return found.in_force(f, b) and found.broken(shown[0], shown[1], f, b)

    def _with(self, side: str, name: str, key: KeyForm) -> tuple[Pair, str]:
        """A connected pair that shows a key, and the key's full name."""
        names = self._names(side, name)
        for example, shown in zip(self._examples, self._shown, strict=True):
            present = [it for it in names if it in shown[side]]
            if present:
                return self._connected(example), present[0]
        for example in self._examples:
            given = {**example, f"{side}/{names[0]}": Pair(self._spec).valid(key)}
            pair = self._connected(given)
            rule = f"{side}.{name}.allowed"
            if not key.allowed_if or not self._broken(rule, pair):
                if names[0] not in pair.directories[side]:
                    pair.write(side, names[0], given[f"{side}/{names[0]}"])
                return pair, names[0]
        return pair, names[0]

    def _mistyped(self, side: str, name: str, key: KeyForm) -> Iterator[Mutation]:
        for value in bad_values(key):
            pair, full = self._with(side, name, key)
            pair.write(side, full, value)
            what = f"{full}={value[:20]!r}"
            yield self._made(f"{side}.{name}.type", keeper(side, key), what, pair)

    def _omitted(self, side: str, name: str, key: KeyForm) -> Iterator[Mutation]:
        examples = zip(self._examples, self._shown, strict=True)
        for (example, shown), full in itertools.product(examples, self._names(side, name)):
            if full not in shown[side]:
                continue
            pair = self._connected({**example, f"{side}/{full}": LEFT_OUT})
            yield self._made(f"{side}.{name}.required", keeper(side, key), f"no {full}", pair)
            return

    def _uncalled(self, rule: str, side: str, names: list[str], key: KeyForm) -> Iterator[Mutation]:
        examples = zip(self._examples, self._shown, strict=True)
        for (example, shown), full in itertools.product(examples, names):
            if full in shown[side]:
                continue
            pair = self._connected(example)
            pair.write(side, full, pair.valid(key))
            if self._broken(rule, pair):
                yield self._made(rule, keeper(side, key), f"{full} uncalled for", pair)
                return

    def _beyond(self, rule: str) -> Iterator[Mutation]:
        side, group_name, _ = rule.split(".")
        group = next(it for name, it in self._sides[side].groups.items() if name == group_name)
        name, key = next(iter(group.keys.items()))
        yield from self._uncalled(rule, side, list(expanded(group, name))[:40], key)

    def _changed(self, side: str, name: str, key: KeyForm) -> Iterator[Mutation]:
        pair, full = self._with(side, name, key)
        value = other_value(key, pair.directories[side][full], pair.valid(key))
        pair.write(side, full, value)
        yield self._made(f"{side}.{name}.fixed", keeper(side, key), f"{full} changed", pair)

    def _moved(self, side: str, name: str, key: KeyForm) -> Iterator[Mutation]:
        for source, target in itertools.permutations(_STATES, 2):
            pair, full = self._with(side, name, key)
            moves = self._tables.fields[SIDES.index(side)][full].moves or {}
            if b"%d" % target in moves[b"%d" % source] or not moves[b"%d" % source] - {
                b"%d" % source
            }:
                continue
            pair = self._connected({**self._examples[0], f"{side}/{full}": str(source)})
            pair.write(side, full, str(source))
            pair.write(side, full, str(target))
            what = f"{full} from {source} to {target}"
            yield self._made(f"{side}.{name}.move", keeper(side, key), what, pair)

    def _doubled(self, side: str, kind: str) -> Iterator[Mutation]:
        for example in self._examples:
            pair = self._connected(example)
            shown = [
                name
                for name, (_, key) in pair.described[side].items()
                if key.type == kind and name in pair.directories[side]
            ]
            if len(shown) > 1:
                pair.write(side, shown[1], pair.directories[side][shown[0]])
                what = f"{shown[1]} as {shown[0]}"
                yield self._made(f"{side}.{kind}.distinct", _party(side), what, pair)
                return

    def _misplaced(self, side: str) -> Iterator[Mutation]:
        other = _other(side)
        for name, key in self._sides[other].keys.items():
            rule = f"{side}.{name}.misplaced"
            if any(it.name == rule for it in self._tables.rules):
                pair = self._connected(self._examples[0])
                pair.write(side, str(name), pair.valid(key))
                yield self._made(rule, _party(side), f"{name} at the {side}", pair)

    def _foreign(self, side: str) -> Iterator[Mutation]:
        """The other end writes into this end's directory."""
        other = _other(side)
        for name in ("unheard-of", "state"):
            pair = self._connected(self._examples[0])
            pair.write(side, name, "6", "frontend" if other == SIDES[0] else "backend")
            yield self._made("writer", _party(other), f"{side}/{name} by the {other}", pair)

    def _of_states(self, side: str) -> Iterator[Mutation]:
        pair = self._connected(self._examples[0])
        pair.write(side, "state", "9")
        yield self._made(f"{side}.state.type", _party(side), "state=9", pair)
        end = self._product.front if side == SIDES[0] else self._product.back
        for source, target in itertools.permutations(_STATES, 2):
            again = source in end.evident
            if end.reaches(source, target, again=again):
                yield from self._early(side, source, target)
                continue
            driven = self._driven(side, source)
            if driven is not None:
                driven.write(side, "state", str(target))
                what = f"{side} from {source} to {target}"
                yield self._made(f"{side}.state.move", _party(side), what, driven)

    def _driven(self, side: str, state: int) -> Pair | None:
        """A pair with one end in a state, the other wherever it has to be."""
        for other in (4, 2, 1, 3, 5, 6, 7, 8):
            pair = Pair(self._spec, self._examples[0])
            pair.create()
            pair.open_gate()
            if pair.drive(*((state, other) if side == SIDES[0] else (other, state))):
                return pair
        return None

    def _early(self, side: str, source: int, target: int) -> Iterator[Mutation]:
        """An end moves without having seen what it needs."""
        end = self._product.front if side == SIDES[0] else self._product.back
        needs = end.needs[target]
        if not needs or target not in end.moves[source]:
            return
        for other in _STATES:
            pair = Pair(self._spec, self._examples[0])
            pair.create()
            pair.open_gate()
            if not pair.drive(*((source, other) if side == SIDES[0] else (other, source))):
                continue
            if self._may_have_shown(pair, _other(side), needs):
                continue
            pair.move(side, target)
            what = f"{side} to {target}, the other end at {other}"
            yield self._made(f"{side}.state.early", _party(side), what, pair)

    def _may_have_shown(self, pair: Pair, side: str, needs: int) -> bool:
        """Whether an end was in one of these states, or may have been between what it showed."""
        end = self._product.front if side == SIDES[0] else self._product.back
        shown = [int(it.value or 0) for it in pair.changes if (it.side, it.key) == (side, "state")]
        steps = [*itertools.pairwise(shown), (shown[-1], shown[-1])]
        return any(
            end.reaches(before, state, again=before in end.evident)
            and end.reaches(state, after, again=before in end.evident)
            for before, after in steps
            for state in _STATES
            if needs >> state & 1
        )

    def _ungated(self) -> Iterator[Mutation]:
        gate = self._spec.form.gate
        if gate is None:
            return
        into = int(BY_WORD[gate.into])
        for other in _STATES:
            pair = Pair(self._spec, self._examples[0])
            pair.create()
            if pair.drive(*((into, other) if gate.side == SIDES[0] else (other, into))):
                yield self._made("gate", _party(gate.side), "through a closed gate", pair)
                return

    def _invariants(self) -> Iterator[Mutation]:
        for name, invariant in self._spec.form.invariants.items():
            rule = f"invariant.{name}"
            broken_by = {str(key): str(value) for key, value in invariant.broken_by.items()}
            for example in self._examples:
                pair = self._connected({**example, **broken_by})
                if self._broken(rule, pair):
                    values = ", ".join(
                        f"{key}={value}" for key, value in invariant.broken_by.items()
                    )
                    yield self._made(rule, invariant.blame, values, pair)
                    break

    def _stalls(self) -> Iterator[Mutation]:
        for deadline, form in zip(
            self._tables.deadlines, self._spec.form.deadlines.values(), strict=True
        ):
            for words in itertools.product(form.frontend, form.backend):
                f, b = (int(BY_WORD[word]) for word in words)
                pair = Pair(self._spec, self._examples[0])
                pair.create()
                pair.open_gate()
                if not pair.drive(f, b):
                    continue
                shown = [pair.bytes_of(side) for side in SIDES]
                if deadline.when is not None and not deadline.when(shown[0], shown[1], f, b):
                    continue
                pair.pass_time(deadline.within + 1, SIDES[0])
                yield self._made(deadline.name, deadline.owner, f"nobody moves at {f}/{b}", pair)


def _other(side: str) -> str:
    return SIDES[1] if side == SIDES[0] else SIDES[0]


def _party(side: str) -> Party:
    return "frontend" if side == SIDES[0] else "backend"
