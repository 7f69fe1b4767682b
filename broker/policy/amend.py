"""From denials that should not be: the smallest amendment of a policy, for a person to edit."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from broker.core.change import (
    SUGGESTED,
    AddAllow,
    AddClass,
    AddColour,
    AddLabel,
    AddResource,
    AddType,
    Change,
    DropRule,
    changed,
)
from broker.core.definition import GROUP, Rule
from broker.core.policy import Policy
from broker.core.suggestion import suggest_grant
from broker.policy.write import entry_lines, policy_text, rule_lines
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.core.definition import Definition
    from broker.core.proofs import Request

_LEAST_GROUP: Final = 2
"""A group takes the place of its labels in a rule from this many on."""


class Amendment(msgspec.Struct, frozen=True):
    """The policy as it would be, what was changed, and requests that nothing was found for.

    `denied` counts the requests (each once) that the policy denies; `matches` are those that
    need a match for their device to be found, with the resource that was taken for it.
    """

    definition: Definition
    changes: tuple[Change, ...]
    denied: int
    matches: tuple[tuple[Request, str], ...]
    unmet: tuple[Request, ...]


def amend(policy: Policy, requests: Iterable[Request]) -> Amendment:
    """The changes that grant all of `requests`, the smallest for each after those before it.

    New allows for one backend, over the same resources, are one rule, with groups where they fit.
    """
    definition, current = policy.definition, policy
    changes: list[Change] = []
    matches: list[tuple[Request, str]] = []
    unmet: list[Request] = []
    denied = 0
    # What allows most comes first: it may make the rest superfluous.
    ordered = sorted(dict.fromkeys(requests), key=lambda it: (it[4] == "r", it[3] is not None))
    for request in ordered:
        denied += not policy.decide(*request)
        if current.decide(*request):
            continue
        found = [it for it in suggest_grant(current, request) if it.request[4] == request[4]]
        if not found:
            unmet.append(request)
            continue
        if request[3] is None and found[0].request[3] is not None:
            matches.append((request, found[0].request[3]))
        if found[0].changes:
            changes += found[0].changes
            definition = changed(definition, found[0].changes)
            current = Policy(definition)
    merged = _merged(definition, [it for it in changes if isinstance(it, AddAllow)])
    kept = tuple(rule for rule in definition.rules if rule.where != SUGGESTED)
    amended = replace(definition, rules=(*kept, *merged))
    return Amendment(amended, tuple(changes), denied, tuple(matches), tuple(unmet))


def amendment_text(policy: Policy, amendment: Amendment) -> str:
    """The amendment as YAML with comments: what to put where in the policy."""
    major, minor = policy.version
    count = f"{amendment.denied} request{'s' if amendment.denied != 1 else ''}"
    lines = [
        f"# Of what was seen, {policy.name} {major}.{minor} denies {count}.",
        "# This would grant all of it; look at every line before it goes into the policy.",
    ]
    if not amendment.denied:
        return f"# Of what was seen, {policy.name} {major}.{minor} denies nothing.\n"
    if amendment.changes:
        lines += [
            f'version: "{major}.{minor + 1}"',
            f'from: {{policy: {policy.name}, version: "{major}.{minor}"}}',
        ]
    lines += _defined(amendment)
    rules = [rule for rule in amendment.definition.rules if rule.where == SUGGESTED]
    if rules:
        lines += ["", "# To be added to `channels`:", "channels:"]
        lines += [line for rule in rules for line in rule_lines(rule)]
    lines += _by_hand(amendment)
    return "".join(f"{line}\n" for line in lines)


def whole_text(policy: Policy, amendment: Amendment) -> str:
    """The whole policy with the amendment made, as the next version of the one before."""
    major, minor = policy.version
    definition = amendment.definition
    if amendment.changes:
        before = (policy.name, policy.version)
        definition = replace(definition, version=(major, minor + 1), replaces=before)
    heading = [f"{policy.name} {major}.{minor}, amended so that all that was seen is granted."]
    return policy_text(definition, heading)


def _defined(amendment: Amendment) -> Iterator[str]:
    """Labels, resources and classes as they are to be written."""
    definition, changes = amendment.definition, amendment.changes
    touched = {it.label for it in changes if isinstance(it, (AddType, AddColour, AddLabel))}
    labels = [label for label in definition.labels if label.name in touched]
    resources = {it.resource for it in changes if isinstance(it, AddResource)}
    classes = {it.device_class for it in changes if isinstance(it, AddClass)}
    for key, what, things in (
        ("labels", "these labels as they stand", labels),
        ("resources", "these", [it for it in definition.resources if it.name in resources]),
        ("classes", "these", [it for it in definition.classes if it.name in classes]),
    ):
        if things:
            yield ""
            yield f"# In `{key}`, {what}:"
            yield f"{key}:"
            for thing in things:
                yield from entry_lines(thing, definition.filters)


def _by_hand(amendment: Amendment) -> Iterator[str]:
    dropped = [it for it in dict.fromkeys(amendment.changes) if isinstance(it, DropRule)]
    if dropped:
        yield ""
        yield "# These rules stop some of it; remove them, or narrow them:"
        for rule in dropped:
            yield f"#   {rule.rule}, {escape(rule.where)}: {escape(rule.text)}"
    if amendment.matches:
        yield ""
        yield "# These matched no resource; a `match` has to find their device:"
        for request, resource in amendment.matches:
            yield f"#   {_words(request)}, as {resource}"
    if amendment.unmet:
        yield ""
        yield "# For these nothing was found:"
        for request in amendment.unmet:
            yield f"#   {_words(request)}"


def _words(request: Request) -> str:
    device_class, frontend, backend, resource, mode = request
    over = "" if resource is None else f" over {resource}"
    return escape(f"{device_class} {frontend} to {backend}{over}, mode {mode}")


def _merged(definition: Definition, allows: list[AddAllow]) -> list[Rule]:
    """As few rules as say the same: first over resources, then over frontends."""
    by_pair: dict[tuple[str, str, str, str], dict[str | None, None]] = {}
    for it in allows:
        key = (it.device_class, it.backend, it.mode, it.frontend)
        by_pair.setdefault(key, {})[it.resource] = None
    sets = {key: tuple(sorted(it or "" for it in held)) for key, held in by_pair.items()}

    def rest(key: tuple[str, str, str, str]) -> tuple[str, str, str, tuple[str, ...]]:
        device_class, backend, mode, _ = key
        return device_class, backend, mode, sets[key]

    first = len(definition.rules) + len(definition.betweens)
    rules: list[Rule] = []
    for (device_class, backend, mode, resources), keys in groupby(sorted(sets, key=rest), rest):
        frontends = _grouped(definition, [key[3] for key in keys])
        # A rule without a resource allows all of them; it is only asked for where none is.
        named = None if "" in resources else resources
        rules.append(
            Rule(
                name=f"channels[{first + len(rules)}]",
                verb="allow",
                classes=(device_class,),
                frontends=frontends,
                backends=(backend,),
                resources=named,
                mode="r" if mode == "r" else "w",
                reason="",
                where=SUGGESTED,
            )
        )
    return rules


def _grouped(definition: Definition, frontends: list[str]) -> tuple[str, ...]:
    """The labels, with a group's name in the place of all its members where all are there."""
    left = dict.fromkeys(frontends)
    words = []
    for group, members in sorted(definition.groups.items(), key=lambda it: -len(it[1])):
        if len(members) >= _LEAST_GROUP and all(member in left for member in members):
            words.append(GROUP + group)
            for member in members:
                del left[member]
    return (*words, *left)
