"""For a denial, the smallest changes that would grant it; nothing is changed here.

Each obstacle is met by the narrowest change that removes it; where one of several would do (which
of two labels gets which type) the one that lets the fewest others share comes first. The Chinese
Wall and host authorization are not asked, as in `Policy.decide`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

import msgspec

from broker.core.change import (
    AddAllow,
    AddClass,
    AddColour,
    AddLabel,
    AddResource,
    AddType,
    Change,
    DropRule,
)
from broker.core.definition import NEEDS_RESOURCE
from broker.core.reach import MODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.core.definition import Mode, Resource
    from broker.core.policy import Policy
    from broker.core.proofs import Request

_MOST: Final = 4
"""More ways to the same end would only be noise."""
_NEW: Final = "resource"


class Suggestion(msgspec.Struct, frozen=True):
    """Changes that, all made, grant `request`; it is the one asked, or one that asks less.

    Without changes: what is asked for now would already be granted that way.
    """

    request: Request
    changes: tuple[Change, ...]

    def words(self, asked: Request) -> list[str]:
        """For people: what to do, and where the request itself has to be another."""
        said = [str(change) for change in self.changes]
        if self.request[4] != asked[4]:
            said.append("ask for reading alone (mode r)")
        if self.request[3] != asked[3]:
            said.append(f"let the match of resource {self.request[3]} find the device")
        return said


def suggest_grant(policy: Policy, request: Request) -> tuple[Suggestion, ...]:
    """The smallest sets of changes that grant `request`, the smallest first; none if granted."""
    *_, mode = request
    if mode not in MODES or policy.decide(*request):
        return ()
    finder = _Finder(policy)
    found = list(finder.ways(request))
    if mode == "w":
        # Reading is less: it is worth saying where it takes fewer changes.
        least = min((len(it.changes) for it in found), default=0)
        reading = finder.ways((*request[:4], "r"))
        found += [it for it in reading if len(it.changes) < least][:1]
    found.sort(key=lambda it: len(it.changes))
    return tuple(found[:_MOST])


class _Finder:
    """Looks for the ways to one grant."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._definition = policy.definition
        self._labels = {label.name: label for label in policy.definition.labels}
        self._resources = {it.name: it for it in policy.definition.resources}
        self._defaults = {it.name: it.default for it in policy.definition.classes}

    def ways(self, request: Request) -> Iterator[Suggestion]:
        """Every way worth naming, each with all it takes."""
        device_class, frontend, backend, resource, _ = request
        if resource is None and device_class in NEEDS_RESOURCE:
            yield from self._with_some_resource(request)
            return
        held = None if resource is None else self._resources.get(resource)
        rest = (*self._colours(frontend, held), *self._rules(request))
        ends = tuple(dict.fromkeys((frontend, backend)))
        if held is not None:
            yield Suggestion(request, (*self._need(ends, held.ste), *rest))
            return
        for ste in self._types(ends):
            made = () if resource is None else (AddResource(resource, ste),)
            yield Suggestion(request, (*self._need(ends, ste), *made, *rest))

    def _with_some_resource(self, request: Request) -> Iterator[Suggestion]:
        """A disk that matches no resource: those it could be, by the changes they still need."""
        device_class, frontend, backend, _, mode = request
        names = [
            it.name for it in self._resources.values() if it.device_class in (None, device_class)
        ]
        if not names:
            new = next(
                it for n in itertools.count(1) if (it := f"{_NEW}_{n}") not in self._resources
            )
            names = [new]
        found = [
            way
            for name in names
            for way in self.ways((device_class, frontend, backend, name, mode))
        ]
        least = min((len(way.changes) for way in found), default=0)
        yield from [way for way in found if len(way.changes) == least][:_MOST]

    def _need(self, ends: Iterable[str], ste: str) -> Iterator[Change]:
        """What both ends lack to share this type."""
        for name in ends:
            label = self._labels.get(name)
            if label is None:
                yield AddLabel(name, ste)
            elif ste not in label.ste:
                yield AddType(name, ste)

    def _types(self, ends: Iterable[str]) -> list[str]:
        """Types that the ends could share, with the least to do; two of them at most."""
        known = [label for name in ends if (label := self._labels.get(name)) is not None]
        bootstrap = self._labels[self._definition.bootstrap]
        holders = Counter(ste for label in self._labels.values() for ste in label.ste)

        resources = Counter(it.ste for it in self._resources.values())

        def cost(ste: str) -> tuple[int, bool, int, int]:
            lacking = sum(ste not in label.ste for label in known)
            # With a type that domain 0 lacks a label would not run at all; with a type of
            # resources it might get those too.
            barred = self._definition.host_authorization and ste not in bootstrap.ste
            return lacking, barred, resources[ste], holders[ste]

        costs = {ste: cost(ste) for ste in self._definition.ste_types}
        best = sorted(costs, key=lambda ste: costs[ste])[:2]
        return [ste for ste in best if costs[ste][:2] == costs[best[0]][:2]]

    def _colours(self, frontend: str, resource: Resource | None) -> Iterator[Change]:
        label = self._labels.get(frontend)
        has = () if label is None else label.colours
        for colour in () if resource is None else resource.colours:
            if colour not in has:
                yield AddColour(frontend, colour)

    def _rules(self, request: Request) -> Iterator[Change]:
        """Denies that stop it, and the allow that it lacks."""
        device_class, frontend, backend, resource, mode = request
        for rule in self._policy.speaking("deny", request):
            yield DropRule(rule.name, rule.where, rule.reason or str(rule))
        default = self._defaults.get(device_class)
        if default is None:
            yield AddClass(device_class)
        if default != "ste" and not self._policy.speaking("allow", request):
            yield AddAllow(device_class, frontend, backend, resource, cast("Mode", mode))
