"""What a policy says, checked and ready to be compiled: names, not yet masks.

Made by broker/policy, which has verified that every name used is defined. `where` is
`file:line:column`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["r", "w"]
Verb = Literal["allow", "deny"]
Action = Literal["report", "close", "reset", "quarantine", "destroy"]

GROUP: Final = "group:"
"""Before a group's name where labels and groups may stand."""
NEEDS_RESOURCE: Final = frozenset({"vbd", "9pfs", "pci", "vscsi", "vusb", "vtpm"})
"""Classes whose channels always involve a resource: none matched is a denial."""


class Label(msgspec.Struct, frozen=True):
    """A label of domains; `was` is the name it had in the policy this one replaces."""

    name: str
    ste: tuple[str, ...]
    chinese_wall: tuple[str, ...]
    colours: tuple[str, ...]
    was: str | None
    where: str


class Resource(msgspec.Struct, frozen=True):
    """A labelled resource: one STE type, and which devices are it.

    `match` maps device keys to exact values or globs; a resource without `device_class` is
    never found by `match`, only named.
    """

    name: str
    ste: str
    colours: tuple[str, ...]
    device_class: str | None
    match: Mapping[str, str]
    where: str


class DeviceClass(msgspec.Struct, frozen=True):
    """A class of channels: its protocol description, and what holds where no rule speaks."""

    name: str
    protocol: str
    default: Literal["ste", "deny"]
    where: str


class Rule(msgspec.Struct, frozen=True):
    """A rule on attaching. `None` matches all; sides name labels, or groups as `group:NAME`.

    `mode` of an allow is the most it covers; of a deny the least it stops.
    """

    name: str
    verb: Verb
    classes: tuple[str, ...]
    frontends: tuple[str, ...] | None
    backends: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    mode: Mode
    reason: str
    where: str

    def __str__(self) -> str:
        """The rule in words: `deny vbd frontend web_a resource lun_red`."""
        words: list[str] = [self.verb, ",".join(self.classes)]
        for key, values in (
            ("frontend", self.frontends),
            ("backend", self.backends),
            ("resource", self.resources),
        ):
            if values is not None:
                words += [key, ",".join(values)]
        return " ".join([*words, "mode", self.mode])


class Between(msgspec.Struct, frozen=True):
    """A rule on frames between the vifs of two labels, in either direction."""

    name: str
    verb: Verb
    pair: tuple[str, str]
    reason: str
    where: str

    def __str__(self) -> str:
        """The rule in words."""
        return f"{self.verb} vif between {self.pair[0]} and {self.pair[1]}"


class Pattern(msgspec.Struct, frozen=True):
    """Channels that observe mode opens; `None` matches all, sides as in a rule."""

    classes: tuple[str, ...]
    frontends: tuple[str, ...] | None
    backends: tuple[str, ...] | None
    resources: tuple[str, ...] | None


class Observe(msgspec.Struct, frozen=True):
    """Observe mode: what it opens, and until when.

    `until` is the POSIX time (seconds) at which it ends, `last_day` (YYYY-MM-DD, UTC) the day
    before that moment.
    """

    opens: tuple[Pattern, ...]
    until: int
    last_day: str
    where: str


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """One of a role's grants: verbs on objects; `None` is no selector, labels as in a rule.

    `domains` are uuids, and globs of names. `second_person`: a load of a policy under this grant
    needs another's approval.
    """

    verbs: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    colours: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    domains: tuple[str, ...] | None = None
    second_person: bool = False
    where: str = ""


class Attached(msgspec.Struct, frozen=True):
    """A filter profile on vifs, and what its variables are given: texts, by variable."""

    profile: str
    given: Mapping[str, tuple[str, ...]] = {}
    where: str = ""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A whole policy. `digest` is `sha256:<hex>` of the file's exact bytes."""

    name: str
    version: tuple[int, int]
    replaces: tuple[str, tuple[int, int]] | None
    digest: str
    ste_types: tuple[str, ...]
    chinese_wall_types: tuple[str, ...]
    conflict_sets: Mapping[str, tuple[str, ...]]
    bootstrap: str
    labels: tuple[Label, ...]
    groups: Mapping[str, tuple[str, ...]]
    resources: tuple[Resource, ...]
    classes: tuple[DeviceClass, ...]
    rules: tuple[Rule, ...]
    betweens: tuple[Between, ...]
    on_violation: Mapping[str, Action]
    host_authorization: bool
    protected: tuple[str, ...]
    roles: Mapping[str, tuple[Grant, ...]]
    observe: Observe | None = None
    filters: Mapping[str, tuple[Attached, ...]] = {}
    """The filter profiles that a label, or a group (`group:NAME`), brings to its domains' vifs."""
