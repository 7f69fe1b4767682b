"""One class of channels, compiled, and the one function that judges a channel of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.core.definition import NEEDS_RESOURCE
from broker.core.rules import BITS_OF_MODE, RuleIndex

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
    # STE types; colours it lacks; rules about it as a frontend; words for it as a backend.
    _Side = tuple[int, int, tuple[Row, ...], tuple[str, ...]]
    # STE types; colours; what stands against it already.
    _Target = tuple[int, int, int]


class ClassTable:
    """The labels, resources and rules of a policy as one class sees them."""

    __slots__ = ("_sides", "_targets", "device_class", "no_allow", "rules")

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
        # With thousands of labels the time goes into memory: what is equal is one object.
        same: dict[object, Any] = {}
        self._sides: dict[str, _Side] = {}
        for label in definition.labels:
            ste = types.mask(label.ste)
            lacks = colours.everything & ~colours.mask(label.colours)
            words = self.rules.backend_words(label.name)
            rows = self.rules.rows(label.name)
            side = (ste, same.setdefault(lacks, lacks), rows, same.setdefault(words, words))
            self._sides[label.name] = side if rows else same.setdefault(side, side)
        missing = NO_RESOURCE if device_class.name in NEEDS_RESOURCE else 0
        self._targets: dict[str | None, _Target] = {None: (0, 0, missing)}
        for resource in definition.resources:
            target = types.mask((resource.ste,)), colours.mask(resource.colours), 0
            self._targets[resource.name] = same.setdefault(target, target)

    def judge(  # noqa: C901 - in one piece: a call would cost as much as several conditions
        self, frontend: str, backend: str, resource: str | None, mode: str
    ) -> int:
        """What stands against a channel: the bits above, 0 for nothing.

        The only place where a channel is judged: deciding and explaining both ask here.

        Raises:
            KeyError: a label, resource or mode that the policy does not have.
        """
        frontend_types, lacked_colours, rows, _ = self._sides[frontend]
        backend_types, _, _, backend_words = self._sides[backend]
        target_types, target_colours, against = self._targets[resource]
        deny_bit, allow_bit = BITS_OF_MODE[mode]
        met = 0
        for row in rows:
            for word in backend_words:
                cell = row.get(word)
                if cell is not None:
                    met |= cell if isinstance(cell, int) else cell.get(resource, cell[None])
        if not frontend_types & backend_types:
            against |= NO_SHARED_TYPE
        if resource is not None:
            if not frontend_types & target_types:
                against |= FRONTEND_RESOURCE
            if not backend_types & target_types:
                against |= BACKEND_RESOURCE
            if target_colours & lacked_colours:
                against |= COLOUR
        if met & deny_bit:
            against |= DENY_RULE
        if not met & allow_bit:
            against |= self.no_allow
        return against
