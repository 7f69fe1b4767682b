"""Classes of labels: what they say is what the relation says, and numbers change safely."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.net import classes as module
from broker.net.classes import NONE, ClassesError, avoiding, classify

NAMES = tuple("abcdef")
names = st.frozensets(st.sampled_from(NAMES))
relations = st.frozensets(st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=2))


def relation(pairs):
    return lambda a, b: frozenset((a, b)) in pairs


@given(names, relations)
def test_a_pair_of_labels_may_pass_exactly_if_the_relation_says_so(labels, pairs):
    made = classify(labels, relation(pairs))
    for a, b in product(labels, repeat=2):
        assert made.may_pass(a, b) == (frozenset((a, b)) in pairs)
    assert made.during == made.pairs


@given(names, relations)
def test_labels_share_a_class_exactly_if_they_reach_the_same_labels(labels, pairs):
    made = classify(labels, relation(pairs))
    for a, b in product(labels, repeat=2):
        same = all((frozenset((a, c)) in pairs) == (frozenset((b, c)) in pairs) for c in labels)
        assert (made.number[a] == made.number[b]) == same


@given(names, relations, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3)))
def test_labels_that_are_said_to_be_alike_change_nothing_but_the_work(labels, pairs, kind):
    def frames(a, b):
        return frozenset((kind.get(a, 0), kind.get(b, 0))) in kinds

    kinds = {frozenset(kind.get(it, 0) for it in pair) for pair in pairs}
    plain, quick = (
        classify(labels, frames),
        classify(labels, frames, alike=lambda a: kind.get(a, 0)),
    )
    assert {frozenset(it) for it in plain.members.values()} == {
        frozenset(it) for it in quick.members.values()
    }
    for a, b in product(labels, repeat=2):
        assert plain.may_pass(a, b) == quick.may_pass(a, b)


def test_of_labels_that_are_alike_one_is_asked():
    asked = []
    many = [f"n{i}" for i in range(3000)]
    made = classify(many, lambda a, b: asked.append((a, b)) or True, alike=lambda a: a[-1])
    assert len(asked) == 100
    assert len(made.members[1]) == 3000


def test_a_label_may_be_closed_to_itself():
    made = classify(["a", "b"], relation({frozenset("ab")}))
    assert not made.may_pass("a", "a")
    assert made.may_pass("a", "b")


def test_both_directions_must_be_allowed():
    made = classify(["a", "b"], lambda one, other: (one, other) == ("a", "b"))
    assert made.pairs == frozenset()


def test_an_unknown_label_reaches_nobody():
    made = classify(["a"], lambda _a, _b: True)
    assert not made.may_pass("a", "stranger")
    assert not made.may_pass("stranger", "stranger")
    assert "stranger" not in made.number


@given(names, relations, names, relations)
def test_a_number_passes_on_only_with_every_label_it_stood_for(before, allowed, after, allows):
    old = classify(before, relation(allowed))
    new = classify(after, relation(allows), old)
    for number in new.members.keys() & old.members.keys():
        assert old.members[number] <= new.members[number]


@given(names, relations, names, relations)
def test_while_ports_move_a_packet_passes_only_if_both_ends_may_now(before, allowed, after, allows):
    """A packet on its way may carry the number from before for either end, or for both."""
    old = classify(before, relation(allowed))
    new = classify(after, relation(allows), old)
    for a, b in product(before | after, repeat=2):
        mine = {made.number[a] for made in (old, new) if a in made.number}
        theirs = {made.number[b] for made in (old, new) if b in made.number}
        for pair in product(mine, theirs):
            if pair in new.during:
                assert new.may_pass(a, b)


@given(names, relations, relations)
def test_while_ports_move_nothing_is_lost_that_the_whole_old_class_may_still_do(
    labels, allowed, allows
):
    old = classify(labels, relation(allowed))
    new = classify(labels, relation(allows), old)
    for mine, theirs in product(old.members, repeat=2):
        if all(new.may_pass(a, b) for a in old.members[mine] for b in old.members[theirs]):
            assert (mine, theirs) in new.during


@given(names, relations)
def test_the_same_policy_again_changes_no_number(labels, pairs):
    old = classify(labels, relation(pairs))
    assert classify(labels, relation(pairs), old) == old


def test_a_merged_class_keeps_the_number_of_most_labels():
    everything = relation({frozenset(p) for p in product("abc", repeat=2)})
    old = classify("abc", relation({frozenset("a")}))
    assert old.number == {"a": 1, "b": 2, "c": 2}
    new = classify("abc", everything, old)
    assert new.number == {"a": 2, "b": 2, "c": 2}
    assert (1, 2) in new.during
    assert (1, 2) not in new.pairs


def test_a_label_that_is_gone_takes_its_numbers_pairs_with_it():
    old = classify("ab", relation({frozenset("a"), frozenset("b")}))
    new = classify("b", relation({frozenset("b")}), old)
    assert new.during == new.pairs == {(old.number["b"],) * 2}


def test_numbers_of_an_earlier_life_are_not_given_out():
    made = classify("ab", relation({frozenset("a")}), avoiding([1, 3]))
    assert sorted(made.members) == [2, 4]
    assert made.during == made.pairs


def test_too_many_classes_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_CLASS", 2)
    with pytest.raises(ClassesError):
        classify("abc", relation({frozenset("a"), frozenset("b")}))


def test_no_labels_no_classes():
    assert classify([], lambda _a, _b: True) == NONE
