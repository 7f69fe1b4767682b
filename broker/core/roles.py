"""Who may do what: a role's grants, each of verbs on objects.

A selector that a grant has must hold; one it does not have says nothing. A grant that selects
by something does not cover a call about nothing of the kind, as a rule that names a resource
does not match a request without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.core import glob
from broker.core.definition import GROUP

if TYPE_CHECKING:
    from broker.core.definition import Definition, Grant

READ: Final = "read"
"""As a verb of a grant: every method that changes nothing."""
LOAD: Final = "policy.load"
GOVERN: Final = "policy.govern"
APPROVE: Final = "policy.approve"
ADDRESS: Final = "filter.address"
"""Beside `filter.attach`: to give a vif addresses of its own by what is attached."""
_SPELLED_OUT: Final = frozenset({GOVERN, APPROVE, ADDRESS})
"""Verbs that no `policy.*` or `filter.*` covers: who holds them holds them by name."""


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """A grant with its groups and colours spelled out.

    `coloured` are the labels that carry one of the colours, `off_colour` the resources that have
    colours, but none of these.
    """

    verbs: frozenset[str]
    labels: frozenset[str] | None = None
    coloured: frozenset[str] | None = None
    off_colour: frozenset[str] = frozenset()
    classes: frozenset[str] | None = None
    resources: frozenset[str] | None = None
    domains: tuple[str, ...] | None = None
    second_person: bool = False

    def covers(self, verb: str, *, reads: bool) -> bool:
        """Whether the verb is granted, on whatever object."""
        if verb in self.verbs or (reads and READ in self.verbs):
            return True
        return verb not in _SPELLED_OUT and f"{verb.partition('.')[0]}.*" in self.verbs

    def selects(self, target: Target) -> bool:
        """Whether the object is one of those granted."""
        return (
            _all_in(self.labels, target.labels)
            and _all_in(self.coloured, target.labels)
            and target.resource not in self.off_colour
            and _one_in(self.classes, target.device_class)
            and _one_in(self.resources, target.resource)
            and self._selects_domains(target)
        )

    def _selects_domains(self, target: Target) -> bool:
        if self.domains is None:
            return True
        return bool(target.domains) and all(
            any(named.is_(selector) for selector in self.domains) for named in target.domains
        )


Role = tuple[Power, ...]


class Named(msgspec.Struct, frozen=True):
    """A domain as roles name it; domids are reused, so they name nobody here."""

    name: str | None
    uuid: str | None

    def is_(self, selector: str) -> bool:
        """Whether a grant's selector means this domain."""
        if self.uuid is not None and selector == self.uuid:
            return True
        return self.name is not None and glob.matches(selector, self.name)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a call is about. Of several domains or labels, every one has to be granted.

    A channel is selected by its frontend. An unlabelled domain has the label None, which no
    label or colour selects.
    """

    domains: tuple[Named, ...] = ()
    labels: tuple[str | None, ...] = ()
    device_class: str | None = None
    resource: str | None = None


NO_TARGET: Final = Target()
"""Of a call about the broker as a whole."""


class Permission(msgspec.Struct, frozen=True):
    """Whether a call may be; `alone`, for a load, without a second person."""

    granted: bool
    alone: bool


def roles_of(definition: Definition) -> dict[str, Role]:
    """The roles that a policy defines, by name."""
    return {
        name: tuple(_power(definition, grant) for grant in grants)
        for name, grants in definition.roles.items()
    }


def may_ever(role: Role, verb: str, *, reads: bool) -> bool:
    """Whether the role has the verb on anything at all."""
    return any(grant.covers(verb, reads=reads) for grant in role)


def permit(role: Role, verb: str, target: Target, *, reads: bool) -> Permission:
    """Whether the role has the verb on this object: one of its grants has to say all of it."""
    found = [it for it in role if it.covers(verb, reads=reads) and it.selects(target)]
    return Permission(bool(found), any(not it.second_person for it in found))


def _power(definition: Definition, grant: Grant) -> Power:
    coloured: frozenset[str] | None = None
    off_colour: frozenset[str] = frozenset()
    if grant.colours is not None:
        wanted = set(grant.colours)
        coloured = frozenset(it.name for it in definition.labels if wanted & set(it.colours))
        off_colour = frozenset(
            it.name for it in definition.resources if it.colours and not wanted & set(it.colours)
        )
    return Power(
        verbs=frozenset(grant.verbs),
        labels=_labels(definition, grant.labels),
        coloured=coloured,
        off_colour=off_colour,
        classes=None if grant.classes is None else frozenset(grant.classes),
        resources=None if grant.resources is None else frozenset(grant.resources),
        domains=grant.domains,
        second_person=grant.second_person,
    )


def _labels(definition: Definition, names: tuple[str, ...] | None) -> frozenset[str] | None:
    if names is None:
        return None
    found: set[str] = set()
    for name in names:
        group = name.removeprefix(GROUP)
        found.update((name,) if group == name else definition.groups[group])
    return frozenset(found)


def _all_in(wanted: frozenset[str] | None, values: tuple[str | None, ...]) -> bool:
    return wanted is None or (bool(values) and wanted.issuperset(values))


def _one_in(wanted: frozenset[str] | None, value: str | None) -> bool:
    return wanted is None or value in wanted
