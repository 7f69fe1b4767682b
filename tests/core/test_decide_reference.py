"""The compiled policy against a reading of the contract in a few plain lines."""

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.definition import (
    NEEDS_RESOURCE,
    Definition,
    DeviceClass,
    Label,
    Resource,
    Rule,
)
from broker.core.policy import Policy
from broker.policy import cover

LABELS = ("l0", "l1", "l2", "l3")
TYPES = ("t0", "t1", "t2")
COLOURS = ("c0", "c1")
RESOURCES = ("r0", "r1")
CLASSES = ("vif", "vbd", "vkbd")
GROUPS = {"g0": ("l0", "l1"), "g1": ("l1", "l2", "l3"), "g2": ()}
WORDS = (*LABELS, *(f"group:{group}" for group in GROUPS))


def subset(names, least=0):
    return st.lists(st.sampled_from(names), unique=True, min_size=least).map(tuple)


def optional_words(names):
    return st.none() | subset(names, 1)


@st.composite
def rules(draw, number):
    return Rule(
        name=f"channels[{number}]",
        verb=draw(st.sampled_from(("allow", "deny"))),
        classes=draw(subset(CLASSES, 1)),
        frontends=draw(optional_words(WORDS)),
        backends=draw(optional_words(WORDS)),
        resources=draw(optional_words(RESOURCES)),
        mode=draw(st.sampled_from("rw")),
        reason="",
        where=f"f:{number}:1",
    )


@st.composite
def definitions(draw):
    labels = [
        Label(name, draw(subset(TYPES)), (), draw(subset(COLOURS)), None, "") for name in LABELS
    ]
    resources = [
        Resource(name, draw(st.sampled_from(TYPES)), draw(subset(COLOURS)), None, {}, "")
        for name in RESOURCES
    ]
    classes = [
        DeviceClass(name, name, draw(st.sampled_from(("ste", "deny"))), "") for name in CLASSES
    ]
    return Definition(
        name="p",
        version=(1, 0),
        replaces=None,
        digest="",
        ste_types=TYPES,
        chinese_wall_types=(),
        conflict_sets={},
        bootstrap="l0",
        labels=tuple(labels),
        groups=GROUPS,
        resources=tuple(resources),
        classes=tuple(classes),
        rules=tuple(draw(rules(number)) for number in range(draw(st.integers(0, 8)))),
        betweens=(),
        on_violation={"default": "close"},
        host_authorization=True,
        protected=(),
        roles={},
    )


def members(words):
    if words is None:
        return set(LABELS)
    return {label for word in words for label in GROUPS.get(word.removeprefix("group:"), (word,))}


def rule_matches(rule, request):
    device_class, frontend, backend, resource, mode = request
    sides = frontend in members(rule.frontends) and backend in members(rule.backends)
    thing = rule.resources is None or resource in rule.resources
    if rule.verb == "allow":
        reach = mode == "r" or rule.mode == "w"
    else:
        reach = mode == "w" or rule.mode == "r"
    return device_class in rule.classes and sides and thing and reach


def granted(definition, request):
    """DESIGN, section 4, sentence by sentence."""
    device_class, frontend, backend, resource, _ = request
    labels = {label.name: label for label in definition.labels}
    resources = {it.name: it for it in definition.resources}
    defaults = {it.name: it.default for it in definition.classes}
    if device_class not in defaults or frontend not in labels or backend not in labels:
        return False
    if resource is not None and resource not in resources:
        return False
    front, back = labels[frontend], labels[backend]
    if not set(front.ste) & set(back.ste):
        return False
    if resource is None and device_class in NEEDS_RESOURCE:
        return False
    if resource is not None:
        thing = resources[resource]
        if thing.ste not in front.ste or thing.ste not in back.ste:
            return False
        if set(thing.colours) - set(front.colours):
            return False
    matching = {rule.verb for rule in definition.rules if rule_matches(rule, request)}
    return "deny" not in matching and ("allow" in matching or defaults[device_class] == "ste")


requests = st.tuples(
    st.sampled_from((*CLASSES, "9pfs")),
    st.sampled_from((*LABELS, "nobody")),
    st.sampled_from((*LABELS, "nobody")),
    st.sampled_from((None, *RESOURCES, "nothing")),
    st.sampled_from("rw"),
)


@settings(max_examples=120, deadline=None)
@given(definitions(), st.lists(requests, min_size=1, max_size=30))
def test_decide_and_explain_agree_with_the_contract(definition, asked):
    policy = Policy(definition)
    for request in asked:
        wanted = granted(definition, request)
        verdict = policy.explain(*request)
        assert policy.decide(*request) is wanted
        assert verdict.granted is wanted
        assert verdict.reasons, "grants and denials both have a reason"


@settings(max_examples=100, deadline=None)
@given(definitions(), requests)
def test_every_rule_that_spoke_is_named(definition, request):
    policy = Policy(definition)
    verdict = policy.explain(*request)
    if any("not in the policy" in reason.text for reason in verdict.reasons):
        return
    verb = "allow" if verdict.granted else "deny"
    wanted = [
        rule.name for rule in definition.rules if rule.verb == verb and rule_matches(rule, request)
    ]
    assert [it.rule for it in verdict.reasons if it.rule.startswith("channels[")] == wanted


@settings(max_examples=100, deadline=None)
@given(
    definitions(),
    st.lists(st.none() | st.integers() | st.text() | st.lists(st.text()), min_size=5, max_size=5),
)
def test_whatever_is_asked_is_answered_and_nonsense_is_denied(definition, nonsense):
    policy = Policy(definition)
    assert policy.decide(*nonsense) is False
    assert policy.explain(*nonsense).granted is False


@given(definitions())
def test_an_error_while_evaluating_denies(definition):
    policy = Policy(definition)

    def broken(*_):
        raise ZeroDivisionError

    policy._judges = {"vif": broken}
    policy._explain = broken
    assert policy.decide("vif", "l0", "l0") is False
    verdict = policy.explain("vif", "l0", "l0")
    assert not verdict.granted
    assert "ZeroDivisionError" in verdict.reasons[0].text


EVERY_REQUEST = list(
    itertools.product(CLASSES, LABELS, LABELS, (None, *RESOURCES), "rw"),
)


@settings(max_examples=100, deadline=None)
@given(definitions())
def test_without_a_rule_that_is_warned_of_every_decision_is_the_same(definition):
    policy = Policy(definition)
    pairs = [
        *cover.redundant(definition.rules, definition.groups),
        *cover.unreachable(definition.rules, definition.groups),
    ]
    for rule, other in pairs:
        assert rule is not other
        others = tuple(it for it in definition.rules if it is not rule)
        without = Policy(msgspec.structs.replace(definition, rules=others))
        for request in EVERY_REQUEST:
            assert policy.decide(*request) is without.decide(*request)
