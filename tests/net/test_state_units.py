"""What is written for connections' states: of every kind of frames, and nothing of other ports."""

from __future__ import annotations

import re

import pytest
from filter_rig import shipped

from broker.filters.fields import CT_STATES
from broker.net.filters.held import library_of
from broker.net.filters.kinds import KINDS
from broker.net.filters.programs import Programs
from broker.net.filters.states import definition, is_state, noting_of, state_conditions
from broker.net.model import PortFilter
from broker.net.ruleset import is_chain, is_filters

ENDS = {"from-guest": ("iif", "to"), "to-guest": ("oif", "from")}
KEY = re.compile(r"(\S+)(?: \. \S+)+ (?:!= )?@(s/\S+)")
STATEFUL = (
    b"profile: p\ndescription: x\ndefault: drop\nrules:\n"
    b"  - {accept: both, match: {ct.state: established}}\n"
)


@pytest.mark.parametrize("direction", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_look_up_begins_with_the_port_and_is_of_what_passed_the_other_way(kind, direction):
    port, other = ENDS[direction]
    for state in CT_STATES.values():
        for condition in state_conditions(KINDS[kind], direction, {state}) or ():
            for first, name in KEY.findall(condition):
                assert first == port
                assert name.startswith(f"s/{other}.")


@pytest.mark.parametrize("direction", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_state_and_what_is_noted_is_the_ports_own(kind, direction):
    told = [it for it in CT_STATES.values() if state_conditions(KINDS[kind], direction, {it})]
    noting = noting_of(KINDS[kind], direction)
    if not told:
        assert noting is None
        assert state_conditions(KINDS[kind], direction, {CT_STATES["untracked"]}) == []
        return
    assert CT_STATES["untracked"] in told
    for rule in () if noting is None else noting.rules:
        assert {first for first, _ in KEY.findall(rule)} <= {ENDS[direction][0]}
        assert set(re.findall(r"@(s/[^ ]+)", rule)) <= noting.states
        assert set(re.findall(r"@(m/[^ ]+)", rule)) <= noting.meters
        # What passes here was accepted already: it is never refused for what is noted.
        assert "drop" not in rule
    assert noting is None or noting.rules[-1] == "accept"


def test_all_of_it_is_made_and_taken_away_with_the_filters():
    programs = Programs(library_of({"p": STATEFUL}))
    assert programs.vif(PortFilter(("p",))).notes
    made = programs.filters()
    assert {f"k/{way}/{of}{v}" for way in ("from", "to") for of in ("tcp", "udp", "echo")
            for v in "46"} <= set(made.chains)  # fmt: skip
    assert len(made.states) == 26
    for name in made.states:
        assert is_filters(name)
        assert not is_chain(name)
        # nft itself tells no more than five parts of a key apart.
        assert definition(name).partition(";")[0].count(" . ") <= 4
    assert all(is_filters(it) for it in made.names())


def test_profiles_that_ask_for_no_state_have_none_of_it():
    programs = Programs(library_of({**shipped(), "p": STATEFUL}))
    given = {"MAC": ("02:00:00:00:00:01",), "IP": ("10.0.0.1",), "IPV6": ("fd00::1",)}
    given["LINK_LOCAL"] = ("fe80::1",)
    vif = programs.vif(PortFilter(("clean-traffic", "no-multicast"), given))
    made = programs.filters()
    assert not vif.notes
    assert not made.states
    assert not [it for it in made.chains if it.startswith("k/") or "-error" in it]
    text = " ".join(line.text for chain in made.chains.values() for line in chain)
    assert not any(is_state(word.removeprefix("@")) for word in text.split())
