"""A description compiled for the monitor: everything a step looks up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.protocol.conditions import SIDES, all_of, references
from broker.protocol.instances import described_names, key_names
from broker.protocol.product import Product
from broker.protocol.rule import ALWAYS, Ends, keeper
from broker.protocol.rules import compile_rules, defaults_of
from broker.protocol.states import BY_WORD, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.protocol.conditions import Test
    from broker.protocol.form import KeyForm
    from broker.protocol.parties import Party
    from broker.protocol.rule import Name, Rule
    from broker.protocol.spec import Spec

_DRIVER_OF: Final[dict[str, Party]] = {"frontend": "frontend", "backend": "backend"}


class Field(msgspec.Struct, frozen=True):
    """One key of one end: what a change of it sets off.

    `frozen` are the states of both ends in which its value may not change; `removable` says
    that it may still go. `moves` is the automaton of a key that is a state of its own: what
    each value may have become.
    """

    side: int
    name: str
    described: str
    rules: tuple[int, ...]
    writers: frozenset[str]
    party: Party
    frozen: tuple[int, int] | None
    removable: bool
    moves: Mapping[bytes, frozenset[bytes]] | None
    secret: bool
    times: bool


class Deadline(msgspec.Struct, frozen=True):
    """Who has to leave these states of both ends, and within how many seconds."""

    name: str
    owner: Party
    within: int
    masks: tuple[int, int]
    when: Test | None
    says: str


class Gate(msgspec.Struct, frozen=True):
    """What one end may not come into a state without."""

    side: int
    into: int
    is_open: Test


class Tables:
    """A description's tables; they never change, so that all channels of a class share them."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.product = Product(spec)
        self.has_machine = self.product.front.has_machine, self.product.back.has_machine
        self.rules: tuple[Rule, ...] = tuple(compile_rules(spec))
        self.deadlines = tuple(_deadlines(spec))
        self.gate = _gate(spec)
        self.fields: tuple[dict[str, Field], dict[str, Field]] = ({}, {})
        self._fill_fields(spec)
        self.party_bits = {
            party: sum(1 << n for n, rule in enumerate(self.rules) if rule.party == party)
            for party in ("frontend", "backend", "both", "undetermined")
        }
        forms = (spec.form.frontend, spec.form.backend)
        self.fresh: tuple[frozenset[str], ...] = tuple(
            frozenset(name for name, key in key_names(form) if side in key.writer)
            for side, form in zip(SIDES, forms, strict=True)
        )
        """What each end's driver alone puts into its directory."""
        self._entered: dict[tuple[int, int, int, int], tuple[tuple[int, ...], int]] = {}
        self._timed: dict[tuple[int, int], tuple[int, ...]] = {}

    def entered(self, f: int, b: int, f2: int, b2: int) -> tuple[tuple[int, ...], int]:
        """Of a change of states: the rules to look at again, and the bits of those in force."""
        question = (f, b, f2, b2)
        said = self._entered.get(question)
        if said is None:
            now = [n for n, rule in enumerate(self.rules) if rule.in_force(f2, b2)]
            again = tuple(
                n for n in now if self.rules[n].stateful or not self.rules[n].in_force(f, b)
            )
            said = self._entered[question] = (again, sum(1 << n for n in now))
        return said

    def timed(self, f: int, b: int) -> tuple[int, ...]:
        """The deadlines that may run in a pair of states."""
        said = self._timed.get((f, b))
        if said is None:
            said = self._timed[f, b] = tuple(
                n
                for n, deadline in enumerate(self.deadlines)
                if deadline.masks[0] >> f & 1 and deadline.masks[1] >> b & 1
            )
        return said

    def _fill_fields(self, spec: Spec) -> None:
        by_key: dict[Name, list[int]] = {}
        for number, rule in enumerate(self.rules):
            for key in rule.keys:
                by_key.setdefault(key, []).append(number)
        timing = {
            (found.side, found.key)
            for deadline in spec.form.deadlines.values()
            for condition in deadline.when
            for found in references(condition)
        }
        ends = Ends(spec, defaults_of(spec))
        for side, form in enumerate((spec.form.frontend, spec.form.backend)):
            described = described_names(form)
            for place in sorted({*by_key, *timing, *((SIDES[side], name) for name in described)}):
                if place[0] != SIDES[side] or place[1] == "state":
                    continue
                rules = tuple(by_key.get(place, ()))
                known = described.get(place[1])
                self.fields[side][place[1]] = _field(ends, place, known, rules, place in timing)
            self.fields[side]["state"] = Field(
                side=side,
                name="state",
                described="state",
                rules=tuple(by_key.get((SIDES[side], "state"), ())),
                writers=frozenset({SIDES[side], "toolstack", "hotplug"}),
                party=_DRIVER_OF[SIDES[side]],
                frozen=None,
                removable=True,
                moves=None,
                secret=False,
                times=False,
            )


def _field(
    ends: Ends,
    place: Name,
    known: tuple[str, KeyForm] | None,
    rules: tuple[int, ...],
    times: bool,  # noqa: FBT001
) -> Field:
    side = SIDES.index(place[0])
    if known is None:  # only the other end's driver publishes it
        return Field(
            side=side,
            name=place[1],
            described=place[1],
            rules=rules,
            writers=frozenset(),
            party=_DRIVER_OF[place[0]],
            frozen=None,
            removable=True,
            moves=None,
            secret=False,
            times=times,
        )
    described, key = known
    return Field(
        side=side,
        name=place[1],
        described=described,
        rules=rules,
        writers=frozenset(map(str, key.writer)),
        party=keeper(place[0], key),
        frozen=_frozen(ends, place[0], key),
        removable=place[0] not in key.writer,
        moves=_moves(key),
        secret=key.secret,
        times=times,
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


def _deadlines(spec: Spec) -> Iterable[Deadline]:
    defaults = defaults_of(spec)
    for name, form in spec.form.deadlines.items():
        masks = [sum(1 << BY_WORD[it] for it in them) for them in (form.frontend, form.backend)]
        says = f"the {form.owner} had to move within {form.within} s"
        if form.owner == "both":
            says = f"neither end moved within {form.within} s"
        yield Deadline(
            name=f"deadline.{name}",
            owner=form.owner,
            within=form.within,
            masks=(masks[0], masks[1]),
            when=all_of(form.when, defaults, unknown=False),
            says=says,
        )


def _gate(spec: Spec) -> Gate | None:
    form = spec.form.gate
    if form is None:
        return None
    is_open = all_of(form.open_if, defaults_of(spec), unknown=False)
    if is_open is None:
        return None
    return Gate(SIDES.index(form.side), int(BY_WORD[form.into]), is_open)
