"""Ring messages as tables: what the validator runs on and the C header is written from.

Tuples of byte counts have one entry for each of `Rings.abis`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from broker.protocol.ring_expression import Expression

Party = Literal["frontend", "backend"]


class Rule(msgspec.Struct, frozen=True):
    """What can be broken: `io.transfer.seg.order`. `number` counts from 1 within the class.

    `party` is who wrote the message; `text` is what must hold.
    """

    number: int
    name: str
    party: Party
    field: str
    text: str


class Check(msgspec.Struct, frozen=True):
    """What a field must be: at least, at most, one of, or within a mask of bits."""

    kind: Literal["min", "max", "one-of", "bits"]
    values: tuple[int, ...]
    rule: Rule


class Field(msgspec.Struct, frozen=True):
    """A little-endian number of `size` bytes."""

    name: str
    size: int
    signed: bool
    at: tuple[int, ...]
    checks: tuple[Check, ...] = ()


class Condition(msgspec.Struct, frozen=True):
    """An expression that must not be 0."""

    rule: Rule
    expression: Expression


class Named(msgspec.Struct, frozen=True):
    """An expression with a name: a sum, something kept, where a packet goes on."""

    name: str
    expression: Expression


class Distinct(msgspec.Struct, frozen=True):
    """A field that no two items of a list share."""

    field: Field
    rule: Rule


class ItemList(msgspec.Struct, frozen=True):
    """Items in the message; in granted pages where `at` is None.

    Checked item by item: fields, `conditions`; then `distinct`; then `whole`, which may speak
    of `sums`. `most` is the bound of a list in the message, and `count_rule` its rule.
    """

    name: str
    item: int
    count: Expression
    fields: tuple[Field, ...]
    at: tuple[int, ...] | None
    most: int
    count_rule: Rule | None
    conditions: tuple[Condition, ...]
    distinct: tuple[Distinct, ...]
    sums: tuple[Named, ...]
    whole: tuple[Condition, ...]


class Message(msgspec.Struct, frozen=True):
    """One kind of message; `values` are those of the place's `select` that mean it."""

    name: str
    values: tuple[int, ...]
    fields: tuple[Field, ...]
    conditions: tuple[Condition, ...]
    lists: tuple[ItemList, ...]
    id: str | None
    remember: Expression | None
    keeps: tuple[Named, ...]
    nexts: tuple[Named, ...]

    @property
    def granted(self) -> ItemList | None:
        """The list that lies in granted pages; always the last."""
        last = self.lists[-1] if self.lists else None
        return last if last is not None and last.at is None else None


class Place(msgspec.Struct, frozen=True):
    """Where a packet stands; without `select` there is one message."""

    name: str
    select: Field | None
    messages: tuple[Message, ...]


class Side(msgspec.Struct, frozen=True, cache_hash=True):
    """What one end puts on a ring; `keeps` are the names kept within a packet, 0 at its start."""

    size: tuple[int, ...]
    places: tuple[Place, ...]
    keeps: tuple[str, ...]
    unknown: Rule | None


class Ring(msgspec.Struct, frozen=True):
    """One ring; `slots` is a power of two, the most that can be in flight."""

    name: str
    slots: int
    in_order: bool
    requests: Side
    responses: Side
    twice: Rule | None
    full: Rule
    stray: Rule


class Given(msgspec.Struct, frozen=True):
    """What the ends agreed on in xenstore, from `min` to `max`; `key` says where."""

    name: str
    key: str
    min: int
    max: int


class Rings(msgspec.Struct, frozen=True):
    """A class's rings; `rules` in the order of their numbers."""

    abis: tuple[str, ...]
    given: tuple[Given, ...]
    rings: tuple[Ring, ...]
    rules: tuple[Rule, ...]
