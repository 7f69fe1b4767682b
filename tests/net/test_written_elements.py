"""A port's elements, written without nft: the same bytes as nft's, all of them or none."""

from __future__ import annotations

import time

import pytest
from filter_rig import FilterRig
from labelled_rig import Labelled

from broker.net import comparing, elements, encoding, readback
from broker.net.elements import ElementWriter, can_be_written
from broker.net.libnftables import Libnftables, TransactionError
from broker.net.readback import Readback, in_set, key_and_data
from broker.net.ruleset import Change, changes, difference, group_spec
from broker.net.tables import BRIDGE, MARK_BASE, SETS

pytestmark = pytest.mark.root

MANY = {
    "MAC": ["02:00:00:00:00:01", "02:00:00:00:00:02"],
    "IP": ["10.0.0.1", "10.0.0.2"],
    "IPV6": ["fd00::1"],
    "LINK_LOCAL": ["fe80::1"],
}
NETWORKS = {**MANY, "IPV6": ["fd00:1::/64"]}


@pytest.fixture
def rig():
    made = FilterRig(Labelled())
    made.hold("clean-traffic", **MANY)
    yield made
    assert made.rig.alarms == []
    made.rig.close()


def sets(rig):
    """All elements that are written to the bridge's table, as the kernel shows them."""
    with rig.rig.net.host.entered():
        reader = Readback()
    fixed = {spec.name for spec in SETS[BRIDGE]}
    names = [it for it in reader.names(BRIDGE) if it in fixed or it.startswith(("v/", "r/"))]
    return {name: settled(reader, name) for name in names}


def settled(reader, name):
    """The set's elements: listings of one that is just moving to a larger table miss some."""
    before, now = None, reader.elements(BRIDGE, name)
    while before != now:
        time.sleep(0.01)
        before, now = now, reader.elements(BRIDGE, name)
    return now


@pytest.mark.parametrize("variables", [MANY, NETWORKS], ids=["values", "networks"])
def test_what_is_put_is_what_nft_writes(rig, variables):
    rig.hold("clean-traffic", **variables)
    by_nft = sets(rig)
    port = rig.port(rig.guest, ["clean-traffic"], **variables)
    for _ in range(2):
        rig.rig.enforcer.remove(port.index)
        gone = sets(rig)
        assert all(key[:4] != port.index.to_bytes(4, "little") for key in gone["from_guest"])
        assert gone != by_nft
        rig.rig.enforcer.put(port)
        assert sets(rig) == by_nft
    assert rig.rig.enforcer.check()


class Noting:
    """A transactor that notes what it is asked for."""

    def __init__(self, inner, asked):
        self.inner, self.asked = inner, asked

    def run(self, commands):
        self.asked.append(commands)
        self.inner.run(commands)


def test_nft_is_not_asked_for_a_port_whose_profiles_are_there_and_is_for_ranges(rig):
    asked = []
    honest = rig.rig.enforcer._nft
    rig.rig.enforcer._nft = Noting(honest, asked)
    for variables, by_nft in ((MANY, False), (NETWORKS, True)):
        port = rig.port(rig.guest, ["clean-traffic"], **variables)
        rig.rig.enforcer.put(port)
        asked.clear()
        rig.rig.enforcer.remove(port.index)
        rig.rig.enforcer.put(port)
        assert bool(asked) == by_nft
    rig.rig.enforcer._nft = honest


def _spec(name):
    return next(spec for spec in SETS[BRIDGE] if spec.name == name)


def test_of_a_refused_transaction_nothing_is_done(rig):
    before = sets(rig)
    with rig.rig.net.host.entered():
        writer = ElementWriter()
    comes = Change(BRIDGE, _spec("ports"), {}, {77: None})
    for bad in (
        Change(BRIDGE, _spec("host"), {99: None}, {}),
        Change(BRIDGE, _spec("to_guest"), {}, {77: "goto nowhere"}),
        Change(BRIDGE, group_spec("v/NOWHERE.i32"), {}, {(77, ((1, 1),)): None}),
    ):
        for listed in ([comes, bad], [bad, comes]):
            with pytest.raises(TransactionError, match="refused elements"):
                writer.write(listed)
            assert sets(rig) == before
    writer.write([])
    writer.write([comes])
    assert sets(rig) != before
    writer.write([Change(BRIDGE, _spec("ports"), {77: None}, {})])
    assert sets(rig) == before
    writer.close()


def test_what_is_asked_by_its_key_is_there_or_not(rig):
    with rig.rig.net.host.entered():
        reader = Readback()
    index = rig.guest.index
    asked = [
        (BRIDGE, "sender", index.to_bytes(4, "little")),
        (BRIDGE, "sender", (index + 1000).to_bytes(4, "little")),
        (BRIDGE, "nowhere", bytes(4)),
        (BRIDGE, "to_guest", index.to_bytes(4, "little")),
    ] * 20
    found = reader.present(asked)
    assert found[1] is None
    assert found[2] is None
    assert key_and_data(found[0]) == (asked[0][2], (0x58420001).to_bytes(4, "little"))
    assert key_and_data(found[3])[1].startswith(b"goto c/")
    assert found == found[:4] * 20


def test_an_answer_about_another_set_is_not_taken_for_this_ones():
    element = encoding.key_attribute(bytes(4))
    ours, others = (in_set(BRIDGE, name, element) for name in ("ports", "host"))
    assert readback._one_element(BRIDGE, "ports", ours) == element
    assert readback._one_element(BRIDGE, "ports", others) == b""


def test_ranges_and_what_no_transaction_has_room_for_are_left_to_nft(monkeypatch):
    monkeypatch.setattr(elements, "_MOST", 400)
    few = {(BRIDGE, "ports"): dict.fromkeys(range(1, 401))}
    many = {(BRIDGE, "ports"): dict.fromkeys(range(1, 402))}
    ranges = {(BRIDGE, "r/IP.i32"): {(1, ((1, 5),)): None}}
    assert can_be_written(changes({}, few))
    assert not can_be_written(changes({}, many))
    assert not can_be_written(changes(ranges, {}))
    assert not _spec("ports").ranges


class Missing:
    """Lists all but one of the pairs, so many times."""

    def __init__(self, times):
        self.left = times

    def elements(self, table, name):
        assert (table, name) == (BRIDGE, "pairs")
        self.left -= 1
        keys = encoding.encoded_keys(_spec("pairs"), [(1, 2), (2, 1)])
        return dict.fromkeys(keys[: 1 if self.left >= 0 else 2], b"")


def test_a_set_that_seems_to_differ_is_looked_at_again_but_not_for_ever():
    content = {(BRIDGE, "pairs"): {(1, 2): None, (2, 1): None}}
    assert comparing.set_that_differs(Missing(2), content, content) == ""
    assert comparing.set_that_differs(Missing(100), content, content) == f"{BRIDGE} pairs"


NUMBERS = range(1, 101)
THOUSANDS = {
    (BRIDGE, "pairs"): {(one, other): None for one in NUMBERS for other in NUMBERS},
    (BRIDGE, "ports"): dict.fromkeys(range(1000, 8000)),
    (BRIDGE, "sender"): dict.fromkeys(range(1000, 8000), MARK_BASE | 7),
    (BRIDGE, "receiver"): dict.fromkeys(range(1000, 8000), MARK_BASE | 7),
    (BRIDGE, "to_guest"): dict.fromkeys(range(1000, 8000), "accept"),
    (BRIDGE, "local_macs"): {(index, "02:00:00:00:00:01"): None for index in range(1000, 8000)},
}
"""Each more than one message has room for; the pair that the rig has is among them."""


def test_thousands_are_what_nft_writes(rig):
    with rig.rig.net.host.entered():
        writer, nft = ElementWriter(), Libnftables()
    before = sets(rig)
    nft.run(difference({}, THOUSANDS))
    by_nft = sets(rig)
    nft.run(difference(THOUSANDS, {}))
    assert sets(rig) != by_nft
    writer.write(changes({}, THOUSANDS))
    assert sets(rig) == by_nft
    fewer = {place: dict(list(some.items())[:6000]) for place, some in THOUSANDS.items()}
    writer.write(changes(THOUSANDS, fewer))
    there = sets(rig)
    assert {name: len(there[name]) for _, name in fewer} == {
        name: 6000 + len(before[name]) - (name == "pairs") for _, name in fewer
    }
    writer.close()
    nft.close()


def test_of_thousands_none_is_written_if_the_last_is_refused(rig):
    with rig.rig.net.host.entered():
        writer = ElementWriter()
    before = sets(rig)
    nowhere = {**THOUSANDS[BRIDGE, "to_guest"], 7999: "goto nowhere"}
    with pytest.raises(TransactionError, match="refused elements"):
        writer.write(changes({}, {**THOUSANDS, (BRIDGE, "to_guest"): nowhere}))
    assert sets(rig) == before
    writer.close()


def test_most_pairs_going_the_set_is_emptied_and_what_stays_is_there(rig):
    with rig.rig.net.host.entered():
        writer = ElementWriter()
    place = BRIDGE, "pairs"
    writer.write(changes({}, {place: THOUSANDS[place]}))
    few = {place: {(2, 2): None, (7, 9): None}}
    (change,) = changes(THOUSANDS, {**THOUSANDS, **few})
    assert change.emptied
    writer.write([change])
    numbers = ((2, 2), (7, 9))
    assert set(sets(rig)["pairs"]) == {
        b"".join((MARK_BASE | n).to_bytes(4, "little") for n in pair) for pair in numbers
    }
    writer.close()
