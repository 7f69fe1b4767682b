"""The shape of a description's `ring:` section; what it means is checked in `ring_check`.

docs/ring-messages.md explains it with examples.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from broker.text.marked_yaml import Marked, Text

Bytes = int | tuple[int, ...]
"""A number of bytes: one for all of `abis`, or a list with one for each."""

FieldType = Literal["u8", "u16", "u32", "u64", "s8", "s16", "s32"]


class SelectForm(Marked):
    """`select:` the number that tells a place's messages apart."""

    type: FieldType
    at: Bytes


class FieldForm(Marked):
    """A number in a message, and what it may be."""

    type: FieldType
    at: Bytes
    min: int | None = None
    max: int | None = None
    one_of: tuple[int, ...] | None = msgspec.field(name="one-of", default=None)
    bits: int | None = None


class ListForm(Marked):
    """Items in a row: in the message, or (without `at`) in pages its sender granted."""

    item: int
    count: Text
    fields: dict[Text, FieldForm]
    at: Bytes | None = None
    most: int | None = None
    rules: dict[Text, Text] = msgspec.field(default_factory=dict)
    distinct: tuple[Text, ...] = ()
    sums: dict[Text, Text] = msgspec.field(default_factory=dict)
    whole: dict[Text, Text] = msgspec.field(default_factory=dict)


class MessageForm(Marked):
    """One kind of message. `id` names the field that is echoed; `next` says what may follow."""

    fields: dict[Text, FieldForm]
    values: tuple[int, ...] = ()
    rules: dict[Text, Text] = msgspec.field(default_factory=dict)
    lists: dict[Text, ListForm] = msgspec.field(default_factory=dict)
    id: Text | None = None
    remember: Text | None = None
    keep: dict[Text, Text] = msgspec.field(default_factory=dict)
    next: dict[Text, Text] = msgspec.field(default_factory=dict)


class PlaceForm(Marked):
    """What may stand at one place of a packet."""

    messages: dict[Text, MessageForm]
    select: SelectForm | None = None


class SideForm(Marked):
    """What one end puts on a ring; a packet begins at the first place."""

    size: Bytes
    places: dict[Text, PlaceForm]


class OneRingForm(Marked):
    """One of `rings:`. Requests are the frontend's, responses the backend's."""

    slots: int
    in_flight: Literal["by-id", "in-order"] = msgspec.field(name="in-flight")
    requests: SideForm
    responses: SideForm


class GivenForm(Marked):
    """One of `given:`, what the ends agreed on in xenstore; `key` says where."""

    key: Text
    max: int
    min: int = 0


class RingForm(Marked):
    """The whole section."""

    abis: tuple[Text, ...]
    rings: dict[Text, OneRingForm]
    given: dict[Text, GivenForm] = msgspec.field(default_factory=dict)
