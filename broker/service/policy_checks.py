"""What is to be said about a policy that is to take another's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.governance import governed_changes
from broker.core.roles import ADDRESS, GOVERN, READ
from broker.rpc import methods
from broker.rpc.catalogue import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.core.policy import Policy


def governed_changes_of(current: Policy | None, policy: Policy) -> tuple[str, ...]:
    """The governed keys that a policy changes; of the first one none is there to change."""
    return () if current is None else governed_changes(current.definition, policy.definition)


def unknown_verbs(policy: Policy) -> Iterator[str]:
    """What roles grant that no method asks for, each with its place."""
    known = {READ, GOVERN, ADDRESS}
    for method in METHODS:
        known.update((method.verb, f"{method.verb.partition('.')[0]}.*"))
    for name, grants in policy.definition.roles.items():
        for grant in grants:
            for verb in grant.verbs:
                if verb not in known:
                    yield f"{grant.where}: role {name}: no method asks for the verb {verb}"


def summary(policy: Policy) -> methods.PolicySummary:
    """Which policy, in short."""
    return methods.PolicySummary(name=policy.name, version=version_of(policy), digest=policy.digest)


def observe_warnings(policy: Policy) -> Iterator[str]:
    """What observe mode asks of the agents."""
    observe = policy.definition.observe
    if observe is not None:
        yield (
            f"{observe.where}: observe mode opens channels until the end of {observe.last_day}; "
            "an agent without allow_observe: true closes them as denied"
        )


def ungoverned(governs: tuple[str, ...]) -> str:
    """What is said to who may not change what is governed."""
    return f"it changes {', '.join(governs)}: that needs the verb policy.govern"


def conflict_with(policy: Policy, current: Policy | None, replaces: str | None) -> str:
    """Why this policy may not take the place of the one in force (empty: it may)."""
    in_force = "nothing" if current is None else f"{current.name} {version_of(current)}"
    if replaces is not None and (current is None or current.digest != replaces):
        held = "nothing" if current is None else current.digest
        return f"it was to replace {replaces}, but {held} is in force; look at it and try again"
    if current is not None:
        for name, successor in policy.successors(current).items():
            if successor is None and policy.has_label(name):
                former = policy.renamed_from(name)
                return (
                    f"label {name} is what {former} was, but {in_force} has another {name}: its "
                    "domains would be taken for it; use a new name"
                )
    wanted = policy.definition.replaces
    if current is None or wanted is None or current.digest == policy.digest:
        return ""
    if wanted != (current.name, current.version):
        version = f"{wanted[1][0]}.{wanted[1][1]}"
        return f"it says from: {wanted[0]} {version}, but {in_force} is in force"
    return ""


def rollback(policy: Policy, highest: tuple[int, int] | None) -> str:
    """Why a signed policy may not follow what was in force before (empty: it may).

    A signature says that a policy was good once; only its version says that it is not an old
    one, shown again.
    """
    if highest is None or policy.version > highest:
        return ""
    return (
        f"version {version_of(policy)} of {policy.name} is signed, but "
        f"{highest[0]}.{highest[1]} was in force already: sign it with a higher one"
    )


def renames_from(policy: Policy, current: Policy | None) -> dict[str, str]:
    """The labels that are called otherwise in the new policy, by their former name."""
    return {} if current is None else policy.renames_since(current)


def version_of(policy: Policy) -> str:
    """Its version as it is written."""
    return f"{policy.version[0]}.{policy.version[1]}"
