"""A policy written as YAML and read again is the same policy."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import definition as core
from broker.policy.load import load_policy
from broker.policy.write import policy_text

LABELS = ("l0", "l1", "l(2)", "no", "1.0")
TYPES = ("t0", "t-1", "null", "0x3")
WALLS = ("w0", "w1", "w2")
CLASSES = ("vif", "vbd", "9pfs")
RESOURCES = ("r0", "r1", "r2")
WORDS = (*LABELS, "group:g0", "group:g1")
text = st.text(min_size=1, max_size=30).filter(
    lambda it: it.encode("utf-8", "ignore").decode() == it
)


def subset(names, least=0):
    return st.lists(st.sampled_from(names), unique=True, min_size=least).map(tuple)


def grants():
    """A grant of a role, with any selectors."""
    return st.builds(
        core.Grant,
        verbs=st.just(("read", "label.*", "policy.load")),
        labels=st.none() | subset((*LABELS, "group:g0"), 1),
        classes=st.none() | subset(CLASSES, 1),
        resources=st.none() | st.just(("r0",)),
        domains=st.none() | st.just(("web*", "a b", "no")),
        second_person=st.booleans(),
    )


@st.composite
def rule(draw, number):
    verb = draw(st.sampled_from(("allow", "deny")))
    name, reason = f"channels[{number}]", draw(text | st.just(""))
    if draw(st.booleans()):
        pair = draw(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)))
        return core.Between(name, verb, pair, reason, "")
    sides = [draw(st.none() | subset(WORDS, 1)) for _ in range(2)]
    resources = draw(st.none() | subset(RESOURCES, 1))
    mode = draw(st.sampled_from("rw"))
    return core.Rule(name, verb, draw(subset(CLASSES, 1)), *sides, resources, mode, reason, "")


@st.composite
def resources(draw):
    # Matches that cannot tie: every one of another directory.
    made = []
    for number, name in enumerate(RESOURCES):
        ste, colours = draw(st.sampled_from(TYPES)), draw(subset(("c0", "c1")))
        match = draw(
            st.sampled_from(({}, {"params": f"/dev/{number}/*"}, {"params": f"{number}: #x"}))
        )
        made.append(core.Resource(name, ste, colours, "vbd" if match else None, match, ""))
    return tuple(made)


@st.composite
def definitions(draw):
    version = draw(st.tuples(st.integers(1, 99), st.integers(0, 99)))
    labels = tuple(
        core.Label(
            name,
            draw(subset(TYPES)),
            draw(st.just(()) | st.sampled_from(WALLS).map(lambda it: (it,))),
            draw(subset(("c0", "c1"))),
            draw(st.sampled_from((None, f"former_{number}"))),
            "",
        )
        for number, name in enumerate(LABELS)
    )
    rules = [draw(rule(number)) for number in range(draw(st.integers(0, 5)))]
    pattern = core.Pattern(draw(subset(CLASSES, 1)), draw(st.none() | subset(WORDS, 1)), None, None)
    observe = core.Observe((pattern,), 1801440000, "2027-01-31", "")
    return core.Definition(
        name="p",
        version=version,
        replaces=draw(st.none() | st.just(("other", (1, 0)))),
        digest="",
        ste_types=TYPES,
        chinese_wall_types=WALLS,
        conflict_sets=draw(st.sampled_from(({}, {"s": WALLS, "u": ("w0", "w2")}))),
        bootstrap=draw(st.sampled_from(LABELS)),
        labels=labels,
        groups={"g0": draw(subset(LABELS)), "g1": ("l0",)},
        resources=draw(resources()),
        classes=tuple(
            core.DeviceClass(it, "proto", draw(st.sampled_from(("ste", "deny"))), "")
            for it in CLASSES
        ),
        rules=tuple(it for it in rules if isinstance(it, core.Rule)),
        betweens=tuple(it for it in rules if isinstance(it, core.Between)),
        on_violation={"default": draw(st.sampled_from(("close", "reset"))), "vif": "report"},
        host_authorization=draw(st.booleans()),
        protected=draw(subset(LABELS)),
        roles=draw(st.dictionaries(st.sampled_from(("op", "1.5")), st.tuples(grants()))),
        observe=draw(st.sampled_from((None, observe))),
    )


def bare(definition):
    """Without what says where, or which bytes."""
    without = {"where": ""}
    parts = {
        name: tuple(msgspec.structs.replace(it, **without) for it in getattr(definition, name))
        for name in ("labels", "resources", "classes", "rules", "betweens")
    }
    parts["roles"] = {
        name: tuple(msgspec.structs.replace(it, **without) for it in its)
        for name, its in definition.roles.items()
    }
    observe = definition.observe
    if observe is not None:
        parts["observe"] = msgspec.structs.replace(observe, where="")
    return msgspec.structs.replace(definition, digest="", **parts)


@settings(max_examples=60, deadline=None)
@given(definitions())
def test_what_is_written_is_read_back_the_same(definition):
    written = policy_text(definition, ["a heading"])
    read = load_policy(written.encode(), "P")
    assert bare(read.definition) == bare(definition)
    assert policy_text(read.definition, ["a heading"]) == written


@pytest.mark.parametrize("name", ["policy.yaml"])
def test_the_shipped_example_is_read_back_the_same(name):
    data = (Path(__file__).parents[2] / "etc" / name).read_bytes()
    definition = load_policy(data, "P").definition
    written = policy_text(definition)
    assert bare(load_policy(written.encode(), "P").definition) == bare(definition)
    assert max(map(len, written.splitlines())) <= 100


def test_long_lists_are_wrapped():
    names = tuple(f"type_number_{number}" for number in range(40))
    data = (
        'policy: p\nversion: "1.0"\nbootstrap: a\nclasses: {vif: {default: ste}}\n'
        f"ste_types: [{', '.join(names)}]\nlabels: {{a: {{ste: [{', '.join(names)}]}}}}\n"
    )
    written = policy_text(load_policy(data.encode(), "P").definition)
    assert max(map(len, written.splitlines())) <= 100
    assert load_policy(written.encode(), "P").definition.labels[0].ste == names
