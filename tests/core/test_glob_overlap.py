"""Globs of `match`, and the exact decision whether two of them overlap."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.definition import Resource
from broker.core.glob import covers, matches, overlap
from broker.core.resources import ResourceIndex

ALPHABET = "ab/"
VALUES = ["".join(it) for size in range(8) for it in itertools.product(ALPHABET, repeat=size)]
patterns = st.text(alphabet=[*ALPHABET, "*"], max_size=4)


def test_a_star_stands_for_any_characters_but_the_slash():
    assert matches("/dev/vg/red-*", "/dev/vg/red-")
    assert matches("/dev/vg/red-*", "/dev/vg/red-web1")
    assert matches("/dev/*/x", "/dev/\n\x01/x")
    assert not matches("/dev/vg/*", "/dev/vg/a/b")
    assert not matches("/dev/vg/red-*", "x/dev/vg/red-1")
    assert not matches("/dev/vg/red-*", "/dev/vg/red-1\n/x")


def test_every_other_character_stands_for_itself():
    assert matches("/dev/[a]?.b", "/dev/[a]?.b")
    assert not matches("/dev/[a]?.b", "/dev/axzb")


def test_a_climbing_value_never_matches():
    assert not matches("*", "..")
    assert not matches("/dev/*/x", "/dev/../x")
    assert not matches("/dev/..", "/dev/..")
    assert matches("/dev/*", "/dev/..x")


@settings(max_examples=150, deadline=None)
@given(patterns, patterns)
def test_two_patterns_overlap_iff_some_value_matches_both(one, other):
    # With a star each they have six other characters: what is common is no longer than that.
    common = any(matches(one, value) and matches(other, value) for value in VALUES)
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, other) == common


@settings(max_examples=150, deadline=None)
@given(patterns, patterns)
def test_one_pattern_covers_another_iff_every_value_of_that_is_its_own(wide, narrow):
    # `c` is in no pattern: what narrow's stars take up, only wide's stars can.
    fresh = matches(wide, narrow.replace("*", "c"))
    values = [value for value in VALUES if matches(narrow, value)]
    every = fresh and all(matches(wide, value) for value in values)
    assert covers(wide, narrow) == every


resources = st.lists(
    st.tuples(
        st.sampled_from(("vbd", "uplink")),
        st.dictionaries(st.sampled_from(("params", "port")), patterns, max_size=2),
    ),
    max_size=6,
).map(
    lambda made: [
        Resource(f"r{number}", "t", (), name, match, "")
        for number, (name, match) in enumerate(made)
    ]
)


def within(one, other):
    return all(
        key in one.match and covers(value, one.match[key]) for key, value in other.match.items()
    )


def narrower(one, other):
    return within(one, other) and not within(other, one)


@settings(max_examples=300, deadline=None)
@given(resources)
def test_all_ties_are_found(made):
    wanted = {
        frozenset((one.name, other.name))
        for one, other in itertools.combinations(made, 2)
        if one.device_class == other.device_class
        and all(overlap(one.match[key], other.match[key]) for key in one.match.keys() & other.match)
        and not (narrower(one, other) or narrower(other, one))
    }
    found = [frozenset((one.name, other.name)) for one, other in ResourceIndex(made).ties()]
    assert set(found) == wanted
    assert len(found) == len(wanted)


@settings(max_examples=300, deadline=None)
@given(
    resources, st.dictionaries(st.sampled_from(("params", "port")), st.sampled_from(VALUES[:400]))
)
def test_a_device_is_the_most_specific_resource_that_matches_it(made, device):
    found = [
        it
        for it in made
        if it.device_class == "vbd"
        and all(key in device and matches(value, device[key]) for key, value in it.match.items())
    ]
    wanted = [
        one.name for one in found if all(one is other or narrower(one, other) for other in found)
    ]
    assert ResourceIndex(made).find("vbd", device) == (wanted[0] if wanted else None)


def test_an_exact_match_goes_before_a_glob_and_more_keys_before_fewer():
    index = ResourceIndex(
        [
            Resource("all", "t", (), "vbd", {}, ""),
            Resource("red", "t", (), "vbd", {"params": "/dev/red-*"}, ""),
            Resource("red_1", "t", (), "vbd", {"params": "/dev/red-1"}, ""),
            Resource("red_phy", "t", (), "vbd", {"params": "/dev/red-*", "type": "phy"}, ""),
        ]
    )
    assert index.find("vbd", {"params": "/dev/blue"}) == "all"
    assert index.find("vbd", {"params": "/dev/red-2"}) == "red"
    assert index.find("vbd", {"params": "/dev/red-1", "type": "file"}) == "red_1"
    assert index.find("vbd", {"params": "/dev/red-2", "type": "phy"}) == "red_phy"
    # Two that are not within one another: a fault in a policy, and no resource here.
    assert index.find("vbd", {"params": "/dev/red-1", "type": "phy"}) is None
    ties = [(one.name, other.name) for one, other in index.ties()]
    assert [set(pair) for pair in ties] == [{"red_1", "red_phy"}]


def test_a_resource_without_a_match_is_never_found():
    index = ResourceIndex([Resource("r", "t", (), None, {}, "")])
    assert index.find("vbd", {"params": "x"}) is None
