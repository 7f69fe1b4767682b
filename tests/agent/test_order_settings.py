"""What agent.yaml says about orders, and the rights of their nodes."""

from __future__ import annotations

import pytest

from broker.agent.config import OrdersConfig, load_config
from broker.agent.rights import fixed_nodes
from broker.core.order import KINDS
from broker.text.problems import ProblemsError
from broker.xenstore.paths import ORDER_PLACES, ORDER_RESULTS, ORDERS

PLAIN = "store: xenbus\nbroker_key: k\nstate: s\n"


def config(tmp_path, text):
    path = tmp_path / "agent.yaml"
    path.write_text(PLAIN + text)
    return load_config(path)


def test_all_kinds_are_taken_and_no_disk_if_nothing_is_said(tmp_path):
    assert config(tmp_path, "domid: 0\n").orders is None
    assert OrdersConfig().kinds == list(KINDS)
    assert OrdersConfig().disks == []


def test_kinds_and_disks_are_as_said(tmp_path):
    taken = config(tmp_path, "domid: 0\norders: {kinds: [reset], disks: [/dev/vg/*]}\n").orders
    assert (taken.kinds, taken.disks) == (["reset"], ["/dev/vg/*"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("domid: 2\norders: {}\n", "domain 0's agent alone"),
        ("domid: 0\norders: {kinds: [format]}\n", "format"),
        ("domid: 0\norders: {disks: [vg/*]}\n", "absolute"),
        ("domid: 0\norders: {scripts: [x]}\n", "scripts"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, problem):
    with pytest.raises(ProblemsError, match=problem):
        config(tmp_path, text)


def test_the_broker_writes_orders_and_reads_results():
    nodes = fixed_nodes(1)
    for place in ORDER_PLACES:
        assert nodes[f"{ORDERS}/{place}"] == ("n0", "b1")
        assert nodes[f"{ORDER_RESULTS}/{place}"] == ("n0", "r1")
    assert nodes[ORDERS] == nodes[ORDER_RESULTS] == ("n0", "r1")
