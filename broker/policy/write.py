"""A policy as YAML, as a person would write it: what `load_policy` reads back the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP, Between, Label, Resource, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.core.definition import Attached, Definition, DeviceClass, Grant, Observe, Pattern

_WIDTH: Final = 100
_PLAIN: Final = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_.()/+@-]*(?::[A-Za-z0-9_.()-]+)?")
Flow = str | Sequence["Flow"] | Mapping[str, "Flow"]
"""What is written in one line where it fits: a text, a list, a mapping."""


Comments = Mapping[tuple[str, str], Sequence[str]]
"""Lines to be written about an entry, by section and name."""


def policy_text(
    definition: Definition, heading: Iterable[str] = (), comments: Comments | None = None
) -> str:
    """The policy as YAML below comment lines; `digest`, `where` and rules' names are left out.

    Rules stand in the order of their names (`channels[N]`). `comments` are printable, for
    entries of `ste_types`, `chinese_wall_types`, `conflict_sets`, `labels` and `resources`.
    """
    told = comments or {}
    parts = [[f"# {line}".rstrip() for line in heading], _head(definition)]
    parts.append(_types(definition, told))
    parts.append(_labels(definition, told))
    parts.append(_block("groups", _groups(definition), told))
    parts.append(_resources(definition.resources, told))
    parts.append(_classes(definition))
    parts.append(_channels(definition))
    parts.append(_settings(definition))
    return "\n".join("".join(f"{line}\n" for line in part) for part in parts if part)


def rule_lines(rule: Rule | Between) -> list[str]:
    """One rule of `channels`: `  - {allow: {class: vbd, ...}}`, or over several lines."""
    said = _rule(rule)
    line = f"  - {_flow({rule.verb: said})}"
    if len(line) <= _WIDTH:
        return [line]
    first, *more = _entry(rule.verb, said, 4)
    return [first.replace("    ", "  - ", 1), *more]


def entry_lines(
    thing: Label | Resource | DeviceClass, filters: Mapping[str, tuple[Attached, ...]]
) -> list[str]:
    """A label, resource or class as it stands below its section's name."""
    if isinstance(thing, Label):
        return _entry(thing.name, _label(thing, filters), 2)
    if isinstance(thing, Resource):
        return _entry(thing.name, _resource(thing), 2)
    return _entry(thing.name, _class(thing), 2)


def _head(definition: Definition) -> list[str]:
    lines = [f"policy: {definition.name}", f'version: "{_version(definition.version)}"']
    if definition.replaces is not None:
        name, version = definition.replaces
        lines.append(f'from: {{policy: {name}, version: "{_version(version)}"}}')
    return lines


def _types(definition: Definition, comments: Comments) -> list[str]:
    lines = _list("ste_types", definition.ste_types, comments)
    if definition.chinese_wall_types:
        lines += _list("chinese_wall_types", definition.chinese_wall_types, comments)
    return [*lines, *_block("conflict_sets", dict(definition.conflict_sets), comments)]


def _list(key: str, names: tuple[str, ...], comments: Comments) -> list[str]:
    """Names in a line; one on each where there is something to say about them."""
    if not any((key, name) in comments for name in names):
        return _entry(key, names)
    lines = [f"{key}:"]
    for name in names:
        said = "; ".join(comments.get((key, name), ()))
        lines.append(f"  - {_scalar(name)}" + (f"  # {said}" if said else ""))
    return lines


def _labels(definition: Definition, comments: Comments) -> list[str]:
    lines = [f"bootstrap: {definition.bootstrap}"]
    if not definition.host_authorization:
        lines.append("host_authorization: false")
    labels = {it.name: _label(it, definition.filters) for it in definition.labels}
    return [*lines, *_block("labels", labels, comments)]


def _groups(definition: Definition) -> dict[str, Flow]:
    groups: dict[str, Flow] = {}
    for name, members in definition.groups.items():
        attached = _filters(definition.filters.get(GROUP + name, ()))
        groups[name] = {"labels": members, "filters": attached} if attached else members
    return groups


def _filters(attached: Iterable[Attached]) -> tuple[Flow, ...]:
    return tuple(
        {
            "profile": it.profile,
            "with": {name: _one_or_list(values) or () for name, values in it.given.items()},
        }
        if it.given
        else it.profile
        for it in attached
    )


def _label(label: Label, filters: Mapping[str, tuple[Attached, ...]]) -> Flow:
    return _without_empty(
        {
            "ste": label.ste,
            "chinese_wall": label.chinese_wall,
            "colours": label.colours,
            "was": label.was or (),
            "filters": _filters(filters.get(label.name, ())),
        }
    )


def _resources(resources: Sequence[Resource], comments: Comments) -> list[str]:
    return _block("resources", {it.name: _resource(it) for it in resources}, comments)


def _resource(resource: Resource) -> Flow:
    match: dict[str, Flow] = {}
    if resource.device_class is not None:
        match = {"class": resource.device_class, **resource.match}
    return _without_empty(
        {"ste": (resource.ste,), "colour": _one_or_list(resource.colours) or (), "match": match}
    )


def _classes(definition: Definition) -> list[str]:
    return _block("classes", {it.name: _class(it) for it in definition.classes})


def _class(entry: DeviceClass) -> Flow:
    return {"protocol": entry.protocol, "default": entry.default}


def _channels(definition: Definition) -> list[str]:
    rules: list[Rule | Between] = [*definition.rules, *definition.betweens]
    if not rules:
        return []
    # Names are `channels[N]`: by length, then by text, is by N.
    rules.sort(key=lambda rule: (len(rule.name), rule.name))
    return ["channels:", *(line for rule in rules for line in rule_lines(rule))]


def _rule(rule: Rule | Between) -> Flow:
    if isinstance(rule, Between):
        return _without_empty({"class": "vif", "between": rule.pair, "reason": rule.reason or ()})
    said: dict[str, Flow] = {"class": _one_or_list(rule.classes) or ()}
    for side, words in (("frontend", rule.frontends), ("backend", rule.backends)):
        if words is not None or rule.verb == "allow":
            said[side] = _one_or_list(words) or "any"
    if rule.resources is not None:
        said["resource"] = _one_or_list(rule.resources) or ()
    if rule.mode != ("w" if rule.verb == "allow" else "r"):
        said["mode"] = rule.mode
    if rule.reason:
        said["reason"] = rule.reason
    return said


def _settings(definition: Definition) -> list[str]:
    lines = []
    if definition.on_violation != {"default": "close"}:
        lines += _entry("on_violation", dict(definition.on_violation))
    if definition.protected:
        lines += _entry("protected", definition.protected)
    if definition.observe is not None:
        lines += ["mode:", *_entry("observe", _observe(definition.observe), 2)]
    if definition.roles:
        roles = {name: [_grant(it) for it in grants] for name, grants in definition.roles.items()}
        lines += _block("roles", roles)
    return lines


def _grant(grant: Grant) -> Flow:
    said = _without_empty(
        {
            "verbs": grant.verbs,
            "label": grant.labels or (),
            "colour": grant.colours or (),
            "class": grant.classes or (),
            "resource": grant.resources or (),
            "domain": grant.domains or (),
        }
    )
    return {**said, "second_person": "true"} if grant.second_person else said


def _observe(observe: Observe) -> Flow:
    opens = [_pattern(pattern) for pattern in observe.opens]
    return {"opens": opens, "until": observe.last_day}


def _pattern(pattern: Pattern) -> Flow:
    return _without_empty(
        {
            "class": _one_or_list(pattern.classes) or (),
            "frontend": _one_or_list(pattern.frontends) or (),
            "backend": _one_or_list(pattern.backends) or (),
            "resource": _one_or_list(pattern.resources) or (),
        }
    )


def _one_or_list(names: tuple[str, ...] | None) -> Flow | None:
    return names if names is None or len(names) != 1 else names[0]


def _without_empty(values: Mapping[str, Flow]) -> dict[str, Flow]:
    return {key: value for key, value in values.items() if value not in ((), {})}


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _block(key: str, values: Mapping[str, Flow], comments: Comments | None = None) -> list[str]:
    if not values:
        return []
    lines = [f"{key}:"]
    for name, value in values.items():
        lines += [f"  # {said}" for said in (comments or {}).get((key, name), ())]
        lines += _entry(name, value, 2)
    return lines


def _entry(key: str, value: Flow, indent: int = 0) -> list[str]:
    """`key: value` in one line where that fits, else over several."""
    start = f"{' ' * indent}{_scalar(key)}:"
    whole = f"{start} {_flow(value)}"
    if len(whole) <= _WIDTH or isinstance(value, str) or not value:
        return [whole]
    if isinstance(value, Mapping):
        return [start, *(line for name in value for line in _entry(name, value[name], indent + 2))]
    return [start, *_wrapped(value, indent + 2)]


def _wrapped(items: Sequence[Flow], indent: int) -> Iterator[str]:
    line = f"{' ' * indent}["
    for number, item in enumerate(items):
        piece = _flow(item) + ("]" if number == len(items) - 1 else ",")
        if len(line) + len(piece) > _WIDTH and line.strip("[ "):
            yield line.rstrip()
            line = " " * (indent + 1)
        line += f"{piece} "
    yield line.rstrip()


def _flow(value: Flow) -> str:
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, Mapping):
        pairs = (f"{_scalar(key)}: {_flow(held)}" for key, held in value.items())
        return f"{{{', '.join(pairs)}}}"
    return f"[{', '.join(map(_flow, value))}]"


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return str(text)
    return f'"{"".join(map(_quoted, text))}"'


def _quoted(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
