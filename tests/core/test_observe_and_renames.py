"""Observe mode's question, and which label of now was which before."""

import calendar

import pytest

from broker.policy.load import load_policy

POLICY = """\
policy: p
version: "1.0"
ste_types: [t]
bootstrap: dom0
labels: LABELS
groups: {g: [b]}
resources: {r: {ste: [t]}}
classes: {vif: {default: deny}, vbd: {default: deny}}
mode: MODE
"""


def policy(mode="enforce", labels="{dom0: {ste: [t]}, a: {ste: [t]}, b: {ste: [t]}}"):
    text = POLICY.replace("LABELS", labels).replace("MODE", mode)
    return load_policy(text.encode(), "P")


OBSERVE = (
    "{observe: {opens: [{class: vif, frontend: a, backend: dom0}, "
    "{class: vbd, frontend: 'group:g', resource: r}], until: 2027-01-31}}"
)
LAST = calendar.timegm((2027, 1, 31, 23, 59, 59))


@pytest.mark.parametrize(
    ("request_", "opened"),
    [
        (("vif", "a", "dom0"), True),
        (("vif", "a", "b"), False),
        (("vif", "b", "dom0"), False),
        (("vif", "a", "dom0", "r"), True),
        (("vbd", "b", "a", "r"), True),
        (("vbd", "b", "a"), False),
        (("vbd", "a", "dom0", "r"), False),
        (("vkbd", "a", "dom0"), False),
        (("vif", "nobody", "dom0"), False),
        (("vbd", "b", "nobody", "r"), False),
    ],
)
def test_what_the_patterns_match_is_observed_up_to_the_last_second_of_the_day(request_, opened):
    observing = policy(OBSERVE)
    assert observing.observes(LAST, *request_) is opened
    assert observing.observes(LAST + 1, *request_) is False
    assert observing.observes(float("nan"), *request_) is False
    assert policy().observes(0, *request_) is False


def test_observing_grants_nothing_by_itself():
    assert not policy(OBSERVE).decide("vif", "a", "dom0")


def test_renames_say_what_a_label_of_before_is_called_now():
    before = policy()
    after = policy(labels="{dom0: {ste: [t]}, c: {ste: [t], was: a}, b: {ste: [t], was: z}}")
    assert after.renames_since(before) == {"a": "c"}
    assert after.successors(before) == {"dom0": "dom0", "a": "c", "b": "b"}


def test_a_name_that_another_label_takes_over_does_not_stand_for_the_one_of_before():
    before = policy()
    taken = policy(labels="{dom0: {ste: [t]}, b: {ste: [t], was: a}}")
    # `b` is what `a` was; what `b` was is gone.
    assert taken.successors(before) == {"dom0": "dom0", "a": "b", "b": None}
    # Loaded once more the name means what it meant.
    assert taken.successors(taken) == {"dom0": "dom0", "b": "b"}
