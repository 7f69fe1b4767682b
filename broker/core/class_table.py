"""One class of channels, compiled, and the one function that judges a channel of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.core.definition import NEEDS_RESOURCE
from broker.core.rules import ALL_BITS, BITS_OF_MODE, RuleIndex

if TYPE_CHECKING:
    from broker.core.definition import Definition, DeviceClass
    from broker.core.masks import Numbering
    from broker.core.rules import Row

# What can stand against a channel, a bit each.
NO_SHARED_TYPE: Final = 1
NO_RESOURCE: Final = 2
FRONTEND_RESOURCE: Final = 4
BACKEND_RESOURCE: Final = 8
COLOUR: Final = 16
DENY_RULE: Final = 32
NO_ALLOW: Final = 64

if TYPE_CHECKING:
    # STE types; colours it lacks; what the rules say of it as a frontend. Most labels have rules
    # towards one word at the most, that name one resource at the most, which are then told in
    # full: the word, the bits, that resource, the bits for it. Others have their rows instead.
    _Frontend = tuple[int, int, str | tuple[Row, ...], int, str | None, int]
    # STE types; words for it as a backend.
    _Backend = tuple[int, tuple[str, ...]]
    # STE types; colours.
    _Target = tuple[int, int]


class ClassTable:
    """The labels, resources and rules of a policy as one class sees them."""

    __slots__ = (
        "_backends",
        "_by_rules",
        "_frontends",
        "_no_resource",
        "_targets",
        "device_class",
        "no_allow",
        "rules",
    )

    def __init__(
        self,
        definition: Definition,
        device_class: DeviceClass,
        types: Numbering,
        colours: Numbering,
    ) -> None:
        self.device_class = device_class
        self.no_allow = NO_ALLOW if device_class.default == "deny" else 0
        self.rules = RuleIndex(
            (rule for rule in definition.rules if device_class.name in rule.classes),
            definition.groups,
        )
        self._no_resource = NO_RESOURCE if device_class.name in NEEDS_RESOURCE else 0
        # What stands against a channel by the rules met, for each mode and set of their bits.
        self._by_rules = {
            mode: tuple(
                (DENY_RULE if met & deny else 0) | (0 if met & allow else self.no_allow)
                for met in range(ALL_BITS + 1)
            )
            for mode, (deny, allow) in BITS_OF_MODE.items()
        }
        # With thousands of labels the time goes into memory: what is equal is one object.
        same: dict[object, Any] = {}
        self._frontends: dict[str, _Frontend] = {}
        self._backends: dict[str, _Backend] = {}
        for label in definition.labels:
            ste = types.mask(label.ste)
            ste = same.setdefault(ste, ste)
            lacks = colours.everything & ~colours.mask(label.colours)
            lacks = same.setdefault(lacks, lacks)
            rows = self.rules.rows(label.name)
            self._frontends[label.name] = (ste, lacks, *_told(rows, same))
            words = self.rules.backend_words(label.name)
            backend = ste, tuple([same.setdefault(word, word) for word in words])
            self._backends[label.name] = same.setdefault(backend, backend)
        self._targets: dict[str, _Target] = {}
        for resource in definition.resources:
            target = types.mask((resource.ste,)), colours.mask(resource.colours)
            self._targets[resource.name] = same.setdefault(target, target)

    def judge(self, frontend: str, backend: str, resource: str | None, mode: str) -> int:
        """What stands against a channel: the bits above, 0 for nothing.

        The only place where a channel is judged: deciding and explaining both ask here.

        Raises:
            KeyError: a label, resource or mode that the policy does not have.
        """
        frontend_types, lacked_colours, told, met, named, met_there = self._frontends[frontend]
        backend_types, words = self._backends[backend]
        if isinstance(told, str):
            if told not in words:
                met = 0
            elif named is not None and named == resource:
                met = met_there
        else:
            met = _met(told, words, resource)
        against = self._by_rules[mode][met]
        if resource is None:
            if not frontend_types & backend_types:
                against |= NO_SHARED_TYPE
            return against | self._no_resource
        target_types, target_colours = self._targets[resource]
        # A resource has one type: who shares it with both ends shares one with each other.
        if not target_types & frontend_types & backend_types:
            against |= _untyped(frontend_types, backend_types, target_types)
        if target_colours & lacked_colours:
            against |= COLOUR
        return against


def _told(
    rows: tuple[Row, ...], same: dict[object, Any]
) -> tuple[str | tuple[Row, ...], int, str | None, int]:
    """What rows say, in full if that is little, else the rows themselves."""
    if not rows:
        return "", 0, None, 0
    if len(rows) == 1 and len(rows[0]) == 1:
        ((word, cell),) = rows[0].items()
        word = same.setdefault(word, word)
        if isinstance(cell, int):
            return word, cell, None, cell
        if len(cell) == 2:
            (_, met), (named, met_there) = cell.items()  # None comes first
            return word, met, same.setdefault(named, named), met_there
    return rows, 0, None, 0


def _met(rows: tuple[Row, ...], words: tuple[str, ...], resource: str | None) -> int:
    """The bits of all rules about one of the words, and the resource or none."""
    met = 0
    for row in rows:
        for word in words:
            cell = row.get(word)
            if cell is not None:
                met |= cell if isinstance(cell, int) else cell.get(resource, cell[None])
    return met


def _untyped(frontend_types: int, backend_types: int, target_types: int) -> int:
    """Which of the three share no type, where they do not all share one."""
    against = 0
    if not frontend_types & backend_types:
        against |= NO_SHARED_TYPE
    if not frontend_types & target_types:
        against |= FRONTEND_RESOURCE
    if not backend_types & target_types:
        against |= BACKEND_RESOURCE
    return against
