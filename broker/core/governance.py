"""What of a policy only a governor may change, and never alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.core.roles import APPROVE, GOVERN, NO_TARGET, permit, roles_of

if TYPE_CHECKING:
    from broker.core.definition import Definition


def governed_changes(old: Definition, new: Definition) -> tuple[str, ...]:
    """The governed keys of the policy file in which two policies differ; places do not count.

    Roles are compared spelled out: a label added to a group, or given a colour, widens a role
    that selects by it, and counts as a change of roles.
    """
    pairs: dict[str, tuple[object, object]] = {
        "roles": (roles_of(old), roles_of(new)),
        "bootstrap": (old.bootstrap, new.bootstrap),
        "mode": (_mode(old), _mode(new)),
        "on_violation": (dict(old.on_violation), dict(new.on_violation)),
        "host_authorization": (old.host_authorization, new.host_authorization),
        "protected": (frozenset(old.protected), frozenset(new.protected)),
    }
    return tuple(key for key, (before, after) in pairs.items() if before != after)


def has_governing_approver(definition: Definition) -> bool:
    """Whether some role could be the second person for a governed change."""
    return any(
        permit(role, APPROVE, NO_TARGET, reads=False).granted
        and permit(role, GOVERN, NO_TARGET, reads=False).granted
        for role in roles_of(definition).values()
    )


def _mode(definition: Definition) -> object:
    observe = definition.observe
    return None if observe is None else msgspec.structs.replace(observe, where="")
