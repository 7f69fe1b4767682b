"""`--prove`: every answer is what asking about everything, one by one, would give."""

# ruff: noqa: E501 - tables, a case a line

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.definitions import CLASSES, LABELS, RESOURCES, definitions

from broker.cli.main import main
from broker.core import proofs
from broker.core.definition import NEEDS_RESOURCE
from broker.core.policy import Policy
from broker.core.proofs import Operand, Space, TooManyError, compare, prove
from broker.policy.load import load_policy
from broker.policy.question import answer, read_question
from broker.text.problems import ProblemsError


def subset(names):
    return st.lists(st.sampled_from(names), unique=True, min_size=1).map(tuple)


spaces = st.builds(
    Space,
    classes=subset(CLASSES),
    frontends=subset(LABELS),
    backends=subset(LABELS),
    resources=st.none() | subset((None, *RESOURCES)),
    modes=subset(("r", "w")),
)


def requests(space, *policies):
    for kind in space.classes:
        resources = space.resources
        if resources is None:
            held = {
                it.name: None
                for policy in policies
                for it in policy.definition.resources
                if it.device_class in (None, kind)
            }
            resources = tuple(held) if kind in NEEDS_RESOURCE else (None, *held)
        yield from itertools.product(
            [kind], space.frontends, space.backends, resources, space.modes
        )


@settings(max_examples=40, deadline=None)
@given(definitions(), spaces)
def test_always_is_always(definition, space):
    policy = Policy(definition)
    asked = list(requests(space, policy))
    granted = [policy.decide(*it) for it in asked]
    for check, wanted in (("always-allows", all(granted)), ("always-denies", not any(granted))):
        proof = prove(policy, check, space)
        assert proof.holds is wanted
        if proof.holds:
            assert proof.requests == len(asked)
            assert proof.counterexample is None
        else:
            assert proof.counterexample in asked
            assert policy.decide(*proof.counterexample) is (check == "always-denies")


operands = st.builds(
    Operand,
    device_class=st.none() | st.sampled_from(CLASSES),
    frontend=st.none() | st.sampled_from(LABELS),
    backend=st.none() | st.sampled_from(LABELS),
    resource=st.none() | st.sampled_from(RESOURCES),
    mode=st.none() | st.sampled_from("rw"),
)


@settings(max_examples=25, deadline=None)
@given(st.tuples(definitions(), definitions()), st.tuples(operands, operands), spaces)
def test_a_comparison_is_of_every_request(pair, sides, space):
    policies = tuple(Policy(it) for it in pair)
    asked = [[side.applied(it) for side in sides] for it in requests(space, *policies)]
    answers = [(policies[0].decide(*one), policies[1].decide(*other)) for one, other in asked]
    for check, wanted in (
        ("implies", all(other for one, other in answers if one)),
        ("equivalent", all(one is other for one, other in answers)),
        ("disjoint", not any(one and other for one, other in answers)),
    ):
        proof = compare(check, policies, sides, space)
        assert proof.holds is wanted
        if not wanted:
            assert [proof.counterexample, proof.other] in asked
            one = policies[0].decide(*proof.counterexample)
            other = policies[1].decide(*proof.other)
            assert {
                "implies": one and not other,
                "equivalent": one is not other,
                "disjoint": one and other,
            }[check]


@settings(max_examples=30, deadline=None)
@given(definitions(), spaces)
def test_a_good_policy_never_errs_and_a_broken_one_is_caught(definition, space):
    policy = Policy(definition)
    known = {entry.name for entry in definition.classes}
    space = Space(
        tuple(it for it in space.classes if it in known),
        space.frontends,
        space.backends,
        space.resources,
    )
    assert prove(policy, "never-errors", space).holds
    if not space.classes:
        return
    frontend = space.frontends[-1]
    judge = policy._judges[space.classes[0]]

    def broken(asked, *rest):
        if asked == frontend:
            raise ZeroDivisionError
        return judge(asked, *rest)

    policy._judges[space.classes[0]] = broken
    # Rules may name a label alike to this one: only one of them is asked then.
    proof = prove(policy, "never-errors", Space(space.classes, (frontend,), space.backends, None))
    assert not proof.holds
    assert proof.counterexample[1] == frontend


def test_too_much_to_ask_is_said(monkeypatch):
    monkeypatch.setattr(proofs, "MOST_ENUMERATED", 1)
    policy = load_policy(POLICY.encode(), "P")
    with pytest.raises(TooManyError, match="more than 1 requests: name a class or a side"):
        prove(policy, "never-errors", Space(("vif",), policy.labels, policy.labels, None))


POLICY = """\
policy: p
version: "1.0"
ste_types: [t, u]
bootstrap: dom0
labels: {dom0: {ste: [t, u]}, a: {ste: [t]}, b: {ste: [u]}, c: {ste: [t]}}
groups: {tu: [a, b]}
resources: {r: {ste: [t], match: {class: vbd, params: /dev/r}}, up: {ste: [t], match: {class: uplink}}}
classes: {vif: {default: ste}, vbd: {default: deny}}
channels:
  - {allow: {class: vbd, frontend: a, backend: dom0, mode: r}}
"""

ANSWERS = [
    ("never-errors", True),
    ("never-errors: {class: vif}", True),
    ("always-denies: {frontend: a, backend: b}", True),
    ("always-denies: {frontend: b, class: vbd}", True),
    ("always-denies: {frontend: 'group:tu', class: vbd}", False),
    ("always-allows: {class: vbd, frontend: a, backend: dom0, mode: r}", True),
    ("always-allows: {class: vbd, frontend: a, backend: dom0}", False),
    ("always-allows: {class: vif, frontend: [a, c], backend: [a, c], resource: none}", True),
    ("always-allows: {class: vif, frontend: any, backend: dom0, resource: none}", True),
    ("implies: [{frontend: c}, {frontend: a}]", True),
    ("implies: [{frontend: a}, {frontend: c}]", False),
    ("equivalent: [{frontend: a, class: vif}, {frontend: c}]", True),
    ("equivalent: [{}, {policy: other}]", False),
    ("implies: [{}, {policy: other}]", True),
    ("implies: [{policy: other}, {}]", False),
    ("disjoint: [{frontend: a}, {frontend: b}]", False),
    ("disjoint: [{frontend: a, backend: a}, {frontend: b}]", True),
    ("disjoint: [{mode: r}, {mode: w, class: vbd}]", True),
]


@pytest.mark.parametrize(("text", "holds"), ANSWERS)
def test_questions_as_they_are_written(text, holds):
    policy = load_policy(POLICY.encode(), "P")
    more = POLICY.replace("b: {ste: [u]}", "b: {ste: [u]}, d: {ste: [t]}").replace(", mode: r", "")
    others = {"other": load_policy(more.encode(), "O")}
    question = read_question(text, "Q")
    assert set(question.policies) <= {"other"}
    assert answer(question, policy, others).holds is holds


PROBLEMS = [
    ("always", "Q:1:1: expected a mapping, not a text"),
    ("always: {}", "Q:1:1: unknown key 'always'"),
    (
        "{}",
        "Q:1:1: one check is asked for: one of always-allows, always-denies, disjoint, equivalent, implies, never-errors",
    ),
    ("{never-errors: {}, always-denies: {}}", "Q:1:1: one check is asked for"),
    ("always-denies: {frontend: nix}", "Q:1:27: unknown label 'nix'"),
    ("always-denies: {frontend: 'group:nix'}", "Q:1:27: unknown label 'group:nix'"),
    ("always-denies: {class: vfb}", "Q:1:24: unknown class 'vfb'"),
    ("always-denies: {resource: x}", "Q:1:27: unknown resource 'x'"),
    ("always-denies: {mode: x}", "Q:1:23: expected r or w, not 'x'"),
    (
        "always-denies: {policy: x}",
        "Q:1:25: 'policy' goes with implies, equivalent, disjoint alone",
    ),
    ("always-denies: {front: x}", "Q:1:17: unknown key 'front'; did you mean 'frontend'?"),
    ("implies", "Q:1:10: expected a list, not a mapping"),
    ("implies: [{}]", "Q:1:1: 'implies' takes two sides: [{...}, {...}]"),
    ("implies: [{frontend: a}, {frontend: nix}]", "Q:1:37: unknown label 'nix'"),
    (
        "implies: [{frontend: [a, b]}, {frontend: c}]",
        "Q:1:11: 'frontend' differs on the two sides: one name on each",
    ),
    (
        "implies: [{frontend: a}, {frontend: 'group:tu'}]",
        "Q:1:26: 'frontend' differs on the two sides: one name on each",
    ),
    (
        "implies: [{resource: none}, {resource: r}]",
        "Q:1:11: 'resource' differs on the two sides: one name on each",
    ),
]


@pytest.mark.parametrize(("text", "wanted"), PROBLEMS)
def test_what_is_no_question_is_refused_at_its_place(text, wanted):
    policy = load_policy(POLICY.encode(), "P")
    with pytest.raises(ProblemsError) as caught:
        answer(read_question(text, "Q"), policy, {})
    assert str(caught.value).startswith(wanted)


def check(capsys, tmp_path, *asked):
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    arguments = [word for text in asked for word in ("--prove", text)]
    code = main(["policy", "check", str(path), *arguments])
    captured = capsys.readouterr()
    return code, captured.out.replace(str(path), "P"), captured.err


def test_the_command_line_answers_each_and_exits_1_if_one_does_not_hold(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = check(
        capsys, tmp_path, "never-errors", "implies: [{frontend: a}, {frontend: c}]"
    )
    assert code == 1
    assert out.splitlines()[2:] == [
        "holds: never-errors (64 requests)",
        "does not hold: implies: [{frontend: a}, {frontend: c}] (16 requests)",
        "  grant: vbd a -> dom0 over r, mode r",
        "    P:10:5: allow vbd frontend a backend dom0 mode r",
        "  deny: vbd c -> dom0 over r, mode r",
        "    P:8:32: no rule allows it, and class vbd has default deny",
    ]
    assert check(capsys, tmp_path, "never-errors")[0] == 0
    code, out, err = check(capsys, tmp_path, "always-denies: {frontend: nix}")
    assert code == 2
    assert err.splitlines()[-1] == "--prove 1:1:27: unknown label 'nix'"
    assert check(capsys, tmp_path, "implies: [{}, {policy: /nowhere}]")[0] == 2


def test_json_is_a_line_an_answer(capsys, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    code = main(["policy", "check", str(path), "--prove", "always-denies: {class: vbd}", "--json"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 1
    assert last["holds"] is False
    assert last["counterexample"][0]["verdict"] == "grant"
    assert last["counterexample"][0]["class"] == "vbd"


def test_a_question_too_large_is_bad_input(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(proofs, "MOST_ENUMERATED", 1)
    code, _, err = check(capsys, tmp_path, "never-errors")
    assert code == 2
    assert "--prove 1:1:1: more than 1 requests" in err


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=40)
    | st.tuples(
        st.sampled_from(("implies", "disjoint", "always-denies", "never-errors")),
        st.text(max_size=20),
    ).map(": ".join)
)
def test_any_question_is_read_or_refused(text):
    policy = load_policy(POLICY.encode(), "P")
    try:
        question = read_question(text, "Q")
        if not question.policies:
            answer(question, policy, {})
    except ProblemsError as error:
        assert all(it.file == "Q" for it in error.problems)
