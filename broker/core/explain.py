"""What was judged, in words: every rule that spoke, with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core import class_table
from broker.core.verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.core.class_table import ClassTable
    from broker.core.definition import Label, Resource, Rule


def grant_reasons(
    table: ClassTable, frontend: Label, backend: Label, rules: Iterable[Rule]
) -> Iterator[Reason]:
    """Why a channel is granted: the rules that allow it, and the class's default."""
    for rule in rules:
        yield rule_reason(rule)
    if not table.no_allow:
        shared = ", ".join(name for name in frontend.ste if name in backend.ste)
        name = table.device_class.name
        text = f"class {name} is granted where an STE type is shared: {shared}"
        yield Reason(f"classes.{name}", text, table.device_class.where)


def deny_reasons(
    table: ClassTable,
    frontend: Label,
    backend: Label,
    resource: Resource | None,
    against: int,
) -> Iterator[Reason]:
    """Everything but deny rules that stands against a channel, as `ClassTable.judge` found it."""
    name = table.device_class.name
    if against & class_table.NO_SHARED_TYPE:
        text = f"{frontend.name} and {backend.name} share no STE type"
        yield Reason("ste", text, frontend.where)
    if against & class_table.NO_RESOURCE:
        text = f"class {name} needs a resource, and none matched"
        yield Reason("resource", text, table.device_class.where)
    if resource is not None:
        for bit, label in (
            (class_table.FRONTEND_RESOURCE, frontend),
            (class_table.BACKEND_RESOURCE, backend),
        ):
            if against & bit:
                text = f"{label.name} lacks STE type {resource.ste} of resource {resource.name}"
                yield Reason("ste", text, resource.where)
        if against & class_table.COLOUR:
            lacked = ", ".join(c for c in resource.colours if c not in frontend.colours)
            text = f"{frontend.name} lacks colour {lacked} of resource {resource.name}"
            yield Reason("colour", text, resource.where)
    if against & class_table.NO_ALLOW:
        text = f"no rule allows it, and class {name} has default deny"
        yield Reason(f"classes.{name}", text, table.device_class.where)


def rule_reason(rule: Rule) -> Reason:
    """A rule as a reason: what its author wrote, or else the rule in words."""
    return Reason(rule.name, rule.reason or str(rule), rule.where)
