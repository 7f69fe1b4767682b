"""What would grant a denial: it does, and nothing of it is superfluous."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.definitions import CLASSES, LABELS, RESOURCES, definitions

from broker.core.change import AddAllow, AddType, DropRule, changed
from broker.core.policy import Policy
from broker.core.suggestion import suggest_grant
from broker.policy.load import load_policy

requests = st.tuples(
    st.sampled_from((*CLASSES, "9pfs")),
    st.sampled_from((*LABELS, "stranger")),
    st.sampled_from((*LABELS, "newcomer")),
    st.sampled_from((None, *RESOURCES, "unknown")),
    st.sampled_from("rw"),
)


@settings(max_examples=80, deadline=None)
@given(definitions(), requests)
def test_every_suggestion_grants_and_none_of_its_changes_can_be_left_out(definition, request):
    policy = Policy(definition)
    found = suggest_grant(policy, request)
    assert bool(found) is not policy.decide(*request)
    for suggestion in found:
        made = Policy(changed(definition, suggestion.changes))
        assert made.decide(*suggestion.request)
        assert suggestion.words(request)
        for left_out in suggestion.changes:
            others = [it for it in suggestion.changes if it is not left_out]
            # Without its label or class nothing else of it can be compiled at all.
            if type(left_out).__name__ not in ("AddLabel", "AddClass", "AddResource"):
                assert not Policy(changed(definition, others)).decide(*suggestion.request)


@settings(max_examples=60, deadline=None)
@given(definitions(), requests)
def test_the_smallest_come_first_and_ask_no_more_than_was_asked(definition, request):
    found = suggest_grant(Policy(definition), request)
    sizes = [len(it.changes) for it in found]
    assert sizes == sorted(sizes)
    assert len(found) <= 4
    for suggestion in found:
        asked, meant = request, suggestion.request
        assert asked[:3] == meant[:3]
        assert meant[3] == asked[3] or asked[3] is None
        assert (meant[4], asked[4]) != ("w", "r")


@settings(max_examples=30, deadline=None)
@given(definitions(), st.lists(requests, min_size=1, max_size=10))
def test_explaining_deciding_and_suggesting_agree(definition, asked):
    policy = Policy(definition)
    for request in asked:
        granted = policy.decide(*request)
        assert policy.explain(*request).granted is granted
        assert (suggest_grant(policy, request) == ()) is granted


POLICY = """\
policy: p
version: "1.0"
ste_types: [sys, red, blue, rare, common]
bootstrap: dom0
labels:
  dom0: {ste: [sys, red, blue, common]}
  web: {ste: [red]}
  db: {ste: [blue]}
  one: {ste: [rare, common]}
  two: {ste: [common]}
  bare: {}
resources:
  lun: {ste: [red], colour: [gold, pink], match: {class: vbd, params: /dev/r}}
  tun: {ste: [blue], match: {class: vbd, params: /dev/b}}
classes: {vif: {default: ste}, vbd: {default: deny}}
channels:
  - {allow: {class: vbd, frontend: web, backend: dom0, mode: r}}
  - {deny: {class: vif, frontend: web, backend: dom0, reason: not yet}}
  - {deny: {class: vbd, frontend: db, mode: w}}
"""


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (("vif", "web", "dom0", None, "w"), [["remove or narrow channels[1] (P:18:5): not yet"]]),
        (("vif", "web", "nix", None, "w"), [["define label nix with the STE type red"]]),
        (
            ("vif", "web", "bare", None, "w"),
            [["give label bare the STE type red"]],
        ),
        # Of two types that would do, the one that no resource has comes first.
        (
            ("vif", "two", "one", None, "w"),
            [],
        ),
        (
            ("vif", "db", "one", None, "w"),
            [["give label db the STE type common"], ["give label one the STE type blue"]],
        ),
        (
            ("vbd", "web", "dom0", "tun", "w"),
            [
                ["give label web the STE type blue", "ask for reading alone (mode r)"],
                [
                    "give label web the STE type blue",
                    "allow vbd frontend web backend dom0 resource tun",
                ],
            ],
        ),
        (
            ("vbd", "web", "dom0", "lun", "r"),
            [["give label web the colour gold", "give label web the colour pink"]],
        ),
        (
            ("vbd", "web", "dom0", None, "r"),
            [["give label web the STE type blue", "let the match of resource tun find the device"]],
        ),
        (
            ("vkbd", "db", "dom0", None, "r"),
            [
                [
                    "define class vkbd with default deny",
                    "allow vkbd frontend db backend dom0 for reading",
                ]
            ],
        ),
        (("vbd", "db", "dom0", "tun", "x"), []),
    ],
)
def test_in_words(request_, wanted):
    policy = load_policy(POLICY.encode(), "P")
    found = suggest_grant(policy, request_)
    assert [it.words(request_) for it in found] == wanted


def test_without_any_resource_one_is_to_be_defined():
    start, end = POLICY.index("resources:"), POLICY.index("classes:")
    policy = load_policy((POLICY[:start] + POLICY[end:]).encode(), "P")
    request = ("vbd", "web", "dom0", None, "r")
    (found, *_) = suggest_grant(policy, request)
    assert found.words(request) == [
        "define resource resource_1 with the STE type red, and its match",
        "let the match of resource resource_1 find the device",
    ]


def test_a_label_without_types_and_a_policy_without_types_that_fit():
    policy = load_policy(POLICY.encode(), "P")
    for one, other in itertools.permutations(("bare", "db"), 2):
        request = ("vif", one, other, None, "w")
        (found,) = suggest_grant(policy, request)
        assert found.changes == (AddType("bare", "blue"),)
    assert isinstance(
        suggest_grant(policy, ("vbd", "db", "dom0", "tun", "w"))[-1].changes[0], DropRule
    )
    assert isinstance(
        suggest_grant(policy, ("vbd", "db", "dom0", "tun", "r"))[0].changes[0], AddAllow
    )
