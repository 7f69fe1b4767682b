"""Fields, lists, rules and expressions of ring messages, checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from broker.protocol.ring_expression import (
    WORDS,
    Binary,
    Expression,
    ExpressionError,
    Name,
    Number,
    names,
    parse,
    parts,
    written,
)
from broker.protocol.ring_table import (
    Check,
    Condition,
    Distinct,
    Field,
    ItemList,
    Named,
    Party,
    Rule,
)
from broker.text.escape import escape
from broker.text.marked_yaml import Marked, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.protocol.ring_form import Bytes, FieldForm, ListForm, MessageForm, SelectForm

Note = Callable[[Text | Marked, str], None]
"""Hears what is wrong, and where."""

MOST: Final = 64
"""The most entries of a mapping, characters of a name, bytes of an item."""
_MOST_ITEMS: Final = 512
_THING: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_VALUE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_BITS: Final = 8


class Kept(msgspec.Struct, frozen=True):
    """What a side's messages keep within a packet, and the side's places."""

    names: tuple[str, ...]
    places: frozenset[str]


class Scope(msgspec.Struct, frozen=True):
    """What an expression may speak of; `given` with the least each can be."""

    given: dict[str, int]
    others: set[str]

    def wider(self, more: Iterable[Text], check: Parts) -> Scope:
        """With the names `more` too, which must be new."""
        for name in more:
            check.value_name(name)
            if name in self.given or name in self.others:
                check.note(name, f"'{name}' stands for something else already")
        return Scope(self.given, {*self.others, *map(str, more)})


class Parts:
    """Makes the parts of tables; `rules` are all rules so far."""

    def __init__(self, note: Note, abis: int) -> None:
        self.note = note
        self.rules: list[Rule] = []
        self._abis = max(1, abis)

    def few(self, mapping: Mapping[Text, Any], form: Marked, what: str) -> list[Text]:
        """The keys, if they are not too many."""
        if len(mapping) > MOST:
            self.note(form, f"more than {MOST} {what}")
        return list(mapping)[:MOST]

    def thing_name(self, name: Text) -> None:
        """A ring, place, message, list or rule is called like `read-write`."""
        if not _THING.fullmatch(name) or len(name) > MOST:
            self.note(name, f"'{escape(name, 60)}' is no name like read-write")

    def value_name(self, name: Text) -> None:
        """What expressions speak of is called like `nr_segments`."""
        if not _VALUE.fullmatch(name) or len(name) > MOST or name in WORDS or name == "asked":
            self.note(name, f"'{escape(name, 60)}' is no name for a value, like nr_segments")

    def rule(self, name: str, party: Party, field: str, text: str) -> Rule:
        """A new rule, with the next number."""
        made = Rule(len(self.rules) + 1, name, party, field, text)
        self.rules.append(made)
        return made

    def offsets(self, given: Bytes, form: Marked) -> tuple[int, ...]:
        """One number for each ABI."""
        if isinstance(given, int):
            return (given,) * self._abis
        if len(given) != self._abis:
            self.note(form, f"a list of bytes has one for each of 'abis', so {self._abis}")
            return (0,) * self._abis
        return given

    def expression(self, text: Text, scope: Scope) -> Expression:
        """Read an expression that speaks of what is in `scope`."""
        try:
            found = parse(text)
        except ExpressionError as error:
            self.note(text, str(error))
            return Number(0)
        for name in sorted(names(found)):
            if name not in scope.given and name not in scope.others:
                self.note(text, f"nothing here is called '{escape(name, 60)}'")
        for part in parts(found):
            if isinstance(part, Binary) and part.sign in ("/", "%") and not _safe(part, scope):
                self.note(text, "divide by a number, or by what is given with 'min' above 0")
        return found

    def conditions(
        self, texts: Mapping[Text, Text], prefix: str, party: Party, scope: Scope, form: Marked
    ) -> tuple[Condition, ...]:
        """Rules that an expression holds."""
        made = []
        for name in self.few(texts, form, "rules"):
            self.thing_name(name)
            expression = self.expression(texts[name], scope)
            rule = self.rule(f"{prefix}.{name}", party, "", written(expression))
            made.append(Condition(rule, expression))
        return tuple(made)

    def select(self, form: SelectForm, size: tuple[int, ...]) -> Field:
        """The number that tells messages apart."""
        made = _field("select", form, self.offsets(form.at, form))
        self._fits(made.at, made.size, size, form)
        return made

    def fields(
        self,
        forms: Mapping[Text, FieldForm],
        prefix: str,
        party: Party,
        size: tuple[int, ...],
        form: Marked,
    ) -> tuple[Field, ...]:
        """The fields of a message or an item of `size` bytes."""
        made: list[Field] = []
        for name in self.few(forms, form, "fields"):
            field = _field(str(name), forms[name], self.offsets(forms[name].at, forms[name]))
            self._fits(field.at, field.size, size, forms[name])
            for other in made:
                if _overlap(field.at, field.size, other.at, other.size):
                    self.note(forms[name], f"lies over the field '{other.name}'")
            checks = self._checks(forms[name], field, f"{prefix}.{name}", party)
            made.append(msgspec.structs.replace(field, checks=checks))
        return tuple(made)

    def in_type(self, value: int, field: Field, form: Marked) -> None:
        """Note a value that the field cannot have."""
        low, high = _range(field)
        if not low <= value <= high:
            self.note(form, f"{value} does not fit: the field holds {low} to {high}")

    def _checks(
        self, form: FieldForm, field: Field, prefix: str, party: Party
    ) -> tuple[Check, ...]:
        checks: list[Check] = []

        def add(kind: Any, values: tuple[int, ...], text: str) -> None:  # noqa: ANN401 - a literal
            for value in values:
                self.in_type(value, field, form)
            rule = self.rule(f"{prefix}.{kind}", party, field.name, f"{field.name} {text}")
            checks.append(Check(kind, values, rule))

        if form.min is not None:
            add("min", (form.min,), f">= {form.min}")
        if form.max is not None:
            add("max", (form.max,), f"<= {form.max}")
        if form.one_of is not None:
            values = form.one_of[:MOST]
            add("one-of", values, "is one of " + ", ".join(map(str, values)))
            if not form.one_of or len(form.one_of) > MOST:
                self.note(form, f"'one-of' has 1 to {MOST} numbers")
        if form.bits is not None:
            add("bits", (form.bits,), f"has no bits but {form.bits}")
        self._sensible(form, field)
        return tuple(checks)

    def _sensible(self, form: FieldForm, field: Field) -> None:
        """Note bounds that say nothing, or that nothing can keep."""
        low, high = _range(field)
        least, most = form.min, form.max
        never = (least is not None and least <= low) or (most is not None and most >= high)
        never = never or (form.bits is not None and form.bits >= high)
        if form.bits is not None and field.signed:
            self.note(form, "'bits' is for numbers without a sign")
        elif never:
            self.note(form, f"says nothing: the field holds {low} to {high} anyway")
        if least is not None and most is not None and least > most:
            self.note(form, "'min' is above 'max'")

    def lists(
        self, form: MessageForm, prefix: str, party: Party, size: tuple[int, ...], scope: Scope
    ) -> tuple[ItemList, ...]:
        """The lists of a message."""
        made: list[ItemList] = []
        for name in self.few(form.lists, form, "lists"):
            self.thing_name(name)
            if name in form.fields:
                self.note(name, f"'{name}' is a field already")
            if made and made[-1].at is None:
                self.note(name, "the list in granted pages is the last one")
            one = form.lists[name]
            inner = scope.wider([*one.fields], self)
            made.append(self._list(name, one, f"{prefix}.{name}", party, size, scope, inner))
            scope = scope.wider([*one.sums], self)
            self._apart(made[-1], one, form)
        return tuple(made)

    def _list(  # noqa: PLR0917 - one call, from the loop above
        self,
        name: Text,
        form: ListForm,
        prefix: str,
        party: Party,
        size: tuple[int, ...],
        scope: Scope,
        inner: Scope,
    ) -> ItemList:
        if not 1 <= form.item <= MOST:
            self.note(form, f"'item' is from 1 to {MOST} bytes")
        at = None if form.at is None else self.offsets(form.at, form)
        count = self.expression(form.count, scope)
        count_rule = None
        most = form.most or 0
        if at is None:
            if form.most is not None or form.distinct:
                self.note(form, "a list in granted pages has neither 'most' nor 'distinct'")
        elif not 1 <= most <= _MOST_ITEMS:
            self.note(form, f"a list in the message has 'most', 1 to {_MOST_ITEMS}")
        else:
            self._fits(at, most * form.item, size, form)
            said = f"{written(count)} <= {most}"
            count_rule = self.rule(f"{prefix}.count", party, "", said)
        item_size = (max(form.item, 0),) * self._abis
        fields = self.fields(form.fields, prefix, party, item_size, form)
        conditions = self.conditions(form.rules, prefix, party, inner, form)
        distinct = []
        for wanted in form.distinct:
            found = [field for field in fields if field.name == wanted]
            if not found or found[0].signed:
                self.note(wanted, f"the items have no unsigned field '{escape(wanted, 60)}'")
                continue
            rule = self.rule(
                f"{prefix}.{wanted}.distinct", party, str(wanted), f"no two {wanted} are the same"
            )
            distinct.append(Distinct(found[0], rule))
        sums = tuple(
            Named(str(title), self.expression(form.sums[title], inner))
            for title in self.few(form.sums, form, "sums")
        )
        after = Scope(scope.given, {*scope.others, *map(str, form.sums)})
        whole = self.conditions(form.whole, prefix, party, after, form)
        return ItemList(
            str(name),
            form.item,
            count,
            fields,
            at,
            most,
            count_rule,
            conditions,
            tuple(distinct),
            sums,
            whole,
        )

    def _apart(self, one: ItemList, form: ListForm, message: MessageForm) -> None:
        if one.at is None:
            return
        for name, field in message.fields.items():
            plain = _field(str(name), field, self.offsets(field.at, field))
            if _overlap(one.at, one.most * one.item, plain.at, plain.size):
                self.note(form, f"lies over the field '{name}'")

    def _fits(self, at: tuple[int, ...], length: int, size: tuple[int, ...], form: Marked) -> None:
        for start, whole in zip(at, size, strict=True):
            if start < 0 or start + length > whole:
                self.note(form, f"does not lie within the {whole} bytes")
                return


def _safe(division: Binary, scope: Scope) -> bool:
    right = division.right
    if isinstance(right, Number):
        return right.value > 0
    return isinstance(right, Name) and scope.given.get(right.name, 0) > 0


def _field(name: str, form: FieldForm | SelectForm, at: tuple[int, ...]) -> Field:
    return Field(name, int(form.type[1:]) // _BITS, form.type[0] == "s", at)


def _range(field: Field) -> tuple[int, int]:
    bits = field.size * _BITS
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if field.signed else (0, 2**bits - 1)


def _overlap(one: tuple[int, ...], one_size: int, other: tuple[int, ...], other_size: int) -> bool:
    pairs = zip(one, other, strict=True)
    return any(a < b + other_size and b < a + one_size for a, b in pairs)
