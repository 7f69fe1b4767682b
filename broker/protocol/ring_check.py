"""A `ring:` section to tables, or to everything that is wrong with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.protocol.ring_check_parts import MOST, Kept, Parts, Scope
from broker.protocol.ring_table import (
    Given,
    Message,
    Named,
    Place,
    Ring,
    Rings,
    Side,
)
from broker.text.problems import Problem

if TYPE_CHECKING:
    from broker.protocol.ring_check_parts import Note
    from broker.protocol.ring_form import (
        MessageForm,
        OneRingForm,
        PlaceForm,
        RingForm,
        SideForm,
    )
    from broker.protocol.ring_table import Field, Party, Rule
    from broker.text.marked_yaml import Marked, Text

_ABI: Final = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_RING: Final = re.compile(r"(?!(?:given|abi|rule)$)[a-z][a-z0-9]*")
"""One word: longer names are made from it in C, and must not meet."""
_MOST_ABIS: Final = 4
_MOST_SIZE: Final = 4096
_MOST_SLOTS: Final = 4096
_SIDES: Final[tuple[tuple[str, Party], ...]] = (("request", "frontend"), ("response", "backend"))


def read_rings(form: RingForm | None, source: str) -> tuple[Rings | None, list[Problem]]:
    """The tables of a description's `ring:` section, if it has one, and what is wrong with it."""
    problems: list[Problem] = []

    def note(place: Text | Marked, message: str) -> None:
        problems.append(Problem(source, place.line, place.column, message))

    return (None if form is None else check_rings(form, note)), problems


def check_rings(form: RingForm, note: Note) -> Rings:
    """Make tables of `form`; `note(place, message)` hears what is wrong.

    What is returned is whole only if nothing was noted.
    """
    parts = Parts(note, len(form.abis))
    _abis(form, note)
    given = tuple(_given(name, form, parts) for name in parts.few(form.given, form, "given"))
    limits = {one.name: one.min for one in given}
    rings = tuple(
        _RingCheck(name, form.rings[name], parts, limits).ring()
        for name in parts.few(form.rings, form, "rings")
    )
    if not rings:
        note(form, "'rings' is empty")
    seen: set[str] = set()
    for rule in parts.rules:
        word = re.sub("[^a-z0-9]", "_", rule.name)
        if word in seen:
            note(form, f"two rules are called '{rule.name}', or nearly so")
        seen.add(word)
    return Rings(tuple(map(str, form.abis)), given, rings, tuple(parts.rules))


def _abis(form: RingForm, note: Note) -> None:
    if not 1 <= len(form.abis) <= _MOST_ABIS:
        note(form, f"'abis' has 1 to {_MOST_ABIS} names")
    seen: set[str] = set()
    for abi in form.abis:
        word = abi.replace("-", "_")
        if not _ABI.fullmatch(abi) or len(abi) > MOST:
            note(abi, "an ABI is named as the key 'protocol' says it, like x86_64-abi")
        elif word in seen:
            note(abi, f"'{abi}' is there already")
        seen.add(word)


def _given(name: Text, form: RingForm, parts: Parts) -> Given:
    one = form.given[name]
    parts.value_name(name)
    if not re.fullmatch(r"[A-Za-z0-9]+(?:[/_-][A-Za-z0-9]+)*", one.key) or len(one.key) > MOST:
        parts.note(one.key, "'key' is a path like backend/sector-size")
    if not 0 <= one.min <= one.max:
        parts.note(one, "'min' and 'max' of what is given: 0 <= min <= max")
    return Given(str(name), str(one.key), one.min, one.max)


class _RingCheck:
    """Makes the table of one ring."""

    def __init__(self, name: Text, form: OneRingForm, parts: Parts, given: dict[str, int]) -> None:
        self._name = name
        self._form = form
        self._parts = parts
        self._given = given
        self._messages: set[str] = {"request", "response"}

    def ring(self) -> Ring:
        form, parts = self._form, self._parts
        if not _RING.fullmatch(self._name) or len(self._name) > MOST:
            parts.note(self._name, "a ring's name is one word, and not given, abi or rule")
        if not 1 <= form.slots <= _MOST_SLOTS or form.slots & (form.slots - 1):
            parts.note(form, f"'slots' is a power of two, at most {_MOST_SLOTS}")
        requests = self._side(form.requests, 0)
        responses = self._side(form.responses, 1)
        named = any(one.id for place in requests.places for one in place.messages)
        return Ring(
            str(self._name),
            form.slots,
            form.in_flight == "in-order",
            requests,
            responses,
            self._rule(0, "id-in-flight", "no request in flight has this id") if named else None,
            self._rule(0, "too-many", "at most as many in flight as there are slots"),
            self._rule(1, "not-in-flight", "it answers a request in flight"),
        )

    def _rule(self, side: int, name: str, text: str) -> Rule:
        word, party = _SIDES[side]
        return self._parts.rule(f"{self._name}.{word}.{name}", party, "", text)

    def _side(self, form: SideForm, which: int) -> Side:
        parts = self._parts
        size = parts.offsets(form.size, form)
        if not all(1 <= one <= _MOST_SIZE for one in size):
            parts.note(form, f"'size' is from 1 to {_MOST_SIZE} bytes")
        places = parts.few(form.places, form, "places")
        if not places:
            parts.note(form, "'places' is empty")
        kept = [
            name
            for place in places
            for message in form.places[place].messages.values()
            for name in message.keep
        ]
        Scope(self._given, set()).wider(kept, parts)
        keeps = Kept(tuple(dict.fromkeys(map(str, kept))), frozenset(map(str, places)))
        made = tuple(self._place(name, form.places[name], size, keeps, which) for name in places)
        unknown = None
        if any(place.select for place in made):
            unknown = self._rule(which, "unknown", "it is of a known kind")
        return Side(size, made, keeps.names, unknown)

    def _place(
        self, name: Text, form: PlaceForm, size: tuple[int, ...], keeps: Kept, which: int
    ) -> Place:
        parts = self._parts
        parts.thing_name(name)
        select = parts.select(form.select, size) if form.select else None
        if not form.messages or (select is None and len(form.messages) > 1):
            parts.note(form, "a place without 'select' has one message; with it one or more")
        seen: set[int] = set()
        messages = []
        for title in parts.few(form.messages, form, "messages"):
            message = form.messages[title]
            self._values(message, select, seen)
            messages.append(self._message(title, message, size, keeps, which))
        return Place(str(name), select, tuple(messages))

    def _values(self, form: MessageForm, select: Field | None, seen: set[int]) -> None:
        if (select is None) == bool(form.values):
            self._parts.note(form, "a message has 'values' where its place has 'select'")
        for value in form.values:
            if value in seen:
                self._parts.note(form, f"value {value} means another message already")
            if select is not None:
                self._parts.in_type(value, select, form)
            seen.add(value)

    def _message(
        self, name: Text, form: MessageForm, size: tuple[int, ...], keeps: Kept, which: int
    ) -> Message:
        parts = self._parts
        parts.thing_name(name)
        if name in self._messages:
            parts.note(name, f"'{name}' is the name of something else on this ring")
        self._messages.add(name)
        full, party = f"{self._name}.{name}", _SIDES[which][1]
        fields = parts.fields(form.fields, full, party, size, form)
        scope = Scope(self._given, {*keeps.names, *(("asked",) if which else ())})
        scope = scope.wider([*form.fields], parts)
        conditions = parts.conditions(form.rules, full, party, scope, form)
        lists = parts.lists(form, full, party, size, scope)
        if which and any(one.at is None for one in lists):
            parts.note(form, "a list in granted pages belongs to a request")
        remember = None
        if form.remember is not None:
            if which:
                parts.note(form.remember, "'remember' belongs to a request")
            remember = parts.expression(form.remember, scope)
        for place in form.next:
            if place not in keeps.places:
                parts.note(place, f"there is no place '{place}' here")
        return Message(
            str(name),
            form.values,
            fields,
            conditions,
            lists,
            self._id(form, fields),
            remember,
            self._named(form.keep, scope, form),
            self._named(form.next, scope, form),
        )

    def _id(self, form: MessageForm, fields: tuple[Field, ...]) -> str | None:
        if form.id is None:
            return None
        if not any(one.name == form.id and not one.signed for one in fields):
            self._parts.note(form.id, f"there is no field '{form.id}' that could be an id")
        return str(form.id)

    def _named(self, texts: dict[Text, Text], scope: Scope, form: MessageForm) -> tuple[Named, ...]:
        parts = self._parts
        return tuple(
            Named(str(name), parts.expression(texts[name], scope))
            for name in parts.few(texts, form, "entries")
        )
