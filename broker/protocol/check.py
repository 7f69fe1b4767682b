"""What is wrong with a description, all of it, each at its place: the whole and its automata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.protocol.check_keys import KeyChecker
from broker.protocol.check_rules import RuleChecker
from broker.protocol.conditions import SIDES
from broker.protocol.notes import Notes
from broker.protocol.states import BY_WORD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.protocol.form import SideForm, SpecForm
    from broker.text.marked_yaml import Text
    from broker.text.problems import Problem

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


class Checker:
    """Checks one description as it was written."""

    def __init__(self, source: str, form: SpecForm) -> None:
        self._notes = Notes(source)
        self._form = form

    def problems(self) -> list[Problem]:
        """Everything that is wrong."""
        form, notes = self._form, self._notes
        self._names([form.protocol], "protocol")
        good = [self._automaton_is_named(side) for side in (form.frontend, form.backend)]
        if all(good):
            for side, other in ((form.frontend, form.backend), (form.backend, form.frontend)):
                self._needs(side, other)
        if not notes.problems:
            moves = _Moves(form)
            for name, side in zip(SIDES, (form.frontend, form.backend), strict=True):
                self._automaton(name, side, moves)
        KeyChecker(form, notes).check()
        RuleChecker(form, notes).check()
        return notes.problems

    def _names(self, texts: Iterable[Text], what: str) -> None:
        for text in texts:
            if not _NAME.fullmatch(text):
                self._notes.bad(text, f"'{self._notes.show(text)}' cannot name a {what}")

    def _automaton_is_named(self, side: SideForm) -> bool:
        """Every state in it is one, and it has all its parts."""
        notes = self._notes
        if not side.kinds:
            notes.bad(side, "'kinds' is empty")
        self._names(side.kinds, "kind")
        if (side.first is None) != (side.transitions is None):
            notes.bad(side, "'first' and 'transitions' are given both, or neither")
            return False
        if side.transitions is None:
            if side.needs:
                notes.bad(side, "'needs' of an end without 'transitions'")
            return not side.needs
        good = notes.states([side.first] if side.first is not None else [])
        for source, targets in side.transitions.items():
            good &= notes.states([source, *targets])
        for state, seen in side.needs.items():
            good &= notes.states([state, *seen])
        return good

    def _needs(self, side: SideForm, other: SideForm) -> None:
        for state, seen in side.needs.items():
            if state not in (side.transitions or {}):
                self._notes.bad(state, f"'{state}' has no line in 'transitions'")
            for shown in seen:
                if shown not in (other.transitions or {}):
                    said = f"the other end is never '{shown}', so nobody can make this move"
                    self._notes.bad(shown, said)

    def _automaton(self, name: str, side: SideForm, moves: _Moves) -> None:
        """Every state can be reached, and from every state the end can close."""
        notes = self._notes
        transitions = side.transitions or {}
        reached = moves.reachable(name, side.first) if side.first is not None else set()
        for text, targets in transitions.items():
            if text not in reached:
                notes.bad(text, f"no moves lead from '{side.first}' to '{text}'")
            if "closed" not in moves.reachable(name, text):
                notes.bad(text, f"no moves lead from '{text}' to 'closed'")
            for number, target in enumerate(targets):
                if target in targets[:number]:
                    notes.bad(target, f"the move to '{target}' stands here twice")
                if target == text:
                    notes.bad(target, "a state needs no move to itself")
                elif target not in transitions:
                    notes.bad(target, f"'{target}' has no line of its own in 'transitions'")
                elif text in reached and target not in moves.possible(name, text):
                    said = f"nobody can make this move: '{target}' needs what is never seen"
                    notes.bad(target, said)


class _Moves:
    """Which moves can be made at all, each end needing to see states the other can reach."""

    def __init__(self, form: SpecForm) -> None:
        self._sides = dict(zip(SIDES, (form.frontend, form.backend), strict=True))
        self._reached: dict[str, set[str]] = {
            name: {str(side.first)} for name, side in self._sides.items()
        }
        grew = True
        while grew:
            before = sum(map(len, self._reached.values()))
            for name in SIDES:
                for state in list(self._reached[name]):
                    self._reached[name].update(self.possible(name, state))
            grew = sum(map(len, self._reached.values())) > before

    def possible(self, name: str, state: str) -> list[str]:
        """Where an end can move to from `state`, having seen all it can ever see."""
        side = self._sides[name]
        other = SIDES[1] if name == SIDES[0] else SIDES[0]
        targets = {str(it): tuple(them) for it, them in (side.transitions or {}).items()}
        needs = {str(it): set(map(str, seen)) for it, seen in side.needs.items()}
        return [
            str(target)
            for target in targets.get(state, ())
            if target not in needs or needs[target] & self._reached[other]
        ]

    def reachable(self, name: str, start: str) -> set[str]:
        """The states that moves which can be made lead to."""
        found, left = {str(start)}, [str(start)]
        while left:
            for state in self.possible(name, left.pop()):
                if state not in found and state in BY_WORD:
                    found.add(state)
                    left.append(state)
        return found
