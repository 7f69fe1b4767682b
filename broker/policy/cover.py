"""Which rules say nothing new: each compared with all others at once, by masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP
from broker.core.masks import bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from broker.core.definition import Rule

_ANY: Final = "any"


class _Side:
    """One side of the rules: which name a word; and (found when asked) which cover it."""

    def __init__(self, masks: dict[str, int]) -> None:
        self.masks = masks
        self.covering: dict[str, int] = {}


class Cover:
    """Rules of one verb, asked which of them cover another rule whole."""

    def __init__(self, rules: Sequence[Rule], groups: Mapping[str, tuple[str, ...]]) -> None:
        self.rules = rules
        self._members = {GROUP + group: members for group, members in groups.items()}
        self._groups_of: dict[str, list[str]] = {}
        for word, members in self._members.items():
            for label in members:
                self._groups_of.setdefault(label, []).append(word)
        self._all = (1 << len(rules)) - 1
        self._classes = self._by_word(lambda rule: rule.classes)
        self._frontends = _Side(self._by_word(lambda rule: rule.frontends))
        self._backends = _Side(self._by_word(lambda rule: rule.backends))
        self._resources = self._by_word(lambda rule: rule.resources)
        self._modes = self._by_word(lambda rule: (rule.mode,))

    def _by_word(self, side: Callable[[Rule], tuple[str, ...] | None]) -> dict[str, int]:
        masks: dict[str, int] = {}
        for number, rule in enumerate(self.rules):
            for word in side(rule) or (_ANY,):
                masks[word] = masks.get(word, 0) | 1 << number
        return masks

    def covering(self, rule: Rule, modes: Iterable[str]) -> list[int]:
        """The numbers of the rules of one of `modes` that match all requests `rule` matches."""
        mask = 0
        for mode in modes:
            mask |= self._modes.get(mode, 0)
        for device_class in rule.classes:
            mask &= self._classes.get(device_class, 0)
        mask &= self._side(self._frontends, rule.frontends)
        mask &= self._side(self._backends, rule.backends)
        everywhere = self._resources.get(_ANY, 0)
        for resource in rule.resources or (_ANY,):
            mask &= self._resources.get(resource, 0) | everywhere
        return bits(mask)

    def _side(self, side: _Side, words: tuple[str, ...] | None) -> int:
        everyone = side.masks.get(_ANY, 0)
        mask = self._all
        for word in words or ():
            mask &= everyone | self._word(side, word)
        return mask if words else everyone

    def _word(self, side: _Side, word: str) -> int:
        found = side.covering.get(word)
        if found is None:
            found = side.masks.get(word, 0)
            members = self._members.get(word, ())
            if members:
                every_member = self._all
                for member in members:
                    every_member &= self._word(side, member)
                found |= every_member
            for group in self._groups_of.get(word, ()):
                found |= side.masks.get(group, 0)
            side.covering[word] = found
        return found


def redundant(
    rules: Sequence[Rule], groups: Mapping[str, tuple[str, ...]]
) -> Iterable[tuple[Rule, Rule]]:
    """Pairs (a rule that says nothing new, the rule of its verb that says it already)."""
    for verb, most in (("allow", "w"), ("deny", "r")):
        cover = Cover([rule for rule in rules if rule.verb == verb], groups)
        for number, rule in enumerate(cover.rules):
            modes = {rule.mode, most}
            for other_number in cover.covering(rule, modes):
                other = cover.rules[other_number]
                # Of two that say the same the later one is superfluous.
                same = number in cover.covering(other, {other.mode, most})
                if other_number != number and (other_number < number or not same):
                    yield rule, other
                    break


def unreachable(
    rules: Sequence[Rule], groups: Mapping[str, tuple[str, ...]]
) -> Iterable[tuple[Rule, Rule]]:
    """Pairs (an allow that can never grant, the deny that stops all it would allow)."""
    denies = Cover([rule for rule in rules if rule.verb == "deny"], groups)
    for rule in rules:
        if rule.verb == "allow":
            stopping = denies.covering(rule, ("r",))
            if stopping:
                yield rule, denies.rules[stopping[0]]
