"""How a protocol description is written: the shape of the YAML (docs/protocol-descriptions.md)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from broker.protocol.ring_form import RingForm  # noqa: TC001 - read at run time, for the form
from broker.text.marked_yaml import Marked, Text

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=86400)]
Instances = Annotated[int, msgspec.Meta(ge=1, le=256)]


class ConditionForm(Marked):
    """One condition: exactly one of the fields is given.

    An operand is `frontend/KEY`, `backend/KEY`, `2^frontend/KEY`, or a literal.
    """

    has: Text | None = None
    lacks: Text | None = None
    equals: tuple[Text, ...] | None = None
    at_most: tuple[Text, ...] | None = None
    multiple_of: tuple[Text, ...] | None = None
    among: tuple[Text, ...] | None = None
    bit: tuple[Text, ...] | None = None
    state: dict[Text, tuple[Text, ...]] | None = None
    any: tuple[ConditionForm, ...] | None = None
    all: tuple[ConditionForm, ...] | None = None
    inverse: ConditionForm | None = msgspec.field(default=None, name="not")


class KeyForm(Marked):
    """One key of one end's directory."""

    type: Text
    writer: tuple[Text, ...]
    range: tuple[Count, ...] | None = None
    values: tuple[Text, ...] = ()
    power_of_two: bool = False
    by: Text | None = None
    required: bool = False
    needed_if: tuple[ConditionForm, ...] = ()
    allowed_if: tuple[ConditionForm, ...] = ()
    default: Text | None = None
    fixed: Text | None = None
    moves: dict[Text, tuple[Text, ...]] | None = None
    read_only: bool = False
    secret: bool = False
    example: Text | None = None


class GroupForm(Marked):
    """Keys that come in numbered instances; `{}` in a key's name stands for the number."""

    instances: tuple[Instances, ...]
    keys: dict[Text, KeyForm]
    first: Count = 0
    count: tuple[Text, ...] = ()
    each: Text | None = None
    only_if: tuple[ConditionForm, ...] = ()


class SideForm(Marked):
    """One end. Without `transitions` it has no state machine."""

    kinds: tuple[Text, ...]
    first: Text | None = None
    transitions: dict[Text, tuple[Text, ...]] | None = None
    needs: dict[Text, tuple[Text, ...]] = msgspec.field(default_factory=dict)
    distinct: tuple[Text, ...] = ()
    keys: dict[Text, KeyForm] = msgspec.field(default_factory=dict)
    groups: dict[Text, GroupForm] = msgspec.field(default_factory=dict)


class InvariantForm(Marked):
    """What has to hold between keys, and who is in error where it does not."""

    holds: ConditionForm
    blame: Literal["frontend", "backend", "both"]
    broken_by: dict[Text, Text]
    when: tuple[ConditionForm, ...] = ()


class DeadlineForm(Marked):
    """Who has to leave a pair of states, and within how many seconds."""

    frontend: tuple[Text, ...]
    backend: tuple[Text, ...]
    owner: Literal["frontend", "backend", "both"]
    within: Seconds
    when: tuple[ConditionForm, ...] = ()


class GateForm(Marked):
    """What holds one end back from a state, for the broker to open or to leave closed."""

    side: Text
    into: Text
    open_if: tuple[ConditionForm, ...]
    opened_by: dict[Text, Text]


class SpecForm(Marked):
    """A whole description."""

    protocol: Text
    header: Text
    frontend: SideForm
    backend: SideForm
    gate: GateForm | None = None
    invariants: dict[Text, InvariantForm] = msgspec.field(default_factory=dict)
    deadlines: dict[Text, DeadlineForm] = msgspec.field(default_factory=dict)
    examples: dict[Text, dict[Text, Text]] = msgspec.field(default_factory=dict)
    ring: RingForm | None = None
