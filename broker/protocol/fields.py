"""The keys of both ends, compiled: what a change of each sets off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.protocol.conditions import SIDES, references
from broker.protocol.instances import described_names
from broker.protocol.rule import ALWAYS, Ends, check_for, keeper
from broker.protocol.rules import defaults_of
from broker.protocol.states import BY_WORD, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.protocol.form import KeyForm
    from broker.protocol.parties import Party
    from broker.protocol.rule import Name, Rule
    from broker.protocol.spec import Spec
    from broker.protocol.values import Check

Fields = dict[str, "Field"]
_DRIVER_OF: Final[dict[str, Party]] = {"frontend": "frontend", "backend": "backend"}


class Field(msgspec.Struct, frozen=True):
    """One key of one end.

    `check` and `type_bit` are its type and the bit of the rule about it (0: there is none).
    `rules` are all that look at it. `frozen` are the states of both ends in which its value may
    not change; `removable` says that it may still go. `moves` is the automaton of a key that is
    a state of its own: what each value may have become. `watched`: a change of it needs more
    than the rules: it is an end's state, or a deadline looks at it.
    """

    side: int
    name: str
    described: str
    rules: tuple[int, ...]
    check: Check
    party: Party
    type_bit: int = 0
    writers: frozenset[str] = frozenset()
    frozen: tuple[int, int] | None = None
    removable: bool = True
    moves: Mapping[bytes, frozenset[bytes]] | None = None
    secret: bool = False
    watched: bool = False


def fields_of(spec: Spec, rules: Sequence[Rule]) -> tuple[Fields, Fields]:
    """Every key that anything looks at, of both ends."""
    by_key: dict[Name, list[int]] = {}
    for number, rule in enumerate(rules):
        for key in rule.keys:
            by_key.setdefault(key, []).append(number)
    bits = {rule.name: 1 << number for number, rule in enumerate(rules)}
    timing = _timing(spec)
    ends = Ends(spec, defaults_of(spec))
    fields: tuple[Fields, Fields] = ({}, {})
    for side, form in enumerate((spec.form.frontend, spec.form.backend)):
        end = SIDES[side]
        described = described_names(form)
        names = {name for place, name in (*by_key, *timing) if place == end} | set(described)
        for name in sorted(names):
            place = (end, name)
            plain = Field(
                side=side,
                name=name,
                described=name,
                rules=tuple(by_key.get(place, ())),
                check=_anything,
                party=_DRIVER_OF[end],
                watched=name == "state" or place in timing,
            )
            if name in described:
                bit = bits[f"{end}.{described[name][0]}.type"]
                plain = _described(ends, plain, described[name], bit)
            fields[side][name] = plain
        if "state" not in names:
            fields[side]["state"] = _state_of_none(side)
    return fields


def _state_of_none(side: int) -> Field:
    """An end without a state machine may still show a state: it says nothing."""
    party = _DRIVER_OF[SIDES[side]]
    return Field(side=side, name="state", described="state", rules=(), check=_anything, party=party)


def _anything(_untrusted_value: bytes) -> bool:
    return True


def _timing(spec: Spec) -> set[Name]:
    """The keys that deadlines look at."""
    conditions = [it for form in spec.form.deadlines.values() for it in form.when]
    return {(found.side, found.key) for it in conditions for found in references(it)}


def _described(ends: Ends, plain: Field, known: tuple[str, KeyForm], bit: int) -> Field:
    described, key = known
    end = SIDES[plain.side]
    return msgspec.structs.replace(
        plain,
        described=described,
        check=check_for(key),
        type_bit=bit,
        writers=frozenset(map(str, key.writer)),
        party=keeper(end, key),
        frozen=_frozen(ends, end, key),
        removable=end not in key.writer,
        moves=_moves(key),
        secret=key.secret,
    )


def _frozen(ends: Ends, name: str, key: KeyForm) -> tuple[int, int] | None:
    if key.fixed is None:
        return None
    if key.fixed == "always":
        return ALWAYS, ALWAYS
    tied = ends.tied(key.fixed)
    if key.fixed == name and key.by is not None:
        tied = ends.mask(name, key.by)
    return (tied, ALWAYS) if key.fixed == SIDES[0] else (ALWAYS, tied)


def _moves(key: KeyForm) -> dict[bytes, frozenset[bytes]] | None:
    """What each value may become, in any number of moves; a new life only after its end."""
    if key.moves is None:
        return None
    moves = {
        int(BY_WORD[source]): {int(BY_WORD[target]) for target in targets}
        for source, targets in key.moves.items()
    }
    reached = {}
    for start in range(len(State)):
        found, left = {start}, [start]
        while left:
            source = left.pop()
            if source == State.CLOSED and start not in (State.CLOSING, State.CLOSED):
                continue
            for target in moves.get(source, ()):
                if target not in found:
                    found.add(target)
                    left.append(target)
        reached[b"%d" % start] = frozenset(b"%d" % state for state in found)
    return reached
