"""One class of channels, compiled, and the one function that judges a channel of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.core.definition import NEEDS_RESOURCE
from broker.core.rules import MODES, RuleIndex

if TYPE_CHECKING:
    from broker.core.definition import Definition, DeviceClass
    from broker.core.masks import Numbering

# What can stand against a channel, a bit each.
NO_SHARED_TYPE: Final = 1
NO_RESOURCE: Final = 2
FRONTEND_RESOURCE: Final = 4
BACKEND_RESOURCE: Final = 8
COLOUR: Final = 16
DENY_RULE: Final = 32
NO_ALLOW: Final = 64

_ALL: Final = -1
"""The set of everything, as a mask."""

if TYPE_CHECKING:
    # STE types; colours it lacks; deny rules and allow rules that match it on this side.
    _Side = tuple[int, int, int, int]
    # STE types; colours; what stands against it already; deny and allow rules by mode.
    _Target = tuple[int, int, int, dict[str, tuple[int, int]]]


class ClassTable:
    """The labels, resources and rules of a policy as one class sees them."""

    __slots__ = ("allows", "backends", "denies", "device_class", "frontends", "no_allow", "targets")

    def __init__(
        self,
        definition: Definition,
        device_class: DeviceClass,
        types: Numbering,
        colours: Numbering,
    ) -> None:
        self.device_class = device_class
        rules = [rule for rule in definition.rules if device_class.name in rule.classes]
        groups = definition.groups
        self.denies = RuleIndex([rule for rule in rules if rule.verb == "deny"], groups)
        self.allows = RuleIndex([rule for rule in rules if rule.verb == "allow"], groups)
        self.no_allow = NO_ALLOW if device_class.default == "deny" else 0
        # Equal masks are one object: a label or resource that no rule names costs nothing.
        shared: dict[int, int] = {}
        self.frontends: dict[str, _Side] = {}
        self.backends: dict[str, _Side] = {}
        for label in definition.labels:
            ste = types.mask(label.ste)
            lacks = ~colours.mask(label.colours)
            for sides, deny_masks, allow_masks in (
                (self.frontends, self.denies.frontends, self.allows.frontends),
                (self.backends, self.denies.backends, self.allows.backends),
            ):
                deny = self.denies.matching_label(deny_masks, label.name)
                allow = self.allows.matching_label(allow_masks, label.name)
                sides[label.name] = (
                    shared.setdefault(ste, ste),
                    shared.setdefault(lacks, lacks),
                    shared.setdefault(deny, deny),
                    shared.setdefault(allow, allow),
                )
        missing = NO_RESOURCE if device_class.name in NEEDS_RESOURCE else 0
        self.targets: dict[str | None, _Target] = {
            None: (_ALL, 0, missing, self._rules_by_mode(None, shared))
        }
        for resource in definition.resources:
            ste = types.mask((resource.ste,))
            by_mode = self._rules_by_mode(resource.name, shared)
            self.targets[resource.name] = (ste, colours.mask(resource.colours), 0, by_mode)

    def _rules_by_mode(
        self, resource: str | None, shared: dict[int, int]
    ) -> dict[str, tuple[int, int]]:
        by_mode: dict[str, tuple[int, int]] = {}
        for mode in MODES:
            deny = self.denies.matching_resource(resource) & self.denies.by_mode[mode]
            allow = self.allows.matching_resource(resource) & self.allows.by_mode[mode]
            by_mode[mode] = shared.setdefault(deny, deny), shared.setdefault(allow, allow)
        return by_mode

    def judge(
        self, frontend: str, backend: str, resource: str | None, mode: str
    ) -> tuple[int, int, int]:
        """What stands against a channel (0: nothing), the deny rules and allow rules that match.

        The only place where a channel is judged: deciding and explaining both ask here.

        Raises:
            KeyError: a label, resource or mode that the policy does not have.
        """
        frontend_types, frontend_lacks, frontend_deny, frontend_allow = self.frontends[frontend]
        backend_types, _, backend_deny, backend_allow = self.backends[backend]
        target_types, target_colours, against, by_mode = self.targets[resource]
        target_deny, target_allow = by_mode[mode]
        deny = frontend_deny & backend_deny & target_deny
        allow = frontend_allow & backend_allow & target_allow
        if not frontend_types & backend_types:
            against |= NO_SHARED_TYPE
        if not frontend_types & target_types:
            against |= FRONTEND_RESOURCE
        if not backend_types & target_types:
            against |= BACKEND_RESOURCE
        if target_colours & frontend_lacks:
            against |= COLOUR
        if deny:
            against |= DENY_RULE
        if not allow:
            against |= self.no_allow
        return against, deny, allow
