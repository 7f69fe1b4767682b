"""Frames without reasons: the same answers, and labels that are alike really are."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from broker.policy.load import load_policy

LABELS = ("a", "b", "c", "d", "e")
types = st.sets(st.sampled_from(("x", "y")), min_size=1)
rules = st.lists(
    st.tuples(st.sampled_from(("allow", "deny")), st.sampled_from(LABELS), st.sampled_from(LABELS)),
    max_size=4,
    unique=True,
)


def policy(ste, between):
    labels = "".join(
        f"  {name}: {{ste: [{', '.join(sorted(of))}]}}\n"
        for name, of in zip(LABELS, ste, strict=True)
    )
    channels = "".join(
        f"  - {{{verb}: {{class: vif, between: [{one}, {other}]}}}}\n"
        for verb, one, other in between
    )
    text = (
        'policy: p\nversion: "1.0"\nste_types: [x, y]\nbootstrap: dom0\nlabels:\n'
        f"  dom0: {{ste: [x, y]}}\n{labels}classes:\n  vif: {{protocol: vif, default: ste}}\n"
        + (f"channels:\n{channels}" if channels else "")
    )
    return load_policy(text.encode(), "p.yaml")


def unique(between):
    """Rules about different pairs: two about one are refused as contradictory or doubled."""
    return list({frozenset(rule[1:]): rule for rule in between}.values())


@given(st.lists(types, min_size=len(LABELS), max_size=len(LABELS)), rules)
def test_quick_answers_are_those_with_reasons_and_alike_is_alike(ste, between):
    made = policy(ste, unique(between))
    for a, b in product((*LABELS, "dom0", "stranger"), repeat=2):
        assert made.passes_frames(a, b) == made.frames(a, b).granted
        assert made.passes_frames(a, b) == made.passes_frames(b, a)
    for a, b in product(LABELS, repeat=2):
        if made.frames_alike(a) == made.frames_alike(b):
            for c in LABELS:
                assert made.passes_frames(a, c) == made.passes_frames(b, c)
            assert made.passes_frames(a, b) == made.passes_frames(a, a)
