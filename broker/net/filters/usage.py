"""A port's variables: what they are bound to by its profiles, and what its sets hold for it."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.bind import BindError, assigned, parse_bound, tuples, variables_of
from broker.filters.fields import FIELDS, STATE
from broker.filters.model import Use
from broker.filters.values import Span
from broker.net.filters.compile import FilterError, Group, merged, shape
from broker.net.filters.quick import combinations
from broker.net.model import MAX_PORTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.filters.model import Direction, Environment, Library

Key = tuple[tuple[int, int], ...]
"""The values of one combination, each as its lowest and highest."""


class Vif(msgspec.Struct, frozen=True):
    """What a port's profiles came to: the verdict for each direction, the sets they look into.

    `environment` has its variables, `learned` those that snooping fills. `notes`: its connections
    are noted.
    """

    verdicts: dict[Direction, str]
    groups: frozenset[Group]
    environment: Environment
    learned: tuple[str, ...]
    notes: bool = False

    def elements(self, addresses: Mapping[int, float]) -> dict[Group, dict[Key, float | None]]:
        """What its sets hold for it, with these IPv4 addresses learned, each until its end."""
        learned = dict.fromkeys(self.learned, addresses)
        return {group: _elements(group, self.environment, learned) for group in self.groups}


_parsed: Final = functools.lru_cache(maxsize=4 * MAX_PORTS)(parse_bound)
"""A thousand ports' values do not change with a profile."""


class Usage:
    """The variables that some profiles use, found once for all ports that have them.

    Raises:
        FilterError: a profile is not there.
    """

    def __init__(self, library: Library, names: tuple[str, ...]) -> None:
        try:
            self._variables = sorted(variables_of(library, names).items())
            self.rules = [rule for it in library.closure(names) for rule in it.rules()]
        except (BindError, KeyError) as error:
            raise FilterError(f"filter profiles {', '.join(names)}: {error}") from error
        rules = self.rules
        self.asks_for_states = any(it.field == STATE for rule in rules for it in rule.matches)
        """Whether connections of their ports are noted."""
        self._limits = {it.limit.name for it in rules if isinstance(it.limit, Use)}
        used = [match for rule in rules for match in rule.matches]
        self._matches = {(it.use.name, FIELDS[it.field].bits): it for it in used if it.use}
        self._stepping = [
            (rule, group) for rule in rules for group in rule.groups() if len(group) > 1
        ]

    def bind(self, given: Mapping[str, tuple[str, ...]]) -> tuple[Environment, tuple[str, ...]]:
        """The environment of a port, and what is to be learned: as `broker.filters.bind` does.

        Raises:
            FilterError: a variable has no value, or a wrong one.
        """
        try:
            environment, learned = assigned(self._variables, given, _parsed)
            for rule, group in self._stepping:
                tuples(rule, group, environment)
        except BindError as error:
            raise FilterError(str(error)) from error
        return environment, learned

    def variant(self, environment: Environment) -> str:
        """What of the variables the profiles' chains depend on, in a word; empty: nothing."""
        special = {shape(match, environment) for match in self._matches.values()} - {""}
        special |= {f"{name}={environment[name]}" for name in self._limits}
        return short(*sorted(special)) if special else ""


def _elements(
    group: Group, environment: Environment, learned: Mapping[str, Mapping[int, float]]
) -> dict[Key, float | None]:
    if group.product:
        return combinations(group, environment, learned)
    if group.parts and group.parts[0][0] in learned:
        return {((it, it),): end for it, end in learned[group.parts[0][0]].items()}
    return dict.fromkeys(_keys(group, environment))


def _keys(group: Group, environment: Mapping[str, object]) -> list[Key]:
    if not group.parts:
        return [()] if environment[group.of] else []
    lists = [_spans(environment[name]) for name, _ in group.parts]
    if len(lists) == 1:
        found = merged(lists[0]) if group.spans else sorted(set(lists[0]))
        return [((span.low, span.high),) for span in found]
    return sorted(
        {tuple((span.low, span.high) for span in row) for row in zip(*lists, strict=True)}
    )


def _spans(bound: object) -> list[Span]:
    return [span for span in bound if isinstance(span, Span)] if isinstance(bound, tuple) else []


def short(*words: str) -> str:
    """A name of twelve hexadecimal digits for what these words say."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
