"""What is wrong with a description's conditions, invariants, deadlines, gate and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol.conditions import PAIRS, SIDES, forms_given, reference, references
from broker.protocol.instances import key_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.protocol.form import ConditionForm, DeadlineForm, InvariantForm, SideForm, SpecForm
    from broker.protocol.notes import Notes
    from broker.text.marked_yaml import Text

_OPERANDS: Final = 2


class RuleChecker:
    """Checks everything that speaks of keys and of pairs of states."""

    def __init__(self, form: SpecForm, notes: Notes) -> None:
        self._form = form
        self._notes = notes
        sides = (form.frontend, form.backend)
        self._keys = {
            (name, key)
            for name, side in zip(SIDES, sides, strict=True)
            for key in (*_names(side), "state")
        }
        self._states = {
            name: set(map(str, side.transitions or {}))
            for name, side in zip(SIDES, sides, strict=True)
        }

    def check(self) -> None:
        """Note every problem."""
        form = self._form
        for side in (form.frontend, form.backend):
            keys = [*side.keys.values()]
            for group in side.groups.values():
                keys += group.keys.values()
                self._conditions(group.only_if)
                for text in group.count:
                    self._operand(text)
            for key in keys:
                self._conditions(key.needed_if)
                self._conditions(key.allowed_if)
        for invariant in form.invariants.values():
            self._invariant(invariant)
        self._deadlines()
        self._gate()
        for example in form.examples.values():
            self._assignments(example)

    def _conditions(self, conditions: Iterable[ConditionForm]) -> None:
        for condition in conditions:
            self._condition(condition)

    def _condition(self, condition: ConditionForm) -> None:
        notes = self._notes
        given = forms_given(condition)
        if len(given) != 1:
            notes.bad(condition, f"a condition is one thing, not {len(given)}")
            return
        for found in references(condition):
            self._known(found.side, found.key, found.place)
        for name in PAIRS:
            pair = getattr(condition, name)
            if pair is not None and len(pair) != _OPERANDS:
                notes.bad(condition, f"'{name}' takes two operands")
        for side, states in (condition.state or {}).items():
            if notes.one_of(side, SIDES, "end"):
                self._own_states(side, states)
        inner = (*(condition.any or ()), *(condition.all or ()))
        self._conditions((*inner, *([condition.inverse] if condition.inverse else ())))

    def _operand(self, text: Text) -> None:
        found = reference(text)
        if found is not None:
            self._known(found.side, found.key, text)
        elif not text.isdecimal():
            self._notes.bad(text, f"'{self._notes.show(text)}' is neither a key nor a number")

    def _known(self, side: str, key: str, place: Text) -> None:
        if not side:
            said = f"'{self._notes.show(place)}' is no key: write frontend/KEY or backend/KEY"
            self._notes.bad(place, said)
        elif (side, key) not in self._keys:
            self._notes.bad(place, f"the {side} has no key '{self._notes.show(key)}'")

    def _own_states(self, side: str, states: Iterable[Text]) -> None:
        for state in states:
            known = self._notes.states([state])
            if known and state != "unknown" and state not in self._states[side]:
                self._notes.bad(state, f"the {side} is never '{state}'")

    def _invariant(self, invariant: InvariantForm) -> None:
        self._condition(invariant.holds)
        self._conditions(invariant.when)
        if not invariant.broken_by:
            self._notes.bad(invariant, "'broken_by' has to give values that break it")
        self._assignments(invariant.broken_by)

    def _assignments(self, values: dict[Text, Text]) -> None:
        for text in values:
            found = reference(text)
            self._known(*((found.side, found.key) if found else ("", text)), text)

    def _deadlines(self) -> None:
        notes = self._notes
        owners: dict[tuple[str, str], tuple[Text, DeadlineForm]] = {}
        for text, deadline in self._form.deadlines.items():
            self._conditions(deadline.when)
            self._own_states(SIDES[0], deadline.frontend)
            self._own_states(SIDES[1], deadline.backend)
            self._owner_can_move(deadline)
            for pair in ((f, b) for f in deadline.frontend for b in deadline.backend):
                before = owners.setdefault((str(pair[0]), str(pair[1])), (text, deadline))
                same = before[1].owner == deadline.owner or before[1].when or deadline.when
                if not same:
                    said = f"not determined who has to move in {pair[0]}/{pair[1]}: "
                    said += f"'{before[0]}' names the other end"
                    notes.bad(text, said)

    def _owner_can_move(self, deadline: DeadlineForm) -> None:
        for name, side in zip(SIDES, (self._form.frontend, self._form.backend), strict=True):
            if deadline.owner in (name, "both"):
                states = deadline.frontend if name == SIDES[0] else deadline.backend
                for state in states:
                    if not any((side.transitions or {}).get(state, ())):
                        self._notes.bad(state, f"the {name} cannot leave '{state}'")

    def _gate(self) -> None:
        gate = self._form.gate
        if gate is None:
            return
        if self._notes.one_of(gate.side, SIDES, "end"):
            self._own_states(gate.side, [gate.into])
        self._conditions(gate.open_if)
        if not gate.open_if:
            self._notes.bad(gate, "'open_if' has to say when it is open")
        self._assignments(gate.opened_by)


def _names(side: SideForm) -> list[str]:
    """Every key's name; none where a template is no good, which is said elsewhere."""
    try:
        return [name for name, _ in key_names(side)]
    except (IndexError, ValueError, KeyError):
        return [*side.keys]
