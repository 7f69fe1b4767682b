"""Attaching rules, indexed: which rules speak of this frontend, this backend, this resource.

A rule is entered under the very words it uses (a label, a group, `any`), never under all that
they stand for. A label is found under its name, its groups and `any`; so what a request costs
does not grow with the number of labels or rules.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.core.definition import Rule

    # What the rules for one pair of words say, as the bits below; where some of them name
    # resources, by resource: None holds those that do not, and every other entry has them too.
    Cell = int | dict[str | None, int]
    # By what rules say of the backend.
    Row = dict[str, Cell]

_ANY: Final = "any"

# Bits of a cell: what a request of each mode meets there.
_DENY_R: Final = 1
_DENY_W: Final = 2
_ALLOW_R: Final = 4
_ALLOW_W: Final = 8
ALL_BITS: Final = _DENY_R | _DENY_W | _ALLOW_R | _ALLOW_W
BITS_OF_MODE: Final[dict[str, tuple[int, int]]] = {
    "r": (_DENY_R, _ALLOW_R),
    "w": (_DENY_W, _ALLOW_W),
}
"""The deny bit and the allow bit that a request of a mode looks for."""


class RuleIndex:
    """The rules of one class."""

    def __init__(self, rules: Iterable[Rule], groups: Mapping[str, tuple[str, ...]]) -> None:
        self._groups_of: defaultdict[str, list[str]] = defaultdict(list)
        for group, members in groups.items():
            for label in members:
                self._groups_of[label].append(GROUP + group)
        self._rules: dict[tuple[str, str], dict[str | None, list[Rule]]] = {}
        for rule in rules:
            for frontend in _words(rule.frontends):
                for backend in _words(rule.backends):
                    cell = self._rules.setdefault((frontend, backend), {None: []})
                    for resource in (None,) if rule.resources is None else rule.resources:
                        cell.setdefault(resource, []).append(rule)
        self._rows: dict[str, Row] = {}
        for (frontend, backend), by_resource in self._rules.items():
            self._rows.setdefault(frontend, {})[backend] = _cell(by_resource)
        self._backend_words = frozenset(backend for _, backend in self._rules)

    def _words_for(self, label: str) -> tuple[str, ...]:
        return (label, *self._groups_of.get(label, ()), _ANY)

    def rows(self, label: str) -> tuple[Row, ...]:
        """What there is about frontends of this label."""
        return tuple(self._rows[word] for word in self._words_for(label) if word in self._rows)

    def backend_words(self, label: str) -> tuple[str, ...]:
        """What rows may be asked for about backends of this label."""
        return tuple(word for word in self._words_for(label) if word in self._backend_words)

    def speaking(
        self, verb: str, frontend: str, backend: str, resource: str | None, mode: str
    ) -> list[Rule]:
        """The rules of one verb that a request meets, in the order of the file."""
        deny_bit, allow_bit = BITS_OF_MODE[mode]
        wanted = allow_bit if verb == "allow" else deny_bit
        found: dict[str, Rule] = {}
        for frontend_word in self._words_for(frontend):
            for backend_word in self._words_for(backend):
                by_resource = self._rules.get((frontend_word, backend_word), {})
                for name in dict.fromkeys((None, resource)):
                    for rule in by_resource.get(name, ()):
                        if rule.verb == verb and _bits(rule) & wanted:
                            found[rule.name] = rule
        # Names are `channels[N]`: by length, then by text, is by N.
        return [found[name] for name in sorted(found, key=lambda name: (len(name), name))]


def _words(side: tuple[str, ...] | None) -> tuple[str, ...]:
    return (_ANY,) if side is None else side


def _bits(rule: Rule) -> int:
    # An allow covers requests up to its mode; a deny of `w` stops those that write, a deny of
    # `r` all of them.
    if rule.verb == "allow":
        return _ALLOW_R | _ALLOW_W if rule.mode == "w" else _ALLOW_R
    return _DENY_W if rule.mode == "w" else _DENY_R | _DENY_W


def _cell(by_resource: Mapping[str | None, list[Rule]]) -> Cell:
    bits: dict[str | None, int] = {}
    for name, rules in by_resource.items():  # None comes first
        bits[name] = bits.get(None, 0)
        for rule in rules:
            bits[name] |= _bits(rule)
    return bits[None] if len(bits) == 1 else bits
