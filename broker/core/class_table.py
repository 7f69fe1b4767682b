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
    # STE types; colours it lacks; rules about it as a frontend (one row, and perhaps more);
    # words for it as a backend.
    _Side = tuple[int, int, Row, tuple[Row, ...], tuple[str, ...]]
    # STE types; colours.
    _Target = tuple[int, int]


class ClassTable:
    """The labels, resources and rules of a policy as one class sees them."""

    __slots__ = (
        "_by_rules",
        "_no_resource",
        "_sides",
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
        nothing: Row = {}
        self._sides: dict[str, _Side] = {}
        for label in definition.labels:
            ste = types.mask(label.ste)
            lacks = colours.everything & ~colours.mask(label.colours)
            words = self.rules.backend_words(label.name)
            row, *more = self.rules.rows(label.name) or (nothing,)
            self._sides[label.name] = (
                ste,
                same.setdefault(lacks, lacks),
                row,
                tuple(more),
                same.setdefault(words, words),
            )
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
        frontend_types, lacked_colours, row, more, _ = self._sides[frontend]
        backend_types, _, _, _, backend_words = self._sides[backend]
        met = 0
        for word in backend_words:
            cell = row.get(word)
            if cell is not None:
                met |= cell if isinstance(cell, int) else cell.get(resource, cell[None])
            for further in more:
                cell = further.get(word)
                if cell is not None:
                    met |= cell if isinstance(cell, int) else cell.get(resource, cell[None])
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
