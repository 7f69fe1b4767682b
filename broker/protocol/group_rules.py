"""The rules of numbered keys: which instances there have to be, and what stands in them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from broker.protocol.conditions import SIDES, all_of, operand, reference, states_spoken_of
from broker.protocol.instances import expanded, name_of
from broker.protocol.rule import (
    EVER,
    Rule,
    check_for,
    described,
    keeper,
    looks,
    names_in,
)
from broker.protocol.values import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.protocol.conditions import Keys, Operand, Test
    from broker.protocol.form import GroupForm, KeyForm
    from broker.protocol.rule import Ends, Name


def group_rules(ends: Ends, name: str, group_name: str, group: GroupForm) -> Iterator[Rule]:
    """Every rule of one group of one end."""
    instances = Instances(ends, name, group)
    for template, key in group.keys.items():
        yield _type_rule(name, group, str(template), key)
        if key.required:
            yield _required_rule(ends, name, instances, str(template), key)
        if key.allowed_if:
            yield _allowed_rule(ends, name, group, str(template), key)
    if group.count or group.only_if:
        yield _exact_rule(ends, name, group_name, instances)


class Instances:
    """Which instances of a group there have to be, as both ends show it now."""

    def __init__(self, ends: Ends, name: str, group: GroupForm) -> None:
        self.group = group
        self._name = name
        self.numbers: dict[str, tuple[int, ...]] = {}
        for template in group.keys:
            self.numbers.update(expanded(group, template))
        self._each = {} if group.each is None else expanded(group, group.each)
        self._only_if = all_of(group.only_if, ends.defaults, unknown=False)
        self._counts: list[Operand] = [operand(text, ends.defaults) for text in group.count]
        self.keys: set[Name] = names_in(group.only_if)
        for text in group.count:
            found = reference(text)
            if found is not None:
                self.keys.add((found.side, found.key))
        self.stateful = any(map(states_spoken_of, group.only_if))

    def called_for(self, front: Keys, back: Keys, f: int, b: int) -> bool:
        """Whether the group has a place at all."""
        return self._only_if is None or self._only_if(front, back, f, b)

    def ranges(self, front: Keys, back: Keys) -> list[range] | None:
        """How many there have to be, a dimension each; None where it cannot be told."""
        counts = [number(read(front, back)) for read in self._counts]
        first = self.group.first
        found = []
        for count, most in zip(counts, self.group.instances, strict=True):
            if count is None:
                return None
            found.append(range(first, first + min(count, most)))
        return found

    def wanted(self, front: Keys, back: Keys) -> Iterable[tuple[int, ...]]:
        """The instances there have to be."""
        if self._each:
            own = front if self._name == SIDES[0] else back
            return [self._each[name] for name in own if name in self._each]
        if not self._counts:
            return ()
        ranges = self.ranges(front, back)
        return () if ranges is None else itertools.product(*ranges)


def _type_rule(name: str, group: GroupForm, template: str, key: KeyForm) -> Rule:
    names = frozenset(expanded(group, template))
    check = check_for(key)

    def bad(own: Keys, *_: object) -> bool:
        return any(it in names and not check(value) for it, value in own.items())

    return Rule(
        f"{name}.{template}.type",
        keeper(name, key),
        f"is not {described(key)}",
        EVER,
        looks(name, bad),
        frozenset((name, it) for it in names),
    )


def _required_rule(
    ends: Ends, name: str, instances: Instances, template: str, key: KeyForm
) -> Rule:
    needed = all_of(key.needed_if, ends.defaults, unknown=False)

    def missing(front: Keys, back: Keys, f: int, b: int) -> bool:
        own = front if name == SIDES[0] else back
        return (
            instances.called_for(front, back, f, b)
            and (needed is None or needed(front, back, f, b))
            and any(name_of(template, it) not in own for it in instances.wanted(front, back))
        )

    conditions = (*key.needed_if, *instances.group.only_if)
    keys = {(name, it) for it in instances.numbers} | instances.keys | names_in(key.needed_if)
    return Rule(
        f"{name}.{template}.required",
        keeper(name, key),
        f"{template} is missing in an instance that has to be there",
        ends.masks(name, key.by, conditions),
        missing,
        frozenset(keys),
        stateful=any(map(states_spoken_of, conditions)),
    )


def _allowed_rule(ends: Ends, name: str, group: GroupForm, template: str, key: KeyForm) -> Rule:
    names = frozenset(expanded(group, template))
    allowed: Test | None = all_of(key.allowed_if, ends.defaults, unknown=True)

    def uncalled(front: Keys, back: Keys, f: int, b: int) -> bool:
        own = front if name == SIDES[0] else back
        absent = names.isdisjoint(own)
        return not absent and allowed is not None and not allowed(front, back, f, b)

    return Rule(
        f"{name}.{template}.allowed",
        keeper(name, key),
        "stands there though nothing calls for it",
        ends.masks(name, key.by, key.allowed_if),
        uncalled,
        frozenset({(name, it) for it in names} | names_in(key.allowed_if)),
        stateful=any(map(states_spoken_of, key.allowed_if)),
    )


def _exact_rule(ends: Ends, name: str, group_name: str, instances: Instances) -> Rule:
    """No instance stands there beyond those there have to be."""
    numbers = instances.numbers

    def beyond(front: Keys, back: Keys, f: int, b: int) -> bool:
        own = front if name == SIDES[0] else back
        if numbers.keys().isdisjoint(own):
            return False
        present = [numbers[it] for it in own if it in numbers]
        if not instances.called_for(front, back, f, b):
            return True
        ranges = instances.ranges(front, back) if instances.group.count else None
        if ranges is None:
            return False
        return any(
            it not in wanted
            for instance in present
            for it, wanted in zip(instance, ranges, strict=True)
        )

    first = next(iter(instances.group.keys.values()))
    return Rule(
        f"{name}.{group_name}.exact",
        keeper(name, first),
        "has instances that nothing calls for",
        ends.masks(name, first.by, instances.group.only_if),
        beyond,
        frozenset({(name, it) for it in numbers} | instances.keys),
        stateful=instances.stateful,
    )
