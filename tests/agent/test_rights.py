"""Who may do what with which node."""

from __future__ import annotations

import pytest

from broker.agent.rights import (
    channel_nodes,
    fixed_nodes,
    permissions,
    security_nodes,
    with_reader,
)
from broker.core.filter_record import MAX_CHUNKS
from broker.xenstore.paths import Channel, report_dir

CHANNEL = Channel(2, "vif", 3, "0")


def test_every_node_belongs_to_domain_0():
    nodes = fixed_nodes(1) | channel_nodes(CHANNEL, 1) | security_nodes("u", 3, [CHANNEL], 1)
    assert {rights[0][1:] for rights in nodes.values()} == {"0"}


def test_the_decision_is_the_brokers_to_write_and_the_backends_to_read():
    nodes = channel_nodes(CHANNEL, 1)
    assert nodes["/broker/v1/decision/2/vif/3/0"] == ("n0", "b1", "r2")
    for name in ("", "/nonce", "/enforced"):
        assert nodes[f"/broker/v1/report/2/vif/3/0{name}"] == ("n0", "b1", "b2")


def test_a_backend_of_vifs_reports_what_it_refused_and_only_it_does():
    assert channel_nodes(CHANNEL, 1)["/broker/v1/report/2/drops"] == ("n0", "b2", "r1")
    assert channel_nodes(CHANNEL, 1)["/broker/v1/report/2/filters"] == ("n0", "b2", "r1")
    assert channel_nodes(CHANNEL, 1)["/broker/v1/report/2/agent"] == ("n0", "b2", "r1")
    assert "/broker/v1/report/2/agent" in channel_nodes(Channel(2, "vbd", 3, "0"), 1)
    assert "/broker/v1/report/0/drops" in channel_nodes(Channel(0, "vif", 3, "0"), 1)
    assert "/broker/v1/report/2/filters" not in channel_nodes(Channel(2, "vbd", 3, "0"), 1)
    assert "/broker/v1/report/2/drops" not in channel_nodes(Channel(2, "vbd", 3, "0"), 1)


def test_no_guest_may_write_its_own_label():
    nodes = security_nodes("u", 3, [CHANNEL], 1)
    assert set(nodes.values()) == {("n0", "b1", "r3"), ("n0", "r1", "r3")}
    assert "/vm/u/security/acm_label/labelname" in nodes
    assert "/vm/u/security/channel/vif/0" in nodes


def test_the_broker_writes_values_and_can_make_no_nodes():
    made = {
        **fixed_nodes(1),
        **channel_nodes(CHANNEL, 1),
        **security_nodes("u", 3, [CHANNEL], 1),
    }
    directories = {path.rpartition("/")[0] for path in made} & made.keys()
    writable = {path for path in directories if "b1" in made[path]}
    assert writable == {report_dir(CHANNEL)}  # its agent's, where nothing else is looked for


def test_only_what_is_signed_for_all_agents_is_for_everyone():
    everyone = [path for path, rights in fixed_nodes(1).items() if rights[0] != "n0"]
    profiles = [path for path in everyone if path.startswith("/broker/v1/profiles/")]
    assert sorted(set(everyone) - set(profiles)) == ["/broker/v1/heartbeat"]
    assert len(profiles) == MAX_CHUNKS + 1
    assert {fixed_nodes(1)[path] for path in everyone} == {("r0", "b1")}


def test_a_vifs_filters_are_the_brokers_to_write_and_the_backends_to_read():
    assert channel_nodes(CHANNEL, 1)["/broker/v1/filter/2/vif/3/0"] == ("n0", "b1", "r2")
    disk = channel_nodes(Channel(2, "vbd", 3, "0"), 1)
    assert not [path for path in disk if path.startswith("/broker/v1/filter/")]


def test_what_is_above_comes_first():
    seen = set()
    for path in channel_nodes(CHANNEL, 1):
        parent = path.rpartition("/")[0]
        assert parent in seen | {"/broker/v1/decision", "/broker/v1/report", "/broker/v1/filter"}
        seen.add(path)


def test_a_domid_is_named_once():
    assert permissions(writers=[1], readers=[1]) == ("n0", "b1")
    assert permissions(writers=[0], readers=[0, 4]) == ("n0", "r4")


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (("n3", "r0"), ("n3", "r0", "r1")),
        (("n0",), ("n0", "r1")),
        (("n3", "r0", "r1"), None),
        (("n3", "b1"), None),
        (("r0",), None),
        (("n1", "r0"), None),
        (("n3", "w1"), ("n3", "r1")),
        (("n3", "n1", "r0"), ("n3", "r0", "r1")),
    ],
)
def test_a_reader_is_added_and_all_else_kept(held, wanted):
    assert with_reader(held, 1) == wanted


def test_a_node_without_room_is_left_alone():
    with pytest.raises(ValueError, match="5 permissions"):
        with_reader(("n0", "r2", "r3", "r4", "r5"), 1)


def test_a_broker_in_domain_0_needs_no_permission():
    assert with_reader(("n3",), 0) is None
    assert channel_nodes(CHANNEL, 0)["/broker/v1/decision/2/vif/3/0"] == ("n0", "r2")
