"""The rules of a description, compiled: what has to hold of what both ends show.

A rule is in force in certain states of both ends. It has one party that has to keep it; who
broke it is seen from which end's change made the difference (`broker.protocol.monitor`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol import values
from broker.protocol.conditions import (
    SIDES,
    all_of,
    compile_condition,
    states_spoken_of,
)
from broker.protocol.group_rules import group_rules
from broker.protocol.instances import key_names
from broker.protocol.rule import (
    EVER,
    Ends,
    Rule,
    check_for,
    described,
    keeper,
    looks,
    names_in,
)
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.protocol.conditions import Keys, Test
    from broker.protocol.form import KeyForm
    from broker.protocol.parties import Party
    from broker.protocol.rule import Name
    from broker.protocol.spec import Spec

_IGNORABLE: Final = ("feature-", "request-")
"""Beginnings of keys that an end may publish though nobody asks for them."""


def compile_rules(spec: Spec) -> list[Rule]:
    """Every rule of a description, always in the same order."""
    sides = dict(zip(SIDES, (spec.form.frontend, spec.form.backend), strict=True))
    ends = Ends(spec, defaults_of(spec))
    rules: list[Rule] = []
    for name, side in sides.items():
        if side.transitions is not None:
            rules.append(_state_rule(name))
        for key_name, key in side.keys.items():
            rules += _key_rules(ends, name, key_name, key)
        for group_name, group in side.groups.items():
            rules += group_rules(ends, name, str(group_name), group)
        rules += _distinct_rules(ends, name)
        rules += _misplaced_rules(ends, name)
    return [*rules, *_invariant_rules(ends)]


def defaults_of(spec: Spec) -> dict[Name, bytes]:
    """What absent keys stand for in conditions."""
    sides = zip(SIDES, (spec.form.frontend, spec.form.backend), strict=True)
    return {
        (name, key_name): key.default.encode()
        for name, side in sides
        for key_name, key in key_names(side)
        if key.default is not None
    }


def _state_rule(name: str) -> Rule:
    check = values.check_of(values.STATE)

    def broken(own: object, *_: object) -> bool:
        return isinstance(own, dict) and "state" in own and not check(own["state"])

    party: Party = "frontend" if name == SIDES[0] else "backend"
    keys = frozenset({(name, "state")})
    says = "is no state that can be written"
    return Rule(f"{name}.state.type", party, says, EVER, looks(name, broken), keys)


def _key_rules(ends: Ends, name: str, key_name: str, key: KeyForm) -> Iterator[Rule]:
    key_name = str(key_name)
    party = keeper(name, key)
    place: Name = (name, key_name)
    check = check_for(key)
    yield Rule(
        f"{name}.{key_name}.type",
        party,
        f"is not {described(key)}",
        EVER,
        looks(name, lambda own, _other, _f, _b: key_name in own and not check(own[key_name])),
        frozenset({place}),
    )
    if key.required:
        needed = all_of(key.needed_if, ends.defaults, unknown=False)

        def missing(front: Keys, back: Keys, f: int, b: int) -> bool:
            own = front if name == SIDES[0] else back
            return key_name not in own and (needed is None or needed(front, back, f, b))

        yield Rule(
            f"{name}.{key_name}.required",
            party,
            f"is missing, though the {name} has come to '{key.by}'" if key.by else "is missing",
            ends.masks(name, key.by, key.needed_if),
            missing,
            frozenset({place, *names_in(key.needed_if)}),
            stateful=any(map(states_spoken_of, key.needed_if)),
            only_if=(SIDES.index(name), key_name, False),
        )
    allowed = all_of(key.allowed_if, ends.defaults, unknown=True)
    if allowed is not None:
        may_stand = allowed

        def uncalled(front: Keys, back: Keys, f: int, b: int) -> bool:
            own = front if name == SIDES[0] else back
            return key_name in own and not may_stand(front, back, f, b)

        yield Rule(
            f"{name}.{key_name}.allowed",
            party,
            "stands there though nothing calls for it",
            ends.masks(name, key.by, key.allowed_if),
            uncalled,
            frozenset({place, *names_in(key.allowed_if)}),
            stateful=any(map(states_spoken_of, key.allowed_if)),
            only_if=(SIDES.index(name), key_name, True),
        )


def _distinct_rules(ends: Ends, name: str) -> Iterator[Rule]:
    """Grants and ports of one end are each used once."""
    party: Party = "frontend" if name == SIDES[0] else "backend"
    masks = ends.tied_masks({name})
    for kind in ends.side(name).distinct:
        names = frozenset(it for it, key in key_names(ends.side(name)) if key.type == kind)

        def doubled(own: Keys, *_: object, names: frozenset[str] = names) -> bool:
            shown = [value for key, value in own.items() if key in names]
            return len(set(shown)) < len(shown)

        yield Rule(
            f"{name}.{kind}.distinct",
            party,
            f"a {kind} is used twice",
            masks,
            looks(name, doubled),
            frozenset((name, key) for key in names),
        )


def _misplaced_rules(ends: Ends, name: str) -> Iterator[Rule]:
    """What only the other end's driver publishes does not stand in this end's directory."""
    party: Party = "frontend" if name == SIDES[0] else "backend"
    other = SIDES[1] if name == SIDES[0] else SIDES[0]
    own_keys = {str(key_name) for key_name in ends.side(name).keys}
    for key_name, key in ends.side(other).keys.items():
        if key_name in own_keys or other not in key.writer or key_name.startswith(_IGNORABLE):
            continue
        text = str(key_name)

        def present(own: Keys, *_: object, text: str = text) -> bool:
            return text in own

        yield Rule(
            f"{name}.{text}.misplaced",
            party,
            f"is the {other}'s to publish, in its own directory",
            EVER,
            looks(name, present),
            frozenset({(name, text)}),
        )


def _invariant_rules(ends: Ends) -> Iterator[Rule]:
    for name, invariant in ends.spec.form.invariants.items():
        conditions = (invariant.holds, *invariant.when)
        holds = compile_condition(invariant.holds, ends.defaults, unknown=True)
        when = all_of(invariant.when, ends.defaults, unknown=False)
        keys = names_in(conditions)

        yield Rule(
            f"invariant.{name}",
            invariant.blame,
            f"does not hold: {escape(str(name))}",
            ends.tied_masks({side for side, _ in keys}),
            _unless(holds, when),
            frozenset(keys),
            stateful=any(map(states_spoken_of, conditions)),
        )


def _unless(holds: Test, when: Test | None) -> Test:
    def broken(front: Keys, back: Keys, f: int, b: int) -> bool:
        return (when is None or when(front, back, f, b)) and not holds(front, back, f, b)

    return broken
