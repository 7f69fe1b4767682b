"""A question about two domains is answered as a channel between them is decided."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.asking import Query, ask
from broker.core.channels import Facts, Standing, decide
from broker.policy.load import load_policy

POLICY = load_policy(
    b"""\
policy: corp
version: "1.0"
ste_types: [system, red, blue]
bootstrap: dom0
labels:
  dom0: {ste: [system, red, blue]}
  web: {ste: [red]}
  db: {ste: [red, blue]}
  lone: {ste: [blue]}
resources:
  lun: {ste: [red], match: {class: vbd, params: /lun}}
  tape: {ste: [blue], match: {class: vbd, params: /tape}}
classes:
  vif: {default: ste}
  vbd: {default: deny}
  vkbd: {protocol: nowhere, default: ste}
channels:
  - {allow: {class: vbd, frontend: [web, db], backend: dom0}}
  - {deny: {class: vbd, frontend: db, resource: lun, mode: w}}
  - {deny: {class: vif, between: [web, db]}}
""",
    "P",
)
SPECS = {"vif": "sha256:1", "vbd": "sha256:2"}
PARAMS = {"lun": b"/lun", "tape": b"/tape", None: b"/nothing"}
standings = st.one_of(
    st.sampled_from(["dom0", "web", "db", "lone", "gone"]).map(
        lambda it: Standing(it, "labelled", "")
    ),
    st.just(Standing(None, "unlabelled", "no label is stored")),
    st.just(Standing("web", "refused", "the wall")),
    st.just(Standing("web", "labelled", "why", quarantined=True)),
)
policies = st.sampled_from([POLICY, POLICY, POLICY, None])


@given(
    policy=policies,
    ends=st.tuples(standings, standings),
    device_class=st.sampled_from(["vif", "vbd", "vkbd", "nosuch"]),
    resource=st.sampled_from([None, "lun", "tape"]),
    mode=st.sampled_from(["r", "w"]),
)
def test_the_answer_is_the_decision(policy, ends, device_class, resource, mode):
    if device_class != "vbd":
        resource = None
    device = {"params": PARAMS[resource], "mode": mode.encode()}
    facts = Facts(3, 0, device_class, "u", device, "x", "", ends, b"0" * 32)
    decided = decide(policy, SPECS, facts)
    query = Query(device_class=device_class, resource=resource, mode=mode)
    verdict = ask(policy, SPECS, ((3, ends[0]), (0, ends[1])), query)
    assert verdict.granted == (decided.verdict == "grant")
    assert "; ".join(it.text for it in verdict.reasons) == decided.reason


@given(policy=policies, ends=st.tuples(standings, standings))
def test_frames_need_two_good_ends_and_what_the_policy_says_of_their_labels(policy, ends):
    query = Query(device_class="vif", frames=True)
    verdict = ask(policy, SPECS, ((3, ends[0]), (4, ends[1])), query)
    good = policy is not None and all(it.good and it.label and not it.quarantined for it in ends)
    expected = good and policy.frames(ends[0].label, ends[1].label).granted
    assert verdict.granted == expected
    back = ask(policy, SPECS, ((4, ends[1]), (3, ends[0])), query)
    assert back.granted == verdict.granted
    assert verdict.reasons


def test_a_resource_that_is_none_and_a_class_that_needs_one_are_denied():
    web, dom0 = Standing("web", "labelled", ""), Standing("dom0", "labelled", "")
    ends = ((3, web), (0, dom0))
    for resource in (None, "nosuch"):
        assert not ask(POLICY, SPECS, ends, Query(device_class="vbd", resource=resource)).granted
    assert ask(POLICY, SPECS, ends, Query(device_class="vbd", resource="lun")).granted
