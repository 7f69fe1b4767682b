"""What a policy grants, as sets: for a frontend, the backends it may attach to, all at once.

Labels are numbered, a set of them is an integer with those bits; so all pairs of a thousand
labels are a thousand rows. Comparing and proving work on these rows. They say nothing of their
own: tests hold every row to `Policy.decide`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.definition import GROUP, NEEDS_RESOURCE
from broker.core.masks import bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.core.definition import Definition, Label, Resource, Rule

MODES: Final = ("r", "w")
_ANY: Final = "any"


class _Cell(msgspec.Struct):
    """Backends that rules stop, and that they allow, when reading and when writing."""

    deny: list[int]
    allow: list[int]

    def join(self, other: _Cell) -> None:
        for mode in (0, 1):
            self.deny[mode] |= other.deny[mode]
            self.allow[mode] |= other.allow[mode]


def _empty() -> _Cell:
    return _Cell([0, 0], [0, 0])


class Row(msgspec.Struct, frozen=True):
    """One frontend in one class: backends open by rules or default, for each mode.

    `special` holds the same for resources that rules about this frontend name; types and colours
    are not in it.
    """

    plain: tuple[int, int]
    special: Mapping[str, tuple[int, int]]

    def open_for(self, resource: str | None) -> tuple[int, int]:
        """Backends open when reading and when writing `resource`."""
        return self.plain if resource is None else self.special.get(resource, self.plain)


_CLOSED: Final = Row((0, 0), {})


class Reach:
    """The grants of one policy. `names` numbers the labels; they may be more than the policy's.

    `called` says what a label of `names` is called in this policy, where it is another name.
    """

    def __init__(
        self, definition: Definition, names: Sequence[str], called: Mapping[str, str] | None = None
    ) -> None:
        self.names = tuple(names)
        self.labels: dict[str, Label] = {}
        own = {label.name: label for label in definition.labels}
        for name in names:
            label = own.get(name if called is None else called.get(name, ""))
            if label is not None:
                self.labels[name] = label
        self.resources = {resource.name: resource for resource in definition.resources}
        self.classes = {entry.name: entry for entry in definition.classes}
        self._bits = {name: 1 << number for number, name in enumerate(names)}
        self.everyone = 0
        bit_of: dict[str, int] = {}
        self.holders: dict[str, int] = dict.fromkeys(definition.ste_types, 0)
        """Of each STE type, the labels that have it."""
        for name, label in self.labels.items():
            self.everyone |= self._bits[name]
            bit_of[label.name] = self._bits[name]
            for ste in label.ste:
                self.holders[ste] |= self._bits[name]
        self._shared: dict[str, int] = {}
        """For each label, those it shares a type with."""
        self._held: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        for name, label in self.labels.items():
            shared = 0
            for ste in label.ste:
                shared |= self.holders[ste]
            self._shared[name] = shared
            self._held[name] = frozenset(label.ste), frozenset(label.colours)
        self._of_type: dict[str, dict[str, list[str]]] = {}
        self._words = {_ANY: self.everyone, **bit_of}
        self._groups_of: dict[str, list[str]] = {}
        for group, members in definition.groups.items():
            mask = 0
            for member in members:
                mask |= bit_of.get(member, 0)
                self._groups_of.setdefault(member, []).append(GROUP + group)
            self._words[GROUP + group] = mask
        self._cells = self._index(definition.rules)
        self._rows: dict[tuple[str, str], Row] = {}

    def _index(self, rules: Iterable[Rule]) -> dict[tuple[str, str], dict[str | None, _Cell]]:
        """By class and word for the frontend; by resource, None for rules that name none."""
        cells: dict[tuple[str, str], dict[str | None, _Cell]] = {}
        for rule in rules:
            backends = 0
            for word in (_ANY,) if rule.backends is None else rule.backends:
                backends |= self._words.get(word, 0)
            for device_class in rule.classes:
                for word in (_ANY,) if rule.frontends is None else rule.frontends:
                    by_resource = cells.setdefault((device_class, word), {})
                    for resource in (None,) if rule.resources is None else rule.resources:
                        _add(by_resource.setdefault(resource, _empty()), rule, backends)
        return cells

    def row(self, device_class: str, frontend: str) -> Row:
        """What rules and the class's default leave open to a frontend; nothing if unknown."""
        row = self._rows.get((device_class, frontend))
        if row is None:
            row = self._rows[device_class, frontend] = self._row(device_class, frontend)
        return row

    def _row(self, device_class: str, frontend: str) -> Row:
        entry, label = self.classes.get(device_class), self.labels.get(frontend)
        if entry is None or label is None:
            return _CLOSED
        base = _empty()
        named: dict[str, _Cell] = {}
        for word in (label.name, *self._groups_of.get(label.name, ()), _ANY):
            for resource, cell in self._cells.get((device_class, word), {}).items():
                (base if resource is None else named.setdefault(resource, _empty())).join(cell)
        otherwise = self.everyone if entry.default == "ste" else 0
        for cell in named.values():
            cell.join(base)
        return Row(
            _open(base, otherwise),
            {resource: _open(cell, otherwise) for resource, cell in named.items()},
        )

    def sharing(self, device_class: str, frontend: str, resource: str | None) -> int:
        """Backends that share the types that must be shared; none where a colour is lacking."""
        label = self.labels.get(frontend)
        if label is None:
            return 0
        if resource is None:
            return 0 if device_class in NEEDS_RESOURCE else self._shared[frontend]
        held = self.resources.get(resource)
        if held is None or not self._holds(frontend, held):
            return 0
        return self.holders[held.ste]

    def held(self, frontend: str) -> tuple[frozenset[str], frozenset[str]] | None:
        """The STE types and the colours of a label; None where the policy lacks it."""
        return self._held.get(frontend)

    def possible(self, device_class: str) -> list[str]:
        """The resources that a channel of this class can involve: matched by it, or by nothing."""
        return [
            resource.name
            for resource in self.resources.values()
            if resource.device_class in (None, device_class)
        ]

    def within_reach(self, device_class: str, frontend: str) -> list[str]:
        """Of the possible resources, those whose type and colours a frontend has."""
        label = self.labels.get(frontend)
        if label is None or device_class not in self.classes:
            return []
        of_type = self._of_type.get(device_class)
        if of_type is None:
            of_type = self._of_type[device_class] = {}
            for name in self.possible(device_class):
                of_type.setdefault(self.resources[name].ste, []).append(name)
        reachable = [name for ste in label.ste for name in of_type.get(ste, ())]
        return [name for name in reachable if self._holds(frontend, self.resources[name])]

    def _holds(self, frontend: str, resource: Resource) -> bool:
        types, colours = self._held[frontend]
        return resource.ste in types and colours.issuperset(resource.colours)

    def mask(self, names: Iterable[str]) -> int:
        """A set of labels; names that are not numbered are left out."""
        mask = 0
        for name in names:
            mask |= self._bits.get(name, 0)
        return mask

    def named(self, mask: int) -> tuple[str, ...]:
        """The labels in a set."""
        return tuple(self.names[number] for number in bits(mask))


def _add(cell: _Cell, rule: Rule, backends: int) -> None:
    # An allow covers requests up to its mode; a deny of `w` stops those that write, a deny of
    # `r` all of them.
    if rule.verb == "allow":
        cell.allow[0] |= backends
        if rule.mode == "w":
            cell.allow[1] |= backends
    else:
        cell.deny[1] |= backends
        if rule.mode == "r":
            cell.deny[0] |= backends


def _open(cell: _Cell, otherwise: int) -> tuple[int, int]:
    reading, writing = ((cell.allow[mode] | otherwise) & ~cell.deny[mode] for mode in (0, 1))
    return reading, writing
