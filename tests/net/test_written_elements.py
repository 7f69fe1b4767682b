"""A port's elements, written without nft: the same bytes as nft's, all of them or none."""

from __future__ import annotations

import pytest
from filter_rig import FilterRig
from labelled_rig import Labelled

from broker.net import encoding, readback
from broker.net.elements import ElementWriter, can_be_written
from broker.net.libnftables import TransactionError
from broker.net.readback import Readback, in_set, key_and_data
from broker.net.ruleset import Change, changes, group_spec
from broker.net.tables import BRIDGE, SETS

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
    """All elements of the bridge's table, as the kernel shows them."""
    with rig.rig.net.host.entered():
        reader = Readback()
    fixed = {spec.name for spec in SETS[BRIDGE]} | {"drops"}
    names = [it for it in reader.names(BRIDGE) if it in fixed or it.startswith(("v/", "r/"))]
    return {name: reader.elements(BRIDGE, name) for name in names}


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


def test_many_elements_and_ranges_are_left_to_nft():
    ports = _spec("ports")
    few = {(BRIDGE, "ports"): dict.fromkeys(range(1, 401))}
    many = {(BRIDGE, "ports"): dict.fromkeys(range(1, 402))}
    ranges = {(BRIDGE, "r/IP.i32"): {(1, ((1, 5),)): None}}
    assert can_be_written(changes({}, few))
    assert not can_be_written(changes({}, many))
    assert not can_be_written(changes(ranges, {}))
    assert not ports.ranges
