"""The shape of a profile's file; what it means is read in `load` and checked in `check`."""

from __future__ import annotations

from typing import Literal

import msgspec

from broker.filters.model import VariableType, Verdict  # noqa: TC001 - read at run time
from broker.text.marked_yaml import Marked, Text

Side = Literal["from-guest", "to-guest", "both"]


class VariableForm(Marked):
    """One of `variables:`."""

    type: VariableType
    default: Text | tuple[Text, ...] | None = None
    learn: Literal["dhcp"] | None = None
    description: Text | None = None


class RuleForm(Marked):
    """One of `rules:`: an `accept` or a `drop` with its direction, or an `include`."""

    accept: Side | None = None
    drop: Side | None = None
    include: Text | None = None
    match: dict[Text, object] | None = None
    limit: Text | None = None
    priority: int = 0
    reason: Text | None = None


class DefaultForm(Marked):
    """`default:` where the directions differ."""

    from_guest: Verdict = msgspec.field(name="from-guest")
    to_guest: Verdict = msgspec.field(name="to-guest")


class ProfileForm(Marked):
    """The whole file."""

    profile: Text
    description: Text
    default: Text | DefaultForm
    variables: dict[Text, VariableForm] = msgspec.field(default_factory=dict)
    rules: tuple[RuleForm, ...] = ()
