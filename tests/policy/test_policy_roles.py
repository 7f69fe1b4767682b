"""`roles:` as a policy's author writes them: what loads, and every problem at its place."""

# ruff: noqa: E501 - tables, a case a line

import pytest

from broker.core.governance import governed_changes, has_governing_approver
from broker.core.roles import LOAD, NO_TARGET, Named, Target, may_ever, permit, roles_of
from broker.policy.load import load_policy
from broker.text.problems import ProblemsError

POLICY = """\
policy: corp
version: "1.0"
ste_types: [system, red, blue]
bootstrap: dom0
labels:
  dom0: {ste: [system, red, blue]}
  web: {ste: [red], colours: [pink]}
  db: {ste: [blue], colours: [grey]}
  lone: {ste: [blue]}
groups: {tier: [web, db]}
resources:
  lun: {ste: [red], colour: pink, match: {class: vbd, params: /a}}
  tape: {ste: [red], colour: grey, match: {class: vbd, params: /b}}
  bare: {ste: [red], match: {class: vbd, params: /c}}
classes: {vif: {default: ste}, vbd: {default: deny}}
roles:
"""
UUID = "6f7c1c6e-0a3f-4d3e-9d2e-0f1c2d3e4f50"
WEB1 = Named("web1", UUID)


def load(roles, policy=POLICY):
    return load_policy((policy + roles).encode(), "P")


def role(grant):
    return roles_of(load(f"  op: [{grant}]\n").definition)["op"]


def granted(grant, verb, target=NO_TARGET, *, reads=False):
    return permit(role(grant), verb, target, reads=reads).granted


VERBS = [
    ("{verbs: label.set}", "label.set", True),
    ("{verbs: label.set}", "label.rm", False),
    ("{verbs: [label.set, label.rm]}", "label.rm", True),
    ("{verbs: label.*}", "label.rm", True),
    ("{verbs: label.*}", "policy.load", False),
    ("{verbs: policy.*}", "policy.load", True),
    ("{verbs: policy.*}", "policy.govern", False),
    ("{verbs: policy.*}", "policy.approve", False),
    ("{verbs: [policy.govern, policy.approve]}", "policy.approve", True),
    ("{verbs: read}", "label.set", False),
    ("{verbs: status}", "status", True),
]


@pytest.mark.parametrize(("grant", "verb", "may"), VERBS)
def test_verbs_are_granted_by_name_by_object_or_as_reading(grant, verb, may):
    assert granted(grant, verb) is may
    assert may_ever(role(grant), verb, reads=False) is may


def test_reading_covers_what_changes_nothing_and_only_that():
    assert granted("{verbs: read}", "channel.list", reads=True)
    assert not granted("{verbs: read}", "channel.list", reads=False)
    assert not granted("{verbs: label.*}", "channel.list", reads=True)


LABELLED = Target(domains=(WEB1,), labels=("web",))
SELECTED = [
    ("label: web", LABELLED, True),
    ("label: any", LABELLED, True),
    ("label: [lone, group:tier]", LABELLED, True),
    ("label: lone", LABELLED, False),
    ("label: web", Target(labels=("web", "lone")), False),
    ("label: [web, lone]", Target(labels=("web", "lone")), True),
    ("label: web", Target(labels=(None,)), False),
    ("label: web", NO_TARGET, False),
    ("group: tier", LABELLED, True),
    ("group: tier", Target(labels=("lone",)), False),
    ("label: lone, group: tier", LABELLED, True),
    ("colour: pink", LABELLED, True),
    ("colour: grey", LABELLED, False),
    ("colour: [grey, pink]", LABELLED, True),
    ("colour: pink", Target(labels=("lone",)), False),
    ("colour: pink", Target(labels=("web",), resource="lun"), True),
    ("colour: pink", Target(labels=("web",), resource="tape"), False),
    ("colour: pink", Target(labels=("web",), resource="bare"), True),
    ("class: vif", Target(device_class="vif"), True),
    ("class: [vif, vbd]", Target(device_class="vbd"), True),
    ("class: vif", Target(device_class="vbd"), False),
    ("class: vif", LABELLED, False),
    ("resource: lun", Target(resource="lun"), True),
    ("resource: lun", Target(resource="tape"), False),
    ("resource: lun", Target(device_class="vbd"), False),
    ("domain: web1", LABELLED, True),
    ('domain: "web*"', LABELLED, True),
    (f"domain: {UUID}", LABELLED, True),
    (f"domain: {UUID}", Target(domains=(Named("web1", None),)), False),
    ("domain: web2", LABELLED, False),
    ("domain: web1", Target(domains=(WEB1, Named("db1", None))), False),
    ("domain: [web1, db1]", Target(domains=(WEB1, Named("db1", None))), True),
    ("domain: web1", NO_TARGET, False),
    ("domain: web1, label: web", LABELLED, True),
    ("domain: web1, label: lone", LABELLED, False),
    ("class: vif, label: web", Target(labels=("web",), device_class="vif"), True),
]


@pytest.mark.parametrize(("selectors", "target", "may"), SELECTED)
def test_every_selector_of_a_grant_has_to_hold_for_all_of_the_object(selectors, target, may):
    assert granted(f"{{verbs: label.set, {selectors}}}", "label.set", target) is may
    assert not granted(f"{{verbs: label.rm, {selectors}}}", "label.set", target)


def test_one_grant_has_to_say_all_of_it():
    two = role("{verbs: label.set, label: web}, {verbs: label.set, label: lone}")
    assert permit(two, "label.set", LABELLED, reads=False).granted
    assert not permit(two, "label.set", Target(labels=("web", "lone")), reads=False).granted


def test_a_second_person_is_needed_unless_another_grant_does_without():
    assert not permit(role("{verbs: policy.load, second_person: true}"), LOAD, NO_TARGET, reads=False).alone  # fmt: skip
    both = role("{verbs: policy.load, second_person: true}, {verbs: policy.load}")
    assert permit(both, LOAD, NO_TARGET, reads=False).alone
    assert not permit((), LOAD, NO_TARGET, reads=False).granted


PROBLEMS = [
    ("root: []", "17:3: 'root' is local root's role; choose another name"),
    ("o/p: []", "17:3: role 'o/p' is not a name: letters, digits and _.()-, beginning with a letter or digit"),
    ("op: [{verbs: []}]", "17:8: a grant without verbs grants nothing"),
    ("op: [{verbs: [Label.set]}]", "17:17: 'Label.set' is no verb: a method such as label.set, label.*, or read"),
    ("op: [{verbs: '*'}]", "17:16: '*' is no verb: a method such as label.set, label.*, or read"),
    ("op: [{verbs: [read, read]}]", "17:23: verb 'read' was named already, at P:17:17"),
    ("op: [{verbs: read, label: nix}]", "17:29: unknown label 'nix'"),
    ("op: [{verbs: read, label: group:nix}]", "17:29: unknown label 'group:nix'"),
    ("op: [{verbs: read, group: nix}]", "17:29: unknown group 'nix'"),
    ("op: [{verbs: read, colour: nix}]", "17:30: unknown colour 'nix'"),
    ("op: [{verbs: read, class: nix}]", "17:29: unknown class 'nix'"),
    ("op: [{verbs: read, resource: nix}]", "17:32: unknown resource 'nix'"),
    ('op: [{verbs: read, domain: "3"}]', "17:30: domids are reused: name the domain by its name or uuid"),
    ("op: [{verbs: read, label: []}]", "17:8: an empty list of label names matches nothing"),
    ("op: [{verbs: read, group: []}]", "17:8: an empty list of group names matches nothing"),
    ("op: [{verbs: read, colour: []}]", "17:8: an empty list of colour names matches nothing"),
    ("op: [{verbs: read, domain: []}]", "17:8: an empty list of domains matches nothing"),
    (f"op: [{{verbs: read, domain: {UUID.upper()}}}]", "17:30: not a domain's name, or a uuid in capitals"),
    ("op: [{verbs: label.set, second_person: true}]", "17:8: 'second_person' is of policy.load, which this grant does not have"),
    ("op: [{verbs: read, objects: web}]", "17:22: unknown key 'objects'"),
    ("op: {verbs: read}", "17:7: expected a list, not a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), PROBLEMS)
def test_a_problem_of_a_role_is_told_at_its_place(text, problem):
    with pytest.raises(ProblemsError) as caught:
        load(f"  {text}\n")
    assert any(str(it).startswith(f"P:{problem}") for it in caught.value.problems)


GOVERNOR = "  gov: [{verbs: [policy.load, policy.govern, policy.approve]}]\n"
CHANGES = [
    ('version: "1.0"', 'version: "1.1"', ()),
    ("classes: {vif", "channels: [{deny: {class: vif}}]\nclasses: {vif", ()),
    ("bootstrap: dom0", "# a comment moves every place\nbootstrap: dom0", ()),
    ("bootstrap: dom0", "bootstrap: lone", ("bootstrap",)),
    ("roles:", "protected: [web]\nroles:", ("protected",)),
    ("roles:", "on_violation: {vif: reset}\nroles:", ("on_violation",)),
    ("roles:", "host_authorization: false\nroles:", ("host_authorization",)),
    ("roles:", "mode: {observe: {opens: [{class: vif}], until: 2030-01-01}}\nroles:", ("mode",)),
    ("gov: [{verbs: [", "gov: [{verbs: [label.set, ", ("roles",)),
    ("gov: [", "more: [{verbs: read}]\n  gov: [", ("roles",)),
    ("label: group:tier", "label: web", ("roles",)),
    ("tier: [web, db]", "tier: [web, db, lone]", ("roles",)),
    ("lone: {ste: [blue]}", "lone: {ste: [blue], colours: [pink]}", ("roles",)),
]


@pytest.mark.parametrize(("old", "new", "keys"), CHANGES)
def test_what_is_governed_is_noticed_also_when_it_widens_a_role_from_afar(old, new, keys):
    roles = (
        GOVERNOR + "  op: [{verbs: label.set, label: group:tier}, {verbs: read, colour: pink}]\n"
    )
    assert (POLICY + roles).count(old) >= 1
    before = load(roles).definition
    after = load_policy((POLICY + roles).replace(old, new, 1).encode(), "P").definition
    assert governed_changes(before, after) == keys
    assert governed_changes(after, before) == keys


@pytest.mark.parametrize(
    ("roles", "has"),
    [
        (GOVERNOR, True),
        ("  op: [{verbs: [policy.approve]}]\n", False),
        ("  op: [{verbs: [policy.govern]}]\n", False),
        ("  op: [{verbs: [policy.approve, policy.govern], label: web}]\n", False),
        ("  op: [{verbs: [policy.approve]}, {verbs: [policy.govern]}]\n", True),
        ("  op: [{verbs: [policy.*, read]}]\n", False),
    ],
)
def test_a_second_person_exists_if_a_role_may_approve_and_govern(roles, has):
    assert has_governing_approver(load(roles).definition) is has
