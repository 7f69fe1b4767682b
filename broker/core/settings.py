"""What two policies say differently apart from decisions: names, numbers, matches, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.core.definition import Definition
    from broker.core.policy import Policy

What = Literal["label", "resource", "class", "setting"]


class SettingChange(msgspec.Struct, frozen=True):
    """One thing that is written otherwise; `before` or `now` is empty where it is not there."""

    what: What
    name: str
    before: str
    now: str


def setting_changes(old: Policy, new: Policy) -> list[SettingChange]:
    """Everything written otherwise that is not an STE type, a wall or a rule as such."""
    return [
        *_labels(old, new),
        *_resources(old.definition, new.definition),
        *_classes(old.definition, new.definition),
        *_settings(old.definition, new.definition),
    ]


def _labels(old: Policy, new: Policy) -> Iterator[SettingChange]:
    successors = new.successors(old)
    kept = {after: before for before, after in successors.items() if after is not None}
    for before, after in successors.items():
        if after is None:
            yield SettingChange("label", before, _number(old, before), "")
        elif after != before:
            was, now = (
                f"{name} ({_number(it, name)})" for it, name in ((old, before), (new, after))
            )
            yield SettingChange("label", after, was, now)
        elif old.ssidref(before) != new.ssidref(after):
            yield SettingChange("label", after, _number(old, before), _number(new, after))
    for name in new.labels:
        if name not in kept:
            yield SettingChange("label", name, "", _number(new, name))


def _number(policy: Policy, label: str) -> str:
    return f"ssidref {policy.ssidref(label)}"


def _resources(old: Definition, new: Definition) -> Iterator[SettingChange]:
    before = {it.name: _resource(it.device_class, dict(it.match)) for it in old.resources}
    now = {it.name: _resource(it.device_class, dict(it.match)) for it in new.resources}
    yield from _compared("resource", before, now)


def _resource(device_class: str | None, match: dict[str, str]) -> str:
    if device_class is None:
        return "no match"
    return ", ".join([f"match {device_class}", *(f"{key} {match[key]}" for key in sorted(match))])


def _classes(old: Definition, new: Definition) -> Iterator[SettingChange]:
    before = {it.name: f"protocol {it.protocol}, default {it.default}" for it in old.classes}
    now = {it.name: f"protocol {it.protocol}, default {it.default}" for it in new.classes}
    yield from _compared("class", before, now)


def _settings(old: Definition, new: Definition) -> Iterator[SettingChange]:
    yield from _compared("setting", _settings_of(old), _settings_of(new))


def _settings_of(definition: Definition) -> dict[str, str]:
    observe = definition.observe
    said = {
        "bootstrap": definition.bootstrap,
        "host_authorization": "true" if definition.host_authorization else "false",
        "on_violation": ", ".join(f"{k} {v}" for k, v in sorted(definition.on_violation.items())),
        "mode": "enforce" if observe is None else f"observe until {observe.last_day}",
        "protected": ", ".join(sorted(definition.protected)),
        "roles": "" if not definition.roles else repr(definition.roles),
    }
    if observe is not None:
        said["observe opens"] = "; ".join(map(repr, observe.opens))
    return said


def _compared(what: What, before: dict[str, str], now: dict[str, str]) -> Iterator[SettingChange]:
    for name in dict.fromkeys([*before, *now]):
        if before.get(name, "") != now.get(name, "") or (name in before) != (name in now):
            yield SettingChange(what, name, before.get(name, ""), now.get(name, ""))
