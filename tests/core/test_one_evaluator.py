"""Deciding, explaining and enforcing are one evaluator: random policies never tell them apart."""

from hypothesis import given, settings
from hypothesis import strategies as st
from support.definitions import CLASSES, LABELS, RESOURCES, definitions

from broker.core.asking import Query, ask
from broker.core.channels import Facts, Standing, decide
from broker.core.policy import Policy

SPECS = dict.fromkeys(CLASSES, "sha256:" + "1" * 64)
requests = st.tuples(
    st.sampled_from((*CLASSES, "9pfs")),
    st.sampled_from((*LABELS, "stranger")),
    st.sampled_from(LABELS),
    st.sampled_from("rw"),
)


class Matched(Policy):
    """A policy whose match of resources is what a test says."""

    resource = None

    def resource_for(self, device_class, device):
        return self.resource


@settings(max_examples=150, deadline=None)
@given(
    definitions(), st.lists(requests, min_size=1, max_size=12), st.sampled_from((*RESOURCES, None))
)
def test_decide_explain_query_and_the_enforcing_decision_agree(definition, asked, resource):
    policy = Matched(definition)
    policy.resource = resource
    memo = {}
    for device_class, frontend, backend, mode in [*asked, *asked]:
        request = (device_class, frontend, backend, resource, mode)
        ends = (Standing(frontend, "labelled", ""), Standing(backend, "labelled", ""))
        facts = Facts(
            3, 0, device_class, "u", {"mode": mode.encode()}, "0" * 64, "", ends, b"0" * 32
        )
        enforced = decide(policy, SPECS, facts, memo)
        explained = policy.explain(*request)
        granted = policy.decide(*request)
        assert explained.granted == granted == (enforced.verdict == "grant")
        query = Query(device_class=device_class, resource=resource, mode=mode)
        assert ask(policy, SPECS, ((3, ends[0]), (0, ends[1])), query).granted == granted
        assert explained.reasons
        if device_class in CLASSES and policy.has_class(device_class):
            assert enforced.reason == "; ".join(it.text for it in explained.reasons)
