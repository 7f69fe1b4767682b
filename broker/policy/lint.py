"""Warnings: a policy that loads, and parts of it that do nothing or not what they seem to."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP
from broker.policy import cover
from broker.policy.findings import Findings
from broker.policy.form import GroupForm, group_members
from broker.policy.rules import listed

if TYPE_CHECKING:
    from broker.core.definition import Definition
    from broker.core.policy import Policy
    from broker.policy.form import PolicyForm
    from broker.text.problems import Problem

NOT_HONOURED: Final = "no broker honours it yet, and brokerd refuses to load this policy"


def warnings(form: PolicyForm, policy: Policy, source: str) -> list[Problem]:
    """Everything worth a second look, in the order of the file."""
    findings = Findings(source)
    _types(form, findings)
    _groups(form, findings)
    _resources(form, findings)
    _labels(form, policy, findings)
    _rules(form, policy.definition, findings)
    _betweens(form, policy.definition, findings)
    if not isinstance(form.mode, str):
        findings.add(form.mode, f"observe mode: {NOT_HONOURED}")
    for name, grants in form.roles.items():
        if not grants:
            findings.add(name, f"role '{name}' grants nothing")
    return sorted(findings.problems)


def _types(form: PolicyForm, findings: Findings) -> None:
    held = set(chain.from_iterable(label.ste for label in form.labels.values()))
    for text in form.ste_types:
        if text not in held:
            findings.add(text, f"unused: no label has STE type '{text}'")
    walled = set(chain.from_iterable(label.chinese_wall for label in form.labels.values()))
    in_conflict = set(chain.from_iterable(form.conflict_sets.values()))
    for text in form.chinese_wall_types:
        if text not in walled:
            findings.add(text, f"unused: no label has Chinese Wall type '{text}'")
        elif text not in in_conflict:
            findings.add(text, f"unused: no conflict set has Chinese Wall type '{text}'")


def _groups(form: PolicyForm, findings: Findings) -> None:
    rules = [rule for channel in form.channels for rule in (channel.allow, channel.deny) if rule]
    words: set[str] = set()
    for rule in rules:
        words.update(listed(rule.frontend) + listed(rule.backend))
    for grant in chain.from_iterable(form.roles.values()):
        words.update(listed(grant.label), (GROUP + name for name in listed(grant.group)))
    for name, group in form.groups.items():
        if not group_members(group):
            findings.add(name, f"group '{name}' is empty: rules for it match nothing")
        attaches = isinstance(group, GroupForm) and group.filters
        if GROUP + name not in words and not attaches:
            findings.add(name, f"unused: no rule or role names group '{name}'")


def _resources(form: PolicyForm, findings: Findings) -> None:
    rules = [rule for channel in form.channels for rule in (channel.allow, channel.deny) if rule]
    named: set[str] = set()
    for rule in rules:
        named.update(listed(rule.resource))
    colours = set(chain.from_iterable(label.colours for label in form.labels.values()))
    for name, resource in form.resources.items():
        if resource.match is None and name not in named:
            findings.add(name, f"unused: nothing matches or names resource '{name}'")
        for colour in listed(resource.colour):
            if colour not in colours:
                findings.add(colour, f"no label has colour '{colour}': nobody gets '{name}'")
        for pattern in (resource.match or {}).values():
            if any(sign in pattern for sign in "?["):
                findings.add(pattern, "'?' and '[' stand for themselves; only '*' is special")


def _labels(form: PolicyForm, policy: Policy, findings: Findings) -> None:
    allowing = any(entry.default == "ste" for entry in form.classes.values()) or any(
        rule.verb == "allow" and (rule.frontends is None or rule.backends is None)
        for rule in policy.definition.rules
    )
    named: set[str] = set()
    for rule in policy.definition.rules:
        if rule.verb == "allow":
            for word in (*(rule.frontends or ()), *(rule.backends or ())):
                group = word.removeprefix(GROUP)
                named.update([word] if group == word else policy.definition.groups[group])
    for name, label in form.labels.items():
        admission = policy.admit((), name)
        if not label.ste:
            findings.add(name, f"label '{name}' has no STE type: it gets no channel")
        elif not allowing and name not in named:
            findings.add(name, f"unused: no rule or default gives label '{name}' a channel")
        for reason in () if admission.granted else admission.reasons:
            findings.add(name, f"label '{name}' can never run: {reason.text}")


def _rules(form: PolicyForm, definition: Definition, findings: Findings) -> None:
    places = {f"channels[{number}]": channel for number, channel in enumerate(form.channels)}
    for rule, other in cover.redundant(definition.rules, definition.groups):
        findings.add(places[rule.name], f"redundant: {other.where} says so already: {other}")
    for rule, other in cover.unreachable(definition.rules, definition.groups):
        findings.add(places[rule.name], f"unreachable: {other.where} denies it: {other}")
    defaults = {entry.name: entry.default for entry in definition.classes}
    types: dict[str, frozenset[str]] = {
        label.name: frozenset(label.ste) for label in definition.labels
    }
    for group, members in definition.groups.items():
        types[GROUP + group] = frozenset().union(*(types[member] for member in members))
    for rule in definition.rules:
        if rule.verb == "deny":
            continue
        if all(defaults[name] == "ste" for name in rule.classes):
            findings.add(places[rule.name], "redundant: the class's default is 'ste' already")
        if rule.frontends is not None and rule.backends is not None:
            frontends = frozenset().union(*(types[word] for word in rule.frontends))
            if not any(frontends & types[word] for word in rule.backends):
                text = "unreachable: no frontend named here shares an STE type with a backend"
                findings.add(places[rule.name], text)


def _betweens(form: PolicyForm, definition: Definition, findings: Findings) -> None:
    places = {f"channels[{number}]": channel for number, channel in enumerate(form.channels)}
    denied = {frozenset(rule.pair) for rule in definition.betweens if rule.verb == "deny"}
    first: dict[tuple[str, frozenset[str]], str] = {}
    for rule in definition.betweens:
        pair = frozenset(rule.pair)
        before = first.setdefault((rule.verb, pair), rule.where)
        if before != rule.where:
            findings.add(places[rule.name], f"redundant: {before} says so already")
        if rule.verb == "allow" and pair in denied:
            findings.add(places[rule.name], "unreachable: another rule denies this pair")
