"""Reads and checks single messages, from their tables made into functions once."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Final

from broker.protocol.ring_expression import reckoner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.protocol.ring_expression import Reckoner
    from broker.protocol.ring_table import (
        Check,
        Condition,
        Field,
        ItemList,
        Message,
        Named,
        Place,
        Rule,
        Side,
    )

_CODES: Final = {1: "b", 2: "h", 4: "i", 8: "q"}


class Broken(Exception):  # noqa: N818 - a verdict on its way, not an error
    """A rule is broken: by item `index` of a list, by `value`, where that says something."""

    def __init__(self, rule: Rule, *, index: int | None = None, value: int = 0) -> None:
        super().__init__(rule.name)
        self.rule = rule
        self.index = index
        self.value = value


class _Layout:
    """The fields of a message or an item, read in one go."""

    def __init__(self, fields: Iterable[Field], abi: int, size: int) -> None:
        by_place = sorted(fields, key=lambda field: field.at[abi])
        form, end = "<", 0
        for field in by_place:
            code = _CODES[field.size]
            form += f"{field.at[abi] - end}x" + (code if field.signed else code.upper())
            end = field.at[abi] + field.size
        self.names = [field.name for field in by_place]
        self.form = struct.Struct(f"{form}{size - end}x")
        # A negative number counts as 0 in expressions.
        self.signed = [field.name for field in by_place if field.signed]
        self.checks = [
            (field.name, _check(check), check.rule) for field in fields for check in field.checks
        ]

    def read(
        self, numbers: tuple[int, ...], values: dict[str, int], index: int | None = None
    ) -> None:
        values.update(zip(self.names, numbers, strict=True))
        for name, holds, rule in self.checks:
            if not holds(values[name]):
                raise Broken(rule, index=index, value=values[name])
        for name in self.signed:
            values[name] = max(values[name], 0)


def _check(check: Check) -> Callable[[int], bool]:
    bound = check.values[0]
    if check.kind == "min":
        return lambda value: value >= bound
    if check.kind == "max":
        return lambda value: value <= bound
    if check.kind == "bits":
        return lambda value: not value & ~bound
    return frozenset(check.values).__contains__


class _Conditions:
    """Expressions that must not be 0, in order."""

    def __init__(self, conditions: Iterable[Condition]) -> None:
        self._all = [(one.rule, reckoner(one.expression)) for one in conditions]

    def check(self, values: Mapping[str, int], index: int | None = None) -> None:
        for rule, reckon in self._all:
            if not reckon(values):
                raise Broken(rule, index=index)


def _named(expressions: Iterable[Named]) -> list[tuple[str, Reckoner]]:
    return [(one.name, reckoner(one.expression)) for one in expressions]


class ListDecoder:
    """The items of a list."""

    def __init__(self, table: ItemList, abi: int) -> None:
        self._layout = _Layout(table.fields, abi, table.item)
        self._start = table.at[abi] if table.at is not None else 0
        self._item = table.item
        self._count = reckoner(table.count)
        self._most = table.most
        self._count_rule = table.count_rule
        self._conditions = _Conditions(table.conditions)
        self._distinct = [(one.field.name, one.rule) for one in table.distinct]
        self._sums = _named(table.sums)
        self._whole = _Conditions(table.whole)

    def length(self, values: Mapping[str, int]) -> int:
        """The bytes of all items.

        Raises:
            Broken: there are more than a list in the message can have.
        """
        count = self._count(values)
        if self._count_rule is not None and count > self._most:
            raise Broken(self._count_rule)
        return count * self._item

    def check(self, copy: bytes, values: dict[str, int]) -> None:
        """Check the items that `copy` holds from the list's start; `values` learns the sums.

        Raises:
            Broken: the first rule that does not hold.
        """
        part = copy[self._start : self._start + self.length(values)]
        sums = [0] * len(self._sums)
        items = []
        inner = dict(values)
        for index, numbers in enumerate(self._layout.form.iter_unpack(part)):
            self._layout.read(numbers, inner, index)
            self._conditions.check(inner, index)
            for place, (_, reckon) in enumerate(self._sums):
                sums[place] = min(sums[place] + reckon(inner), 2**64 - 1)
            if self._distinct:
                items.append([inner[name] for name, _ in self._distinct])
        for place, (_, rule) in enumerate(self._distinct):
            seen: set[int] = set()
            for index, item in enumerate(items):
                if item[place] in seen:
                    raise Broken(rule, index=index, value=item[place])
                seen.add(item[place])
        for (name, _), total in zip(self._sums, sums, strict=True):
            values[name] = total
        self._whole.check(values)


class Decoder:
    """One kind of message."""

    def __init__(self, table: Message, abi: int, size: int) -> None:
        self._layout = _Layout(table.fields, abi, size)
        self._conditions = _Conditions(table.conditions)
        lists = [ListDecoder(one, abi) for one in table.lists if one.at is not None]
        self._lists = lists
        self._granted = ListDecoder(table.granted, abi) if table.granted else None
        self._id = table.id
        self._remember = reckoner(table.remember) if table.remember else None
        self._keeps = _named(table.keeps)
        self._nexts = _named(table.nexts)

    def read(self, copy: bytes, values: dict[str, int]) -> None:
        """Put the fields into `values`, checked.

        Raises:
            Broken: one is not what it may be.
        """
        self._layout.read(self._layout.form.unpack(copy), values)

    def check(self, copy: bytes, values: dict[str, int]) -> None:
        """Check the rules, then the lists in the message.

        Raises:
            Broken: the first rule that does not hold.
        """
        self._conditions.check(values)
        for one in self._lists:
            one.check(copy, values)

    def pages(self, values: Mapping[str, int]) -> tuple[ListDecoder | None, int]:
        """The list that lies in granted pages, if there is one, and its bytes."""
        if self._granted is None:
            return None, 0
        return self._granted, self._granted.length(values)

    def id_of(self, values: Mapping[str, int]) -> int | None:
        """The id; None if this kind has none."""
        return None if self._id is None else values[self._id]

    def remembered(self, values: Mapping[str, int]) -> int:
        """What a response may be held to."""
        return 0 if self._remember is None else int(self._remember(values))

    def keep(self, values: Mapping[str, int]) -> dict[str, int]:
        """What to keep until the packet's end, all reckoned from what was kept before."""
        return {name: int(reckon(values)) for name, reckon in self._keeps}

    def next(self, values: Mapping[str, int]) -> str | None:
        """The place where the packet goes on; None at its end."""
        for place, reckon in self._nexts:
            if reckon(values):
                return place
        return None


class _PlaceDecoder:
    """The messages that may stand at one place."""

    def __init__(self, table: Place, abi: int, size: int, unknown: Rule | None) -> None:
        self._unknown = unknown
        self._select = None if table.select is None else _Layout([table.select], abi, size)
        made = [(one.values, Decoder(one, abi, size)) for one in table.messages]
        self._only = made[0][1]
        self._by_value = {value: decoder for values, decoder in made for value in values}

    def message(self, copy: bytes) -> Decoder:
        if self._select is None or self._unknown is None:
            return self._only
        value = self._select.form.unpack(copy)[0]
        decoder = self._by_value.get(value)
        if decoder is None:
            raise Broken(self._unknown, value=value)
        return decoder


class SideDecoder:
    """All messages of one end of a ring."""

    def __init__(self, table: Side, abi: int) -> None:
        self.size = table.size[abi]
        self.start = table.places[0].name
        self.kept = dict.fromkeys(table.keeps, 0)
        self._places = {
            place.name: _PlaceDecoder(place, abi, self.size, table.unknown)
            for place in table.places
        }

    def message(self, place: str, copy: bytes) -> Decoder:
        """What kind of message it is.

        Raises:
            Broken: of no known kind.
        """
        return self._places[place].message(copy)


@functools.lru_cache(maxsize=64)  # a few rings of a few classes, in two layouts
def decoders(side: Side, abi: int) -> SideDecoder:
    """The decoders of one side, made once."""
    return SideDecoder(side, abi)
