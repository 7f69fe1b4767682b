"""Single changes to a policy: what each is in words, and the policy with it made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from broker.core.definition import DeviceClass, Label, Mode, Resource, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.core.definition import Between, Definition


class _Change(msgspec.Struct, frozen=True, tag=True):
    """A change; in JSON its kind is `type`."""


class AddType(_Change, frozen=True):
    """Give a label an STE type."""

    label: str
    ste: str

    def __str__(self) -> str:
        return f"give label {self.label} the STE type {self.ste}"


class AddColour(_Change, frozen=True):
    """Give a label a colour."""

    label: str
    colour: str

    def __str__(self) -> str:
        return f"give label {self.label} the colour {self.colour}"


class DropRule(_Change, frozen=True):
    """Take a deny away; narrowing it does as well."""

    rule: str
    where: str
    text: str

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"remove or narrow {self.rule}{place}: {self.text}"


class AddAllow(_Change, frozen=True):
    """Allow one more; as narrow as a rule can be."""

    device_class: str
    frontend: str
    backend: str
    resource: str | None
    mode: Mode

    def __str__(self) -> str:
        over = "" if self.resource is None else f" resource {self.resource}"
        mode = " for reading" if self.mode == "r" else ""
        return (
            f"allow {self.device_class} frontend {self.frontend} backend {self.backend}{over}{mode}"
        )


class AddLabel(_Change, frozen=True):
    """Define a label."""

    label: str
    ste: str

    def __str__(self) -> str:
        return f"define label {self.label} with the STE type {self.ste}"


class AddClass(_Change, frozen=True):
    """Define a class, closed but for rules, with the protocol description of its name."""

    device_class: str

    def __str__(self) -> str:
        return f"define class {self.device_class} with default deny"


class AddResource(_Change, frozen=True):
    """Define a resource; its match is for a person to write."""

    resource: str
    ste: str

    def __str__(self) -> str:
        return f"define resource {self.resource} with the STE type {self.ste}, and its match"


Change = AddType | AddColour | DropRule | AddAllow | AddLabel | AddClass | AddResource
SUGGESTED: Final = "suggested"
"""Where rules that are not in a file yet say they stand."""


def changed(definition: Definition, changes: Iterable[Change]) -> Definition:
    """The policy with every change made, in any order."""
    for change in changes:
        definition = _made(definition, change)
    return definition


def _made(definition: Definition, change: Change) -> Definition:
    match change:
        case AddType(label=name, ste=ste):
            labels = [_with_type(it, ste) if it.name == name else it for it in definition.labels]
            return replace(definition, labels=tuple(labels))
        case AddColour(label=name, colour=colour):
            labels = [
                replace(it, colours=_joined(it.colours, colour)) if it.name == name else it
                for it in definition.labels
            ]
            return replace(definition, labels=tuple(labels))
        case DropRule(rule=name):
            rules = tuple(it for it in definition.rules if it.name != name)
            return replace(definition, rules=rules)
        case AddAllow():
            return replace(definition, rules=(*definition.rules, _allow(definition, change)))
        case AddLabel(label=name, ste=ste):
            label = Label(name, (ste,), (), (), None, "")
            return replace(definition, labels=(*definition.labels, label))
        case AddClass(device_class=name):
            entry = DeviceClass(name, name, "deny", "")
            return replace(definition, classes=(*definition.classes, entry))
        case AddResource(resource=name, ste=ste):
            resource = Resource(name, ste, (), None, {}, "")
            return replace(definition, resources=(*definition.resources, resource))


def _with_type(label: Label, ste: str) -> Label:
    return replace(label, ste=_joined(label.ste, ste))


def _joined(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)


def _allow(definition: Definition, change: AddAllow) -> Rule:
    rules: tuple[Rule | Between, ...] = (*definition.rules, *definition.betweens)
    # Behind all others: `channels[N]` with the next number.
    number = max((int(rule.name[9:-1]) + 1 for rule in rules), default=0)
    return Rule(
        name=f"channels[{number}]",
        verb="allow",
        classes=(change.device_class,),
        frontends=(change.frontend,),
        backends=(change.backend,),
        resources=None if change.resource is None else (change.resource,),
        mode=change.mode,
        reason="",
        where=SUGGESTED,
    )
