"""What is wrong with a description's keys: types, writers, presence, numbered instances."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from broker.protocol import values
from broker.protocol.conditions import SIDES
from broker.protocol.instances import MARK, expanded
from broker.protocol.states import BY_WORD

if TYPE_CHECKING:
    from broker.protocol.form import GroupForm, KeyForm, SideForm, SpecForm
    from broker.protocol.notes import Notes
    from broker.text.marked_yaml import Text

WRITERS: Final = (*SIDES, "toolstack", "hotplug")
FROZEN: Final = (*SIDES, "always")
MOST_NAMES: Final = 1024
"""Names one group of numbered keys may stand for."""
_KEY: Final = re.compile(r"(?:[A-Za-z0-9_.-]|\{\})+(?:/(?:[A-Za-z0-9_.-]|\{\})+)*")
_BOUNDS: Final = 2


class KeyChecker:
    """Checks the keys of both ends."""

    def __init__(self, form: SpecForm, notes: Notes) -> None:
        self._form = form
        self._notes = notes

    def check(self) -> None:
        """Note every problem."""
        for name, side in zip(SIDES, (self._form.frontend, self._form.backend), strict=True):
            taken: dict[str, Text] = {}
            for text, key in side.keys.items():
                self._key(name, side, text, key)
                taken[text] = text
            for group in side.groups.values():
                if self._group(name, side, group):
                    self._names_once(group, taken)
            for text in side.distinct:
                self._notes.one_of(text, values.RANGES, "type of number")

    def _names_once(self, group: GroupForm, taken: dict[str, Text]) -> None:
        """No name stands for two keys: a value would have two meanings."""
        for text in group.keys:
            for name in expanded(group, text):
                before = taken.setdefault(name, text)
                if before is not text:
                    said = f"'{name}' is described twice, here and on line {before.line}"
                    self._notes.bad(text, said)
                    break

    def _group(self, name: str, side: SideForm, group: GroupForm) -> bool:
        notes, dimensions = self._notes, len(group.instances)
        problems_before = len(notes.problems)
        if not group.instances or math.prod(group.instances) > MOST_NAMES:
            notes.bad(group, f"'instances' has to give 1 to {MOST_NAMES} in all")
        if group.count and len(group.count) != dimensions:
            notes.bad(group.count[0], f"'count' has to give {dimensions}, as 'instances' does")
        templates = [*group.keys, *([group.each] if group.each is not None else [])]
        for text in templates:
            if text.count(MARK) != dimensions or _KEY.fullmatch(text.replace(MARK, "0")) is None:
                said = f"'{notes.show(text)}' needs '{MARK}' {dimensions} times"
                notes.bad(text, said)
        if group.each is not None and group.each not in group.keys:
            notes.bad(group.each, f"'{notes.show(group.each)}' is no key of this group")
        for text, key in group.keys.items():
            self._key(name, side, text, key, numbered=True)
        return len(notes.problems) == problems_before

    def _key(
        self, name: str, side: SideForm, text: Text, key: KeyForm, *, numbered: bool = False
    ) -> None:
        notes = self._notes
        if text == "state" or _KEY.fullmatch(text) is None or (not numbered and MARK in text):
            notes.bad(text, f"'{notes.show(text)}' cannot name a key here")
        self._writers(name, text, key)
        self._value(key)
        self._presence(name, side, key)
        if key.fixed is not None:
            notes.one_of(key.fixed, FROZEN, "word for 'fixed'")
        for source, targets in (key.moves or {}).items():
            notes.states([source, *targets])
        if key.moves is not None and key.type != values.STATE:
            notes.bad(key.type, f"'moves' is for keys of type {values.STATE}")

    def _writers(self, name: str, text: Text, key: KeyForm) -> None:
        """The directory's owner and domain 0 can write; the other end cannot."""
        notes = self._notes
        known = [writer for writer in key.writer if notes.one_of(writer, WRITERS, "writer")]
        if len(known) < len(key.writer):
            return
        if key.read_only and name != SIDES[0]:
            notes.bad(key, "'read_only' is for keys of the frontend's directory")
        owner = SIDES[1] if key.read_only else name
        able = {owner, "toolstack", "hotplug"}
        can = f"here the {owner}, the toolstack and scripts can"
        if not able.intersection(key.writer):
            notes.bad(text, f"nobody may write '{notes.show(text)}': {can}")
        else:
            for writer in key.writer:
                if writer not in able:
                    notes.bad(writer, f"'{writer}' cannot write here: {can}")

    def _value(self, key: KeyForm) -> None:
        notes = self._notes
        if not notes.one_of(key.type, values.NAMES, "type"):
            return
        if key.type in (values.WORDS, values.LISTED):
            if not key.values and key.type == values.WORDS:
                notes.bad(key.type, "an enum needs its 'values'")
        elif key.values:
            notes.bad(key.type, f"'values' is for {values.WORDS} and {values.LISTED}")
        bounds = bounds_of(key)
        if key.range is not None:
            if key.type not in values.RANGES:
                notes.bad(key.type, "'range' is for numbers")
            if bounds is None or bounds[0] > bounds[1]:
                notes.bad(key, "'range' is the lowest and the highest value")
                return
        check = values.check_of(key.type, bounds, tuple(key.values), power_of_two=key.power_of_two)
        for text in (key.default, key.example):
            if text is not None and not check(text.encode()):
                notes.bad(text, f"'{notes.show(text)}' is no {key.type} as described")

    def _presence(self, name: str, side: SideForm, key: KeyForm) -> None:
        notes = self._notes
        if key.by is not None and notes.states([key.by]) and key.by not in (side.transitions or {}):
            notes.bad(key.by, f"the {name} is never '{key.by}'")
        if key.required and (key.by is None and side.transitions is not None):
            notes.bad(key, "'required' needs 'by': the state by which it has to be there")
        if key.required and name not in key.writer:
            notes.bad(key, f"'required' is for what the {name}'s driver writes")
        if key.needed_if and not key.required:
            notes.bad(key.needed_if[0], "'needed_if' is for a key that is 'required'")


def bounds_of(key: KeyForm) -> tuple[int, int] | None:
    """A number's bounds, where the description gives its own."""
    if key.range is None or len(key.range) != _BOUNDS:
        return None
    return key.range[0], key.range[1]


def state_order(word: str) -> int:
    """How far a connection has come in a state; 0 where it is not made or on its way out."""
    state = int(BY_WORD[word])
    return {5: 0, 6: 0, 7: 4, 8: 4}.get(state, state)
