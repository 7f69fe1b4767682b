"""The pitfalls of ACM: what each did there, and that it cannot happen here.

Numbered as in the notes on ACM. Those that are about a running service are held there.
"""

import pytest
from support import acm

from broker.core.channels import Facts, Standing, decide
from broker.core.domains import Life, standings
from broker.policy.acm.load import import_acm
from broker.policy.acm.read import Source
from broker.policy.load import load_policy
from broker.text.problems import ProblemsError

TENANTS = """\
policy: p
version: "1.0"
ste_types: [sys, a, b, c]
chinese_wall_types: [w1, w2, w3, w4]
conflict_sets: {first: [w1, w2], second: [w3, w4]}
bootstrap: dom0
labels:
  dom0: {ste: [sys, a, b]}
  one: {ste: [a], chinese_wall: [w1]}
  two: {ste: [b], chinese_wall: [w2]}
  three: {ste: [a], chinese_wall: [w3]}
  four: {ste: [b], chinese_wall: [w4]}
  plain: {ste: [a]}
  alien: {ste: [c]}
resources: {lun: {ste: [a]}}
classes: {vif: {default: ste}}
"""


@pytest.fixture
def policy():
    return load_policy(TENANTS.encode(), "P")


def xml(**changed):
    made = {
        "ste": ("t",),
        "walls": ("w1", "w2", "w3"),
        "conflicts": {"s": ("w1", "w2")},
        "bootstrap": "m",
        "labels": [("m", ("t",), ()), ("x", ("t",), ("w1",))],
    } | changed
    return Source(acm.policy_xml(**made).encode(), "F")


def refusal(**changed):
    with pytest.raises(ProblemsError) as caught:
        import_acm(xml(**changed))
    return str(caught.value)


def facts(frontend, backend="dom0", domid=3):
    def standing(label):
        return Standing(label, "labelled" if label else "unlabelled", "")

    nonce = b"0" * 32
    ends = standing(frontend), standing(backend)
    return Facts(domid, 0, "vif", "u", {}, "", "", ends, nonce)


SPECS = {"vif": "sha256:0"}


def verdict(policy, asked, memo=None):
    return decide(policy, SPECS, asked, memo).verdict


def test_p1_what_was_remembered_does_not_survive_a_relabel(policy):
    memo = {}
    assert verdict(policy, facts("one"), memo) == "grant"
    assert verdict(policy, facts("alien"), memo) == "deny"


def test_p2_what_was_remembered_is_of_labels_never_of_domids(policy):
    memo = {}
    assert verdict(policy, facts("one", domid=7), memo) == "grant"
    assert verdict(policy, facts("alien", domid=7), memo) == "deny"
    assert not any(7 in question for question in memo)


def test_p3_every_conflict_set_counts_and_one_evaluator_answers_dry_runs_and_admissions(policy):
    assert not policy.admit(("three",), "four").granted
    lives = [Life(3, "u3", "three"), Life(4, "u4", "four")]
    assert [it.good for it in standings(policy, lives).values()] == [True, False]


def test_p4_a_label_with_two_types_of_one_set_is_refused():
    labels = [("m", ("t",), ()), ("x", ("t",), ("w1", "w2"))]
    assert "label 'x' holds w1 and w2 of conflict set 's'" in refusal(labels=labels)
    with pytest.raises(ProblemsError, match="holds two types of conflict set 'first'"):
        load_policy(TENANTS.replace("[w1]}", "[w1, w2]}").encode(), "P")


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_p5_of_two_that_start_at_once_one_is_admitted(policy, order):
    lives = [Life(domid, f"u{domid}", label) for domid, label in enumerate(order, 1)]
    assert [it.good for it in standings(policy, lives).values()] == [True, False]


def test_p6_the_halves_of_a_reference_stay_what_they_are(policy):
    assert policy.ssidref("one") == 0x20002
    assert policy.ssidref("lun") == 0x80000


def test_p7_an_undefined_type_in_a_conflict_set_does_not_make_the_set_vanish():
    assert "conflict set 's' has the undefined type 'gone'" in refusal(
        conflicts={"s": ("w1", "gone")}
    )
    with pytest.raises(ProblemsError, match="unknown Chinese Wall type 'gone'"):
        load_policy(TENANTS.replace("first: [w1, w2]", "first: [w1, gone]").encode(), "P")


def test_p8_two_policies_of_one_name_and_version_are_told_apart(policy):
    other = load_policy(TENANTS.replace("three: {ste: [a]", "three: {ste: [b]").encode(), "P")
    assert (other.name, other.version) == (policy.name, policy.version)
    assert other.digest != policy.digest


def test_p9_frames_are_judged_between_the_guests_not_at_the_bridge_owner(policy):
    assert policy.frames("one", "dom0").granted
    assert policy.frames("two", "dom0").granted
    assert not policy.frames("one", "two").granted


def test_p10_without_a_policy_everything_is_denied():
    assert verdict(None, facts("one")) == "deny"


def test_p11_what_has_no_label_has_none_and_gets_nothing(policy):
    assert verdict(policy, facts(None)) == "deny"
    labels = [("m", ("t",), ()), ("__UNLABELED__", ("t",), ())]
    assert "ACM gave it to whatever had no label" in refusal(labels=labels)


def test_p12_an_empty_label_is_answered(policy):
    answer = policy.admit((), "")
    assert not answer.granted
    assert answer.reasons
    assert not policy.explain("vif", "", "dom0").granted
    assert verdict(policy, facts("")) == "deny"


@pytest.mark.parametrize("version", ["1-0", "1x0", "10", "1.0.0", ""])
def test_p13_a_version_is_two_integers(version):
    if version:
        assert "is not major.minor" in refusal(version=version)
    with pytest.raises(ProblemsError, match=r"is not major\.minor|found nothing"):
        load_policy(TENANTS.replace('"1.0"', f'"{version}"').encode(), "P")


def test_p14_a_label_string_has_three_parts_and_a_name_no_colon():
    # The strings themselves: test_acm_files.
    assert "a colon parts the words of a label" in refusal(name="a:b")
    with pytest.raises(ProblemsError, match="is not a name"):
        load_policy(TENANTS.replace("policy: p", 'policy: "a:b"').encode(), "P")


def test_p15_what_a_policy_enforces_is_read_from_its_xml():
    # Headers that lie about it are remarked on: test_acm_files.
    assert "no SimpleTypeEnforcement" in refusal(ste=(), labels=[("m", (), ()), ("x", (), ())])


def test_p16_a_class_that_nobody_thought_of_is_denied_and_stops_no_update(policy):
    assert not policy.decide("vtpm", "one", "dom0")
    assert policy.explain("vtpm", "one", "dom0").reasons[0].rule == "class"
