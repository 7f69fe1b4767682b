"""The numbered keys of a description: `queue-{}/tx-ring-ref` and the names it stands for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.protocol.form import GroupForm, KeyForm, SideForm

MARK = "{}"


def numbers(group: GroupForm) -> Iterator[tuple[int, ...]]:
    """Every instance of a group that is looked at, in order."""
    return itertools.product(*(range(group.first, group.first + n) for n in group.instances))


def name_of(template: str, instance: tuple[int, ...]) -> str:
    """The key's name in one instance."""
    return template.format(*instance)


def expanded(group: GroupForm, template: str) -> dict[str, tuple[int, ...]]:
    """Every name a template stands for, with its instance."""
    return {name_of(template, instance): instance for instance in numbers(group)}


def key_names(side: SideForm) -> Iterator[tuple[str, KeyForm]]:
    """Every key of an end by its full name, numbered ones included."""
    yield from side.keys.items()
    for group in side.groups.values():
        for template, key in group.keys.items():
            for name in expanded(group, template):
                yield name, key


def described_names(side: SideForm) -> dict[str, tuple[str, KeyForm]]:
    """Every key of an end by its full name, with the name it is described under."""
    found = {str(name): (str(name), key) for name, key in side.keys.items()}
    for group in side.groups.values():
        for template, key in group.keys.items():
            found.update(dict.fromkeys(expanded(group, template), (str(template), key)))
    return found
