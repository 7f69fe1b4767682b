"""The shape of a policy file; what its names mean is checked in `check` and `rules`."""

from __future__ import annotations

from typing import Literal

import msgspec

from broker.core.definition import Action  # noqa: TC001 - read at run time, for the form
from broker.text.marked_yaml import Marked, Text

Names = Text | tuple[Text, ...]
"""One name, or a list."""


class FromForm(Marked):
    """`from:` the policy that this one replaces."""

    policy: Text
    version: Text


class AttachForm(Marked):
    """One of `filters:` where its variables are given something."""

    profile: Text
    given: dict[Text, Names] = msgspec.field(name="with", default_factory=dict)


Filters = tuple[Text | AttachForm, ...]


class LabelForm(Marked):
    """One of `labels:`."""

    ste: tuple[Text, ...] = ()
    chinese_wall: tuple[Text, ...] = ()
    was: Text | None = None
    colours: tuple[Text, ...] = ()
    filters: Filters = ()


class GroupForm(Marked):
    """One of `groups:` where it is more than a list of labels."""

    labels: tuple[Text, ...]
    filters: Filters = ()


class ResourceForm(Marked):
    """One of `resources:`."""

    ste: tuple[Text, ...] = ()
    colour: Names | None = None
    match: dict[Text, Text] | None = None


class ClassForm(Marked):
    """One of `classes:`; without `protocol` it is described under its own name.

    `default` is mandatory; `check` says so, so that a class without it is still known.
    """

    default: Literal["ste", "deny"] | None = None
    protocol: Text | None = None


class RuleForm(Marked):
    """What an `allow` or a `deny` says."""

    classes: Names = msgspec.field(name="class")
    frontend: Names | None = None
    backend: Names | None = None
    resource: Names | None = None
    between: tuple[Text, ...] | None = None
    mode: Literal["r", "w"] | None = None
    reason: Text | None = None


class ChannelForm(Marked):
    """One of `channels:`."""

    allow: RuleForm | None = None
    deny: RuleForm | None = None


class PatternForm(Marked):
    """One of `opens:` in observe mode."""

    classes: Names = msgspec.field(name="class")
    frontend: Names | None = None
    backend: Names | None = None
    resource: Names | None = None


class ObserveForm(Marked):
    """What observe mode opens, and how long."""

    opens: tuple[PatternForm, ...]
    until: Text


class ModeForm(Marked):
    """`mode:` where it is not a word."""

    observe: ObserveForm


class GrantForm(Marked):
    """One of a role's grants."""

    verbs: Names
    label: Names | None = None
    group: Names | None = None
    colour: Names | None = None
    classes: Names | None = msgspec.field(name="class", default=None)
    resource: Names | None = None
    domain: Names | None = None
    second_person: bool = False


class PolicyForm(Marked):
    """The whole file."""

    policy: Text
    version: Text
    ste_types: tuple[Text, ...]
    bootstrap: Text
    labels: dict[Text, LabelForm]
    classes: dict[Text, ClassForm]
    replaces: FromForm | None = msgspec.field(name="from", default=None)
    chinese_wall_types: tuple[Text, ...] = ()
    conflict_sets: dict[Text, tuple[Text, ...]] = msgspec.field(default_factory=dict)
    groups: dict[Text, tuple[Text, ...] | GroupForm] = msgspec.field(default_factory=dict)
    resources: dict[Text, ResourceForm] = msgspec.field(default_factory=dict)
    channels: tuple[ChannelForm, ...] = ()
    on_violation: dict[Text, Action] = msgspec.field(default_factory=dict)
    mode: Literal["enforce"] | ModeForm = "enforce"
    host_authorization: bool = True
    protected: tuple[Text, ...] = ()
    roles: dict[Text, tuple[GrantForm, ...]] = msgspec.field(default_factory=dict)


def group_members(group: tuple[Text, ...] | GroupForm) -> tuple[Text, ...]:
    """The labels of a group, however it is written."""
    return group.labels if isinstance(group, GroupForm) else group
