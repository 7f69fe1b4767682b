"""A policy as ACM's XML: what ACM can say, and a list of what it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

import msgspec

from broker.policy.acm.schema import NAMESPACE
from broker.text.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.core.definition import Between, Definition, Rule

_ROOT: Final = "SecurityPolicyDefinition"
_STE: Final = "SimpleTypeEnforcementTypes"
_WALL: Final = "ChineseWallTypes"
_TAB: Final = "\t"


class Exported(msgspec.Struct, frozen=True):
    """The XML, and at their places: what would be decided otherwise, and what else is left out."""

    text: str
    decided_otherwise: tuple[Problem, ...]
    left_out: tuple[Problem, ...]


def export_acm(definition: Definition, source: str) -> Exported:
    """The policy in ACM's dialect of 2006 to 2011; `source` is the policy's file.

    Labels stand in the order of their numbers, so that ACM's C compiler, and an import in
    document order, number them as here.
    """
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<{_ROOT} xmlns="{NAMESPACE}">']
    lines += _indented(_body(definition))
    lines += [f"</{_ROOT}>", ""]
    return Exported(
        "\n".join(lines),
        tuple(_decided_otherwise(definition, source)),
        tuple(_left_out(definition, source)),
    )


def _body(definition: Definition) -> Iterator[str]:
    yield from _element("PolicyHeader", _header(definition))
    yield from _element("SimpleTypeEnforcement", _element(_STE, _types(definition.ste_types)))
    walled = bool(definition.chinese_wall_types)
    if walled:
        yield from _element("ChineseWall", _wall(definition), ' priority="PrimaryPolicyComponent"')
    yield from _element("SecurityLabelTemplate", _labels(definition, walled=walled))


def _header(definition: Definition) -> Iterator[str]:
    yield _leaf("PolicyName", definition.name)
    yield _leaf("Version", _version(definition.version))
    if definition.replaces is not None:
        name, version = definition.replaces
        yield from _element(
            "FromPolicy", [_leaf("PolicyName", name), _leaf("Version", _version(version))]
        )


def _wall(definition: Definition) -> Iterator[str]:
    yield from _element(_WALL, _types(definition.chinese_wall_types))
    if definition.conflict_sets:
        sets: list[str] = []
        for name, types in definition.conflict_sets.items():
            sets += _element("Conflict", _types(types), f" name={quoteattr(name)}")
        yield from _element("ConflictSets", sets)


def _labels(definition: Definition, *, walled: bool) -> Iterator[str]:
    subjects: list[str] = []
    bootstrap = definition.bootstrap
    for label in sorted(definition.labels, key=lambda label: label.name != bootstrap):
        said = [
            _leaf("Name", label.name, "" if label.was is None else f" from={quoteattr(label.was)}")
        ]
        # Both kinds of types, if only empty: what lacks one ACM numbers in one half alone.
        said += _element(_STE, _types(label.ste))
        if walled:
            said += _element(_WALL, _types(label.chinese_wall))
        subjects += _element("VirtualMachineLabel", said)
    yield from _element("SubjectLabels", subjects, f" bootstrap={quoteattr(bootstrap)}")
    objects: list[str] = []
    for resource in definition.resources:
        said = [_leaf("Name", resource.name), *_element(_STE, _types((resource.ste,)))]
        objects += _element("ResourceLabel", said)
    if objects:
        yield from _element("ObjectLabels", objects)


def _types(names: Iterable[str]) -> list[str]:
    return [_leaf("Type", name) for name in names] or ["<Type/>"]


def _leaf(name: str, text: str, attributes: str = "") -> str:
    return f"<{name}{attributes}>{escape(text)}</{name}>"


def _element(name: str, content: Iterable[str], attributes: str = "") -> Iterator[str]:
    yield f"<{name}{attributes}>"
    yield from _indented(content)
    yield f"</{name}>"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"{_TAB}{line}" for line in lines)


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _problem(where: str, source: str, message: str) -> Problem:
    file, line, column = where.rsplit(":", 2) if where else (source, "1", "1")
    return Problem(file, int(line), int(column), message)


def _decided_otherwise(definition: Definition, source: str) -> Iterator[Problem]:
    rules: tuple[Rule | Between, ...] = (*definition.rules, *definition.betweens)
    for rule in rules:
        yield _problem(rule.where, source, f"ACM has no rules; lost: {rule}")
    for entry in definition.classes:
        if entry.default != "ste":
            said = f"ACM has no classes: {entry.name} would be granted wherever types are shared"
            yield _problem(entry.where, source, said)
    for resource in definition.resources:
        if resource.colours:
            said = f"ACM has no colours; lost of resource {resource.name}"
            yield _problem(resource.where, source, said)
    if not definition.host_authorization:
        yield _problem("", source, "ACM always holds labels to domain 0's types to run")
    for attached in definition.filters.values():
        yield _problem(attached[0].where, source, "ACM has no filter profiles")
    if definition.observe is not None:
        yield _problem(definition.observe.where, source, "ACM has no observe mode")


def _left_out(definition: Definition, source: str) -> Iterator[Problem]:
    for resource in definition.resources:
        if resource.device_class is not None:
            said = f"match of resource {resource.name}: ACM labelled devices outside the policy"
            yield _problem(resource.where, source, said)
    for what, held in (
        ("groups", definition.groups),
        ("on_violation", len(definition.on_violation) > 1),
        ("protected", definition.protected),
        ("roles", definition.roles),
    ):
        if held:
            yield _problem("", source, f"'{what}' has no place in ACM")
