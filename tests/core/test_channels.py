"""The pure planning of channels and domains: every deny reason, and nothing without its reason."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broker.core.channels import Facts, Standing, decide, decision_of
from broker.core.domains import Life, standings
from broker.core.plan import Entry, plan
from broker.core.record import Record, inputs_digest
from broker.policy.load import load_policy

POLICY = load_policy(
    b"""\
policy: corp
version: "1.0"
ste_types: [system, red, blue]
chinese_wall_types: [bank_a, bank_b]
conflict_sets: {rivals: [bank_a, bank_b]}
bootstrap: dom0
labels:
  dom0: {ste: [system, red]}
  a: {ste: [red], chinese_wall: [bank_a]}
  b: {ste: [red], chinese_wall: [bank_b]}
  alien: {ste: [blue]}
resources:
  disk: {ste: [red], match: {class: vbd, params: "/dev/vg/*"}}
classes:
  vif: {protocol: vif, default: ste}
  vbd: {protocol: vbd, default: deny}
channels:
  - {allow: {class: vbd, frontend: a, backend: dom0, mode: r}}
""",
    "p",
)
SPECS = {"vif": "sha256:" + "1" * 64, "vbd": "sha256:" + "2" * 64}
DOM0 = Standing("dom0", "labelled", "")
A = Standing("a", "labelled", "")
NONCE = b"0" * 32
UUID = "00000000-0000-4000-8000-000000000003"


def facts(**changes):
    values = {
        "frontend": 3,
        "backend": 0,
        "device_class": "vif",
        "uuid": UUID,
        "device": {"mac": b"x"},
        "problem": "",
        "ends": (A, DOM0),
        "untrusted_nonce": NONCE,
        "spent": "",
    }
    values |= changes
    return Facts(**values, inputs=inputs_digest(values["device"]))


def test_a_good_channel_is_granted_for_the_life_reported():
    decision = decide(POLICY, SPECS, facts())
    assert decision.verdict == "grant"
    assert decision.nonce == NONCE.decode()
    assert decision.spec == SPECS["vif"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"problem": "the device has no backend"}, "no backend"),
        ({"device_class": "vkbd"}, "class vkbd has no description"),
        (
            {"ends": (Standing(None, "unlabelled", "why"), DOM0)},
            "frontend domain 3 is unlabelled: why",
        ),
        ({"ends": (A, Standing("b", "refused", "why"))}, "backend domain 0 is refused: why"),
        ({"ends": (Standing("a", "refused", "x", quarantined=True), DOM0)}, "quarantined: "),
        ({"ends": (Standing(None, "labelled", ""), DOM0)}, "frontend domain 3"),
        ({"device": {"mac": b"\xff"}}, "not UTF-8"),
        ({"device_class": "vbd", "device": {"params": b"/dev/x", "mode": b"r"}}, "resource"),
        ({"device_class": "vbd", "device": {"params": b"/dev/vg/x", "mode": b"w"}}, ""),
        ({"device_class": "vbd", "device": {"params": b"/dev/vg/x", "mode": b"rw"}}, ""),
        ({"device_class": "vbd", "device": {"params": b"/dev/vg/x"}}, ""),
    ],
)
def test_each_thing_that_is_wrong_is_a_denial_that_says_so(changes, reason):
    decision = decide(POLICY, SPECS, facts(**changes))
    assert decision.verdict == "deny"
    assert reason in decision.reason
    assert decision.reason


def test_a_read_only_disk_is_granted_by_its_resource():
    device = {"params": b"/dev/vg/x", "mode": b"r"}
    decision = decide(POLICY, SPECS, facts(device_class="vbd", device=device))
    assert (decision.verdict, decision.resource) == ("grant", "disk")


def test_without_a_policy_or_a_description_everything_is_denied():
    assert decide(None, SPECS, facts()).reason == "no policy is in force"
    assert "not loaded" in decide(POLICY, {}, facts()).reason
    assert decide(POLICY, {}, facts()).verdict == decide(None, SPECS, facts()).verdict == "deny"


@pytest.mark.parametrize("nonce", [None, b"", b"0" * 31, b"0" * 33, b"A" * 32, NONCE + b"\n"])
def test_without_a_good_nonce_what_would_be_granted_is_pending(nonce):
    decision = decide(POLICY, SPECS, facts(untrusted_nonce=nonce))
    assert (decision.verdict, decision.nonce) == ("pending", None)
    assert "nonce" in decision.reason


def test_a_nonce_used_before_is_not_granted():
    decision = decide(POLICY, SPECS, facts(spent="on another path"))
    assert (decision.verdict, decision.nonce) == ("pending", None)
    assert "on another path" in decision.reason


def test_the_inputs_of_two_devices_that_differ_differ():
    one, two = facts(), facts(device={"mac": b"y"})
    assert decide(POLICY, SPECS, one).inputs != decide(POLICY, SPECS, two).inputs


ENTRY_DECISION = decide(POLICY, SPECS, facts())
ENTRY = Entry(1, b"grant ours", ENTRY_DECISION)


@pytest.mark.parametrize(
    ("decision", "entry", "published", "action", "foreign"),
    [
        (ENTRY_DECISION, ENTRY, b"grant ours", "keep", False),
        (ENTRY_DECISION, ENTRY, None, "publish", False),
        (ENTRY_DECISION, ENTRY, b"", "publish", False),
        (ENTRY_DECISION, ENTRY, b"grant theirs", "publish", True),
        (ENTRY_DECISION, None, None, "decide", False),
        (ENTRY_DECISION, None, b"grant theirs", "decide", True),
        (decide(None, SPECS, facts()), ENTRY, b"grant ours", "decide", False),
    ],
)
def test_only_what_is_news_is_decided_and_only_what_differs_is_published(
    decision, entry, published, action, foreign
):
    step = plan(decision, entry, published)
    assert (step.action, step.foreign) == (action, foreign)


def test_a_record_s_decision_is_what_was_decided():
    record = Record(
        verdict=ENTRY_DECISION.verdict,
        seq=1,
        id=UUID,
        frontend=3,
        backend=0,
        device_class="vif",
        device="0",
        uuid=ENTRY_DECISION.uuid,
        nonce=ENTRY_DECISION.nonce,
        inputs=ENTRY_DECISION.inputs,
        labels=ENTRY_DECISION.labels,
        resource=ENTRY_DECISION.resource,
        policy=ENTRY_DECISION.policy,
        spec=ENTRY_DECISION.spec,
        reason=ENTRY_DECISION.reason,
    )
    assert decision_of(record) == ENTRY_DECISION


def life(domid, label, **more):
    return Life(domid, f"00000000-0000-4000-8000-{domid:012d}", label, **more)


def words(*lives):
    result = standings(POLICY, [Life(0, None, None), *lives])
    return {domid: standing.word for domid, standing in result.items() if domid}


def test_who_came_first_runs_and_a_refused_domain_hinders_nobody():
    assert words(life(9, "a"), life(3, "b"), life(4, "a")) == {
        9: "labelled",
        3: "refused",
        4: "labelled",
    }


def test_identity_comes_before_the_label():
    result = standings(
        POLICY,
        [
            Life(0, None, None),
            Life(3, None, "a", "its vm node x names no uuid"),
            Life(4, UUID, "a"),
            Life(5, UUID, "a"),
            Life(6, "u6", "nosuch"),
            Life(7, "u7", None, "a label was found"),
            Life(8, "u8", "a", quarantine="it flooded"),
            Life(9, "u9", "alien"),
        ],
    )
    assert result[0] == Standing("dom0", "labelled", "")
    assert str(result[3]) == "unlabelled its vm node x names no uuid"
    assert result[4].good
    assert (result[5].word, result[5].shadow) == ("refused", True)
    assert "not in policy corp" in result[6].reason
    assert str(result[7]) == "unlabelled a label was found"
    assert (result[8].word, result[8].quarantined) == ("refused", True)
    assert "not authorized" in result[9].reason


def test_without_a_policy_nobody_stands_well():
    assert not any(it.good for it in standings(None, [Life(0, None, None), life(3, "a")]).values())


@given(
    st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["a", "b", "alien", None])), max_size=12)
)
def test_no_two_rivals_ever_run_together(drawn):
    lives = [life(domid, label) for domid, label in dict(drawn).items()]
    result = standings(POLICY, [Life(0, None, None), *lives])
    running = {standing.label for standing in result.values() if standing.good}
    assert not {"a", "b"} <= running
    assert "alien" not in running
