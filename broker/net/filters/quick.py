"""The short way of what most guests send most: IPv4 without a tag, from an own MAC and own address.

Where profiles look up both, `ether.src` and `ip.saddr`, each in a variable's values, one set holds
every combination of a port's two lists, and the ethertype behind the MAC: one look-up tells that it
is IPv4 and that both hold, and the rules behind it are compiled with that known. The set is no rule
of its own: what is not in it is asked the long way, so an element too few costs time alone. None is
too many, for they are made of the same values, in the same transactions, with the same ends.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.fields import ETHER_IPV4
from broker.filters.values import Span
from broker.net.filters.compile import PORT, Group, looked_up, single
from broker.net.filters.kinds import KINDS, TYPES, Bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.filters.model import Environment, Rule

QUICK_KINDS: Final = frozenset(name for name in KINDS if name.partition("-")[0] == "ip4")
"""What a frame can be that is in the set."""
_FIELDS: Final = ("ether.src", "ip.saddr")
_DIRECTION: Final = "from-guest"
_PORT: Final = PORT[_DIRECTION]
_WITH_TYPE: Final = "i64"
_MOST: Final = 64
"""Combinations of one port: one that has more goes the long way."""


class Quick(msgspec.Struct, frozen=True):
    """The set, the condition that a frame is in it, and conditions that then hold."""

    group: Group
    condition: str
    held: frozenset[str]

    @property
    def name(self) -> str:
        """Tells its chains from others."""
        return ".".join(variable for variable, _ in self.group.parts)


def quick_way(rules: Iterable[Rule], environment: Environment) -> Quick | None:
    """The short way of ports with these rules and variables; None if there is none."""
    asked: dict[str, str] = {}
    for rule in rules:
        for matches in rule.groups() if _DIRECTION in rule.directions else ():
            use = matches[0].use
            if len(matches) == 1 and use is not None and _singles(environment[use.name]):
                asked.setdefault(matches[0].field, use.name)
    if not asked.keys() >= {*_FIELDS}:
        return None
    held = []
    for field in _FIELDS:
        place = KINDS["ip4"].readings[field]
        if not isinstance(place, Bytes):
            return None
        held.append(looked_up(_PORT, [place.text], Group(((asked[field], place.type),))))
    station, address = (asked[field] for field in _FIELDS)
    group = Group(((station, _WITH_TYPE), (address, "i32")), product=True)
    texts = [TYPES[kind][0] for _, kind in group.parts]
    return Quick(group, looked_up(_PORT, texts, group), frozenset(held))


def combinations(
    group: Group, environment: Mapping[str, object], learned: Mapping[str, Mapping[int, float]]
) -> dict[tuple[tuple[int, int], ...], float | None]:
    """A port's keys in the set, and when each ends; `learned` are addresses by their variable."""
    (station, _), (address, _) = group.parts
    ends: Mapping[int, float | None] = learned.get(
        address, dict.fromkeys(_values(address, environment))
    )
    stations = [value << 16 | ETHER_IPV4 for value in _values(station, environment)]
    if len(stations) * len(ends) > _MOST:
        return {}
    return {
        ((one, one), (other, other)): end
        for one, (other, end) in itertools.product(stations, ends.items())
    }


def _values(name: str, environment: Mapping[str, object]) -> list[int]:
    bound = environment[name]
    return [it.low for it in bound if isinstance(it, Span)] if isinstance(bound, tuple) else []


def _singles(bound: object) -> bool:
    return isinstance(bound, tuple) and all(single(value) for value in bound)
