"""What the bridge needs of a policy: names that ports carry, and which of them may exchange frames.

A port's name is a domain's label, or `uplink:` and a resource's name. Two uplinks never exchange
frames: nothing in a policy speaks of it, and a host is not to become a switch between networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from broker.core.policy import Policy

UPLINK: Final = "uplink"
_PREFIX: Final = f"{UPLINK}:"


class Rules(Protocol):
    """Names, the name dom0 itself goes by, and the relation; symmetric."""

    @property
    def names(self) -> Sequence[str]:
        """Everything a port may carry."""

    @property
    def bootstrap(self) -> str:
        """Domain 0's label."""

    @property
    def uplinks(self) -> Sequence[Uplink]:
        """The interfaces that the policy makes labelled uplinks."""

    def frames(self, a: str, b: str) -> bool:
        """Whether frames may pass between ports that carry these names."""

    def alike(self, name: str) -> Hashable:
        """Names of which this is equal may reach the same names, each other and themselves."""


class Uplink(msgspec.Struct, frozen=True):
    """A resource of class `uplink`: the interface `port`, on `bridge` or (None) routed."""

    name: str
    port: str
    bridge: str | None


class PolicyRules:
    """A policy as `Rules`.

    An uplink and a label: as the policy's class `uplink` decides (the label as frontend, the
    bootstrap label as backend), if it has such a class; else if the label has the resource's STE
    type and every colour of it.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        definition = policy.definition
        self._resources = {
            _PREFIX + resource.name: resource
            for resource in definition.resources
            if resource.device_class == UPLINK and "port" in resource.match
        }
        self._labels = {label.name: label for label in definition.labels}
        self.bootstrap = policy.bootstrap
        self.names = (*policy.labels, *self._resources)
        self.uplinks = tuple(
            Uplink(name, resource.match["port"], resource.match.get("bridge"))
            for name, resource in self._resources.items()
        )

    def frames(self, a: str, b: str) -> bool:
        """Whether frames may pass between ports that carry these names; unknown ones: no."""
        resources = self._resources
        if a not in resources and b not in resources:
            return self._policy.passes_frames(a, b)
        label, uplink = (b, a) if a in resources else (a, b)
        if label not in self._labels:
            return False  # another uplink, or nobody's name
        resource = resources[uplink]
        if self._policy.has_class(UPLINK):
            return self._policy.decide(UPLINK, label, self.bootstrap, resource.name)
        known = self._labels[label]
        return resource.ste in known.ste and set(resource.colours) <= set(known.colours)

    def alike(self, name: str) -> Hashable:
        """Names of which this is equal may reach the same names, each other and themselves."""
        if name in self._resources:
            return name
        reached = tuple(self.frames(name, uplink) for uplink in self._resources)
        return self._policy.frames_alike(name), reached
