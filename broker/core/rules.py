"""Attaching rules, indexed: for each class, which rules speak of a label or a resource.

A rule is a bit. What a name stands for on one side of a channel is the set of rules that
match it there, so the rules that match a whole request are one `&` of a few integers.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP
from broker.core.masks import bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.core.definition import Mode, Rule

_EVERYTHING: Final = None  # the selector of a rule's side that matches all
MODES: Final[tuple[Mode, ...]] = ("r", "w")


class RuleIndex:
    """The rules of one verb for one class."""

    def __init__(self, rules: Iterable[Rule], groups: Mapping[str, tuple[str, ...]]) -> None:
        # Those that say `any` get the low bits: most labels' sets are then short integers.
        self.rules = tuple(sorted(rules, key=_names_sides))
        self.groups_of: defaultdict[str, list[str]] = defaultdict(list)
        for group, members in groups.items():
            for label in members:
                self.groups_of[label].append(GROUP + group)
        self.frontends = self._by_selector(lambda rule: rule.frontends)
        self.backends = self._by_selector(lambda rule: rule.backends)
        self.resources = self._by_selector(lambda rule: rule.resources)
        self.by_mode = {mode: self._covering(mode) for mode in MODES}

    def _by_selector(
        self, side: Callable[[Rule], tuple[str, ...] | None]
    ) -> defaultdict[str | None, int]:
        masks: defaultdict[str | None, int] = defaultdict(int)
        for number, rule in enumerate(self.rules):
            selectors = side(rule)
            for selector in (_EVERYTHING,) if selectors is None else selectors:
                masks[selector] |= 1 << number
        return masks

    def _covering(self, mode: Mode) -> int:
        """The rules that a request of `mode` meets.

        An allow covers requests up to its mode. A deny of `w` stops those that write, a deny
        of `r` all.
        """
        mask = 0
        for number, rule in enumerate(self.rules):
            meets = mode == "r" or rule.mode == "w"
            if rule.verb == "deny":
                meets = mode == "w" or rule.mode == "r"
            mask |= meets << number
        return mask

    def matching_label(self, masks: Mapping[str | None, int], label: str) -> int:
        """The rules that one side's `masks` hold for `label`: by name, by group, by `any`."""
        mask = masks.get(label, 0) | masks.get(_EVERYTHING, 0)
        for group in self.groups_of.get(label, ()):
            mask |= masks.get(group, 0)
        return mask

    def matching_resource(self, resource: str | None) -> int:
        """The rules that do not hinge on a resource, and those that name this one."""
        mask = self.resources.get(_EVERYTHING, 0)
        return mask if resource is None else mask | self.resources.get(resource, 0)

    def named(self, mask: int) -> list[Rule]:
        """The rules in a set, in the order of the file."""
        return sorted((self.rules[number] for number in bits(mask)), key=_position)


def _names_sides(rule: Rule) -> int:
    return (rule.frontends is not None) + (rule.backends is not None)


def _position(rule: Rule) -> tuple[int, str]:
    # Names are `channels[N]`: N in numeric order.
    return len(rule.name), rule.name
