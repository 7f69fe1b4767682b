"""Six questions about all requests at once, each answered with a proof or a counterexample.

Never errors, always allows, always denies; and of two policies, or of two parties under one:
implies, equivalent, disjoint. Every request in question is looked at, as sets of backends.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from broker.core.alike import Alike
from broker.core.definition import NEEDS_RESOURCE
from broker.core.masks import bits
from broker.core.reach import MODES, Reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.core.policy import Policy

Single = Literal["never-errors", "always-allows", "always-denies"]
Double = Literal["implies", "equivalent", "disjoint"]
Request = tuple[str, str, str, str | None, str]
"""Class, frontend, backend, resource, mode: what `Policy.decide` is asked."""
MOST_ENUMERATED: Final = 5_000_000
"""More requests than this are not asked one by one: it would take minutes."""


class Space(msgspec.Struct, frozen=True):
    """Requests: every combination of these. `resources` None is all that a class can involve."""

    classes: tuple[str, ...]
    frontends: tuple[str, ...]
    backends: tuple[str, ...]
    resources: tuple[str | None, ...] | None
    modes: tuple[str, ...] = MODES


class Operand(msgspec.Struct, frozen=True):
    """One side of a comparison: what it puts in the place of the request's own words."""

    device_class: str | None = None
    frontend: str | None = None
    backend: str | None = None
    resource: str | None = None
    mode: str | None = None

    def applied(self, request: Request) -> Request:
        """The request as this side asks it."""
        device_class, frontend, backend, resource, mode = request
        return (
            self.device_class or device_class,
            self.frontend or frontend,
            self.backend or backend,
            self.resource or resource,
            self.mode or mode,
        )


class Proof(msgspec.Struct, frozen=True):
    """Whether it holds for all `requests`; else one request for which it does not.

    Of a comparison `counterexample` and `other` are what the two sides asked.
    """

    holds: bool
    requests: int
    counterexample: Request | None = None
    other: Request | None = None


class TooManyError(Exception):
    """The requests in question are too many to be asked one by one."""


def prove(policy: Policy, check: Single, space: Space) -> Proof:
    """Whether a policy errs on, allows or denies requests of `space`.

    Raises:
        TooManyError: `never-errors` about more than MOST_ENUMERATED requests.
    """
    if check == "never-errors":
        return _never_errors(policy, space)
    reach = Reach(policy.definition, policy.labels)
    asked = reach.mask(space.backends)
    requests = 0
    for line in _lines((reach,), space):
        requests += len(space.backends)
        granted = _granted(reach, line)
        wrong = asked & ~granted if check == "always-allows" else asked & granted
        if wrong:
            return _refuted(requests, _with(line, reach.named(wrong)[0]))
    return _proved(requests)


def compare(
    check: Double, policies: tuple[Policy, Policy], operands: tuple[Operand, Operand], space: Space
) -> Proof:
    """Whether, request by request, what one side grants the other does: always, exactly, never."""
    one, other = (Reach(policy.definition, policy.labels) for policy in policies)
    requests = 0
    for line in _lines((one, other), space):
        requests += len(space.backends)
        here = _backends(one, operands[0], line, space.backends)
        there = _backends(other, operands[1], line, space.backends)
        wrong = {
            "implies": here & ~there,
            "equivalent": here ^ there,
            "disjoint": here & there,
        }[check]
        if wrong:
            request = _with(line, space.backends[bits(wrong)[0]])
            return _refuted(requests, *(operand.applied(request) for operand in operands))
    return _proved(requests)


def _proved(requests: int) -> Proof:
    return Proof(holds=True, requests=requests)


def _refuted(requests: int, counterexample: Request, other: Request | None = None) -> Proof:
    return Proof(holds=False, requests=requests, counterexample=counterexample, other=other)


_Line = tuple[str, str, str | None, str]
"""Class, frontend, resource, mode: all but the backend."""


def _with(line: _Line, backend: str) -> Request:
    device_class, frontend, resource, mode = line
    return device_class, frontend, backend, resource, mode


def _backends(reach: Reach, side: Operand, line: _Line, backends: tuple[str, ...]) -> int:
    """Those of `backends` (bit N is the Nth) for whom this side's request is granted."""
    device_class, frontend, _, resource, mode = side.applied(_with(line, ""))
    granted = _granted(reach, (device_class, frontend, resource, mode))
    result = 0
    for number, backend in enumerate(backends):
        if granted & reach.mask((side.backend or backend,)):
            result |= 1 << number
    return result


def _granted(reach: Reach, line: _Line) -> int:
    device_class, frontend, resource, mode = line
    opened = reach.row(device_class, frontend).open_for(resource)[MODES.index(mode)]
    return opened & reach.sharing(device_class, frontend, resource)


def _lines(reaches: tuple[Reach, ...], space: Space) -> Iterator[_Line]:
    for device_class in space.classes:
        resources = _resources(reaches, device_class, space)
        for frontend in space.frontends:
            for resource in resources:
                # Writing first: it is what a request without a mode asks for.
                for mode in sorted(space.modes, reverse=True):
                    yield device_class, frontend, resource, mode


def _resources(
    reaches: tuple[Reach, ...], device_class: str, space: Space
) -> tuple[str | None, ...]:
    if space.resources is not None:
        return space.resources
    named = tuple(dict.fromkeys(name for it in reaches for name in it.possible(device_class)))
    return named if named and device_class in NEEDS_RESOURCE else (None, *named)


def _never_errors(policy: Policy, space: Space) -> Proof:
    """Ask the evaluator itself, once for all requests that cannot be told apart."""
    reach = Reach(policy.definition, policy.labels)
    alike = Alike(policy.definition, reach)
    frontends, backends = (
        alike.one_of_each(side, alike.label) for side in (space.frontends, space.backends)
    )
    requests = 0
    for device_class in space.classes:
        resources = alike.one_of_each(_resources((reach,), device_class, space), alike.resource)
        requests += len(frontends) * len(backends) * len(resources) * len(space.modes)
        if requests > MOST_ENUMERATED:
            raise TooManyError(f"more than {MOST_ENUMERATED:,} requests: name a class or a side")
        for asked in itertools.product(frontends, backends, resources, space.modes):
            if policy.errs(device_class, *asked):
                return _refuted(requests, (device_class, *asked))
    return _proved(requests)
