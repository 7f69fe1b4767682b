"""Frames between two domains' vifs: `between` rules.

A rule speaks about its two labels in either direction, and about one label with itself only
where both names are that label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.verdict import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.core.definition import Between


class Frames:
    """The `between` rules of a policy."""

    def __init__(self, rules: Iterable[Between]) -> None:
        self._denies: dict[tuple[str, str], list[Between]] = {}
        self._allows: dict[tuple[str, str], list[Between]] = {}
        self._restricted: dict[str, Between] = {}
        """Labels that some allow names: where one is involved, an allow must match."""
        self._named: set[str] = set()
        for rule in rules:
            self._named.update(rule.pair)
            by_pair = self._denies if rule.verb == "deny" else self._allows
            by_pair.setdefault(_ordered(*rule.pair), []).append(rule)
            if rule.verb == "allow":
                for label in rule.pair:
                    self._restricted.setdefault(label, rule)

    def judge(self, one: str, other: str) -> Verdict:
        """What the rules say about two labels (that share an STE type)."""
        pair = _ordered(one, other)
        denies = self._denies.get(pair)
        if denies:
            return Verdict(granted=False, reasons=tuple(map(_reason, denies)))
        allows = self._allows.get(pair)
        if allows:
            return Verdict(granted=True, reasons=tuple(map(_reason, allows)))
        for label in dict.fromkeys((one, other)):
            rule = self._restricted.get(label)
            if rule is not None:
                text = f"rules allow {label} some peers, and none is {_peer(label, pair)}"
                return Verdict(granted=False, reasons=(Reason(rule.name, text, rule.where),))
        return Verdict(granted=True, reasons=())

    def passes(self, one: str, other: str) -> bool:
        """The same without reasons."""
        pair = _ordered(one, other)
        if pair in self._denies:
            return False
        if pair in self._allows:
            return True
        return one not in self._restricted and other not in self._restricted

    def names(self, label: str) -> bool:
        """Whether any rule speaks of the label."""
        return label in self._named


def _reason(rule: Between) -> Reason:
    return Reason(rule.name, rule.reason or str(rule), rule.where)


def _ordered(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)


def _peer(label: str, pair: tuple[str, str]) -> str:
    return pair[1] if pair[0] == label else pair[0]
