"""From a policy's form to its definition: every name defined, every rule of DESIGN §4 held."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from broker.core import definition as core
from broker.core import glob
from broker.core.resources import ResourceIndex
from broker.policy.filters import read_filters
from broker.policy.form import group_members
from broker.policy.observe import read_observe
from broker.policy.roles import RoleReader
from broker.policy.rules import ANY, RuleReader, listed
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.policy.findings import Findings
    from broker.policy.form import PolicyForm, ResourceForm
    from broker.text.marked_yaml import Text

_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,7})\.(0|[1-9][0-9]{0,7})")
_MOST_REFERENCES: Final = 0xFFFE
"""A half of an ssidref has 16 bits, and 0 is the unlabelled."""
_MOST_COMBINATIONS: Final = 1_000_000
_DEFAULT: Final = "default"


def define(form: PolicyForm, digest: str, findings: Findings) -> core.Definition:
    """The definition that a form stands for; it may be used only if nothing was found."""
    findings.name(form.policy, "policy")
    findings.names(form.ste_types, "STE type")
    findings.names(form.chinese_wall_types, "Chinese Wall type")
    version = _version(form.version, findings)
    labels = _labels(form, findings)
    _bootstrap(form, findings)
    conflict_sets = _conflict_sets(form, findings)
    _one_type_of_each_set(form, conflict_sets, findings)
    groups = {}
    for name, group in form.groups.items():
        findings.name(name, "group")
        groups[str(name)] = findings.known(group_members(group), form.labels, "label")
    resources = _resources(form, findings)
    if len(labels) + len(resources) > _MOST_REFERENCES:
        findings.add(form, f"more than {_MOST_REFERENCES} labels and resources")
    reader = RuleReader(form, findings)
    rules = [reader.read(number, channel) for number, channel in enumerate(form.channels)]
    _spelled_out(form, rules, findings)
    return core.Definition(
        name=str(form.policy),
        version=version,
        replaces=_replaces(form, version, findings),
        digest=digest,
        ste_types=tuple(map(str, form.ste_types)),
        chinese_wall_types=tuple(map(str, form.chinese_wall_types)),
        conflict_sets=conflict_sets,
        bootstrap=str(form.bootstrap),
        labels=labels,
        groups=groups,
        resources=resources,
        classes=_classes(form, findings),
        rules=tuple(rule for rule in rules if isinstance(rule, core.Rule)),
        betweens=tuple(rule for rule in rules if isinstance(rule, core.Between)),
        on_violation=_on_violation(form, findings),
        host_authorization=form.host_authorization,
        protected=findings.known(form.protected, form.labels, "label"),
        roles=RoleReader(form, findings).read(),
        observe=read_observe(form, findings),
        filters=read_filters(form, findings),
    )


def _spelled_out(
    form: PolicyForm, rules: Sequence[core.Rule | core.Between | None], findings: Findings
) -> None:
    """Rules are indexed by what they spell out, which three long lists can make astronomical."""
    total = 0
    for channel, rule in zip(form.channels, rules, strict=True):
        if isinstance(rule, core.Rule):
            sides = (rule.classes, rule.frontends, rule.backends, rule.resources)
            total += math.prod(len(side) for side in sides if side is not None)
            if total > _MOST_COMBINATIONS:
                findings.add(
                    channel,
                    f"the rules up to this one spell out more than {_MOST_COMBINATIONS:,} "
                    "combinations of class, frontend, backend and resource: use groups, or 'any'",
                )
                return


def _version(text: Text, findings: Findings) -> tuple[int, int]:
    match = _VERSION.fullmatch(text)
    if match is None:
        said = escape(text, 60)
        findings.add(text, f"version '{said}' is not major.minor, two integers (\"1.4\")")
        return 0, 0
    return int(match[1]), int(match[2])


def _replaces(
    form: PolicyForm, version: tuple[int, int], findings: Findings
) -> tuple[str, tuple[int, int]] | None:
    if form.replaces is None:
        return None
    findings.name(form.replaces.policy, "policy")
    before = _version(form.replaces.version, findings)
    if form.replaces.policy == form.policy and before >= version:
        findings.add(form.replaces.version, f"not older than this policy's version {form.version}")
    return str(form.replaces.policy), before


def _labels(form: PolicyForm, findings: Findings) -> tuple[core.Label, ...]:
    labels = []
    for name, label in form.labels.items():
        findings.name(name, "label")
        if name == ANY:
            findings.add(name, "'any' is a word of the rules; no label can have it as a name")
        findings.names(label.colours, "colour")
        labels.append(
            core.Label(
                name=str(name),
                ste=findings.known(label.ste, form.ste_types, "STE type"),
                chinese_wall=findings.known(
                    label.chinese_wall, form.chinese_wall_types, "Chinese Wall type"
                ),
                colours=tuple(map(str, label.colours)),
                was=None if label.was is None else str(label.was),
                where=findings.where(name),
            )
        )
    _renamed(form, findings)
    return tuple(labels)


def _renamed(form: PolicyForm, findings: Findings) -> None:
    renamed = [label.was for label in form.labels.values() if label.was is not None]
    findings.names(renamed, "former label")
    for name in renamed:
        # Also where that label has another former name itself: after a second loading nobody
        # could say any more which label a domain means.
        if name in form.labels:
            findings.add(name, f"label '{name}' is still in the policy; it cannot be renamed away")


def _bootstrap(form: PolicyForm, findings: Findings) -> None:
    findings.known([form.bootstrap], form.labels, "bootstrap label")


def _conflict_sets(form: PolicyForm, findings: Findings) -> dict[str, tuple[str, ...]]:
    sets = {}
    for name, members in form.conflict_sets.items():
        findings.name(name, "conflict set")
        sets[str(name)] = findings.known(members, form.chinese_wall_types, "Chinese Wall type")
        if len(members) < 2:
            findings.add(name, f"conflict set '{name}' has fewer than two types")
    return sets


def _one_type_of_each_set(
    form: PolicyForm, conflict_sets: Mapping[str, tuple[str, ...]], findings: Findings
) -> None:
    # With two types a domain would be in conflict with itself; ACM let it start alone, and
    # what might start beside it then hung on the order.
    sets_of: dict[str, list[str]] = {}
    for name, members in conflict_sets.items():
        for member in members:
            sets_of.setdefault(member, []).append(name)
    for name, label in form.labels.items():
        held: dict[str, Text] = {}
        for text in label.chinese_wall:
            for conflict_set in sets_of.get(text, ()):
                other = held.setdefault(conflict_set, text)
                if other != text:
                    findings.add(
                        text,
                        f"label '{escape(name, 60)}' holds two types of conflict set "
                        f"'{conflict_set}': {other} and {text}",
                    )


def _resources(form: PolicyForm, findings: Findings) -> tuple[core.Resource, ...]:
    resources = []
    marks: dict[str, Text] = {}
    for name, resource in form.resources.items():
        findings.name(name, "resource")
        marks[str(name)] = name
        ste = findings.known(resource.ste, form.ste_types, "STE type")
        if len(resource.ste) != 1 and not resource.partial:
            findings.add(name, f"resource '{escape(name, 60)}' needs exactly one STE type")
        colours = listed(resource.colour)
        findings.names(colours, "colour")
        match = _match(resource, findings)
        resources.append(
            core.Resource(
                name=str(name),
                ste=ste[0] if ste else "",
                colours=tuple(map(str, colours)),
                device_class=match.pop("class", None),
                match=match,
                where=findings.where(name),
            )
        )
    for one, other in ResourceIndex(resources).ties():
        first, second = sorted((marks[one.name], marks[other.name]), key=_position)
        findings.add(
            second,
            f"a device can match both '{second}' and '{first}' ({findings.where(first)}), and "
            "neither match is the more specific: one must lie within the other, or apart from it",
        )
    return tuple(resources)


def _position(text: Text) -> tuple[int, int]:
    return text.line, text.column


def _match(resource: ResourceForm, findings: Findings) -> dict[str, str]:
    if resource.match is None:
        return {}
    if "class" not in resource.match:
        findings.add(resource, "a 'match' says which 'class' of device it is about")
        return {}
    for key, pattern in resource.match.items():
        if glob.climbs(pattern):
            findings.add(pattern, "'..' never matches: write the path that it stands for")
        if key == "class":
            findings.name(pattern, "class")
        if not pattern.isprintable():
            findings.add(pattern, f"not printable: {escape(pattern, 60)}")
    return {str(key): str(pattern) for key, pattern in resource.match.items()}


def _classes(form: PolicyForm, findings: Findings) -> tuple[core.DeviceClass, ...]:
    classes = []
    for name, device_class in form.classes.items():
        findings.name(name, "class")
        if name in (ANY, _DEFAULT):
            findings.add(name, f"'{name}' is a word of the policy; no class can have it as a name")
        protocol = device_class.protocol or name
        findings.name(protocol, "protocol description")
        if device_class.default is None and not device_class.partial:
            findings.add(device_class, "'default' is missing: what holds where no rule speaks?")
        default = device_class.default or "deny"
        where = findings.where(name)
        classes.append(core.DeviceClass(str(name), str(protocol), default, where))
    return tuple(classes)


def _on_violation(form: PolicyForm, findings: Findings) -> dict[str, core.Action]:
    named = [name for name in form.on_violation if name != _DEFAULT]
    findings.known(named, form.classes, "class")
    actions: dict[str, core.Action] = {_DEFAULT: "close"}
    actions.update({str(name): action for name, action in form.on_violation.items()})
    return actions
