"""A description compiled for the monitor: everything a step looks up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.protocol.conditions import SIDES, all_of
from broker.protocol.fields import fields_of
from broker.protocol.instances import key_names
from broker.protocol.product import Product
from broker.protocol.rules import compile_rules, defaults_of
from broker.protocol.states import BY_WORD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.protocol.conditions import Test
    from broker.protocol.fields import Field
    from broker.protocol.parties import Party
    from broker.protocol.rule import Rule
    from broker.protocol.spec import Spec

    Moved = tuple[int, int, tuple[bool, bool]]
    """What each end has seen after a change of states, and whose life began again."""
    Others = tuple[tuple[int, Test], ...]
    """Rules that look at a key: bit and test."""
    Entered = tuple[tuple[tuple[int, int, str, bool, Test], ...], int]
    """Rules by number, what they are broken only with, and their test; the bits of all in force."""


_MOST_REMEMBERED: Final = 4096


class Deadline(msgspec.Struct, frozen=True):
    """Who has to leave these states of both ends, and within how many seconds.

    It does not run while one of `peer_rules` (bits) is broken: the other end is in the wrong.
    """

    name: str
    owner: Party
    within: int
    masks: tuple[int, int]
    when: Test | None
    says: str
    peer_rules: int


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
        self.deadlines = tuple(_deadlines(spec, self.rules))
        self.gate = _gate(spec)
        self.fields = fields_of(spec, self.rules)
        forms = (spec.form.frontend, spec.form.backend)
        self.fresh: tuple[frozenset[str], ...] = tuple(
            frozenset(name for name, key in key_names(form) if side in key.writer)
            for side, form in zip(SIDES, forms, strict=True)
        )
        """What each end's driver alone puts into its directory."""
        self.legal: dict[tuple[int, int, int, int, int, int], Moved] = {}
        """Changes of states, with what was seen before, that were judged legal."""
        self._entered: dict[tuple[int, int, int, int], Entered] = {}
        self._others: dict[tuple[int, int, int], dict[str, Others]] = {}
        self._timed: dict[tuple[int, int], tuple[int, ...]] = {}

    def remember_legal(self, change: tuple[int, int, int, int, int, int], after: Moved) -> None:
        """Remember a legal change of states, up to a bound."""
        if len(self.legal) >= _MOST_REMEMBERED:
            self.legal.clear()
        self.legal[change] = after

    def entered(self, f: int, b: int, f2: int, b2: int) -> Entered:
        """Of a change of states: the rules to look at again, and the bits of those in force."""
        question = (f, b, f2, b2)
        said = self._entered.get(question)
        if said is None:
            now = [n for n, rule in enumerate(self.rules) if rule.in_force(f2, b2)]
            again = [n for n in now if self.rules[n].stateful or not self.rules[n].in_force(f, b)]
            looks = tuple(
                (n, *(self.rules[n].only_if or (0, "", True)), self.rules[n].broken) for n in again
            )
            said = self._entered[question] = (looks, sum(1 << n for n in now))
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

    def others(self, field: Field, f: int, b: int) -> Others:
        """The rules in force that look at a key, but for that on its type."""
        known = self._others.get((field.side, f, b))
        if known is None:
            known = self._others[field.side, f, b] = {}
        said = known.get(field.name)
        if said is None:
            said = known[field.name] = tuple(
                (1 << n, self.rules[n].broken)
                for n in field.rules
                if 1 << n != field.type_bit and self.rules[n].in_force(f, b)
            )
        return said


def _deadlines(spec: Spec, rules: Sequence[Rule]) -> Iterable[Deadline]:
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
            peer_rules=sum(
                1 << number
                for number, rule in enumerate(rules)
                if form.owner != "both" and rule.party in SIDES and rule.party != form.owner
            ),
        )


def _gate(spec: Spec) -> Gate | None:
    form = spec.form.gate
    if form is None:
        return None
    is_open = all_of(form.open_if, defaults_of(spec), unknown=False)
    if is_open is None:
        return None
    return Gate(SIDES.index(form.side), int(BY_WORD[form.into]), is_open)
