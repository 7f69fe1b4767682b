"""Ports that come, go, are renamed and come again; policies that change; tables that are broken."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from net_rig import (
    OBSERVER,
    all_frames,
    delivered,
    expected,
    frame_for,
    markers,
    run,
    teach,
)

from broker.net.libnftables import Libnftables, TransactionError
from broker.net.model import NetError
from broker.net.tables import BRIDGE, FAMILIES

pytestmark = pytest.mark.root


def reached(rig, guests, observer):
    return {(a, b) for _, a, b in delivered(guests, observer, all_frames(guests[:2]))}


def test_a_port_that_comes_again_under_the_same_name_is_closed(bed):
    rig, one, two, observer = bed
    for _ in range(10):
        rig.net.host.ip(f"link del {two.port}")
        two.socket.close()
        (two,) = rig.net.add("vif2.0")
        one.send(frame_for("odd broadcast", one))
        two.send(frame_for("odd broadcast", two))
        delivered([one], observer, [(one, frame_for("odd broadcast", one))])
        assert markers(two) == []
        assert {sender for sender, _, _ in markers(observer)} <= {one.number}
    rig.enforcer.put(rig.port(two, 1))
    teach([one, two])
    assert (one.number, two.number) in reached(rig, [one, two], observer)


def test_a_name_taken_over_by_a_rename_gives_nothing(bed):
    rig, one, two, observer = bed
    (thief,) = rig.net.add("thief")
    rig.net.host.ip(
        "link set vif2.0 down", "link set vif2.0 name gone", "link set gone up",
        "link set thief down", "link set thief name vif2.0", "link set vif2.0 up",
    )  # fmt: skip
    rig.net.forwarding("gone", "vif2.0")
    thief.send(frame_for("odd broadcast", thief))
    seen = delivered([one, two, thief], observer, [(one, frame_for("odd broadcast", one))])
    ends = {(sender, receiver) for _, sender, receiver in seen}
    assert ends == {(one.number, two.number), (one.number, observer.number)}


def test_a_port_is_closed_before_it_has_a_class_and_after(bed):
    rig, one, two, observer = bed
    teach([one, two])
    rig.enforcer.remove(two.index)
    one.send(frame_for("ipv4", one, two))
    two.send(frame_for("ipv4", two, one))
    assert {b for _, b in _without_sentinel(one, two, observer)} == {observer.number}
    rig.enforcer.put(rig.port(two, 1))
    teach([one, two])
    assert (two.number, one.number) in reached(rig, [one, two], observer)


def _without_sentinel(one, two, observer):
    seen = delivered([one, two], observer, [(one, frame_for("odd broadcast", one))])
    return {(a, b) for _, a, b in seen}


def test_a_relabelled_port_changes_peers_without_losing_its_place(bed):
    rig, one, two, observer = bed
    teach([one, two])
    rig.enforcer.update(
        rig.target(
            [rig.port(one, 1), rig.port(two, 2), rig.port(observer, 9)],
            {(1, 1), (2, 9), (9, 2), (1, 9), (9, 1)},
        )
    )
    assert reached(rig, [one, two], observer) == {(g.number, observer.number) for g in (one, two)}
    rig.enforcer.put(rig.port(two, 1))
    assert (one.number, two.number) in reached(rig, [one, two], observer)


def test_pairs_revoked_and_granted_in_one_change(bed):
    rig, one, two, observer = bed
    teach([one, two])
    ports = list(rig.enforcer.target.ports.values())
    rig.enforcer.update(rig.target(ports, {(1, 9), (9, 1)}))
    assert reached(rig, [one, two], observer) == {(g.number, observer.number) for g in (one, two)}
    rig.enforcer.update(rig.target(ports, {(1, 9), (9, 1), (1, 1)}), during=frozenset({(1, 9)}))
    rig.enforcer.settle()
    guests = [one, two]
    seen = {(a, b) for a, b in reached(rig, guests, observer) if b != observer.number}
    assert seen == {(one.number, two.number), (two.number, one.number)}
    assert rig.alarms == []


def test_starting_again_takes_over_and_closes_what_it_is_not_told(bed):
    rig, one, two, observer = bed
    assert rig.enforcer.numbers_in_kernel() == {1, 9}
    rig.enforcer.start(rig.target([rig.port(one, 1), rig.port(observer, 9)], {(1, 1), (1, 9)}))
    assert _without_sentinel(one, two, observer) == {(one.number, observer.number)}


def test_stopping_leaves_everything_as_it_is(bed):
    rig, *_ = bed
    before = rig.content()
    rig.enforcer = None
    assert rig.content() == before


BREAKAGES = {
    "flush ruleset": "flush ruleset",
    "table gone": f"delete table bridge {BRIDGE}",
    "chain flushed": f"flush chain bridge {BRIDGE} forward",
    "rule added": f"insert rule bridge {BRIDGE} forward accept",
    "policy accepts": f"add chain bridge {BRIDGE} forward {{ policy accept; }}",
    "element added": f"add element bridge {BRIDGE} pairs {{ 0x58420005 . 5842:5 }}",
    "element gone": f"delete element bridge {BRIDGE} pairs {{ 0x58420001 . 5842:1 }}",
    "table dormant": f"add table bridge {BRIDGE} {{ flags dormant; }}",
    "port added": "add element bridge xpb_bridge ports { 4242 }",
    "inet flushed": "flush table inet xpb_inet",
    "arp gone": "delete table arp xpb_arp",
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_what_somebody_else_breaks_is_noticed_and_repaired(bed, what):
    rig, one, two, observer = bed
    assert rig.enforcer.check()
    assert rig.alarms == []
    rig.net.host.nft(BREAKAGES[what])
    assert not rig.enforcer.check()
    assert len(rig.alarms) == 2
    assert rig.enforcer.check()
    teach([one, two])
    assert (one.number, two.number) in reached(rig, [one, two], observer)


def test_a_change_on_broken_tables_writes_everything_anew(bed):
    rig, one, two, observer = bed
    rig.net.host.nft("flush ruleset")
    rig.enforcer.remove(two.index)
    assert rig.alarms
    assert rig.enforcer.check()
    assert _without_sentinel(one, two, observer) == {(one.number, observer.number)}


def test_an_element_lost_without_notice_is_found_by_the_next_change_of_it(bed):
    rig, _, two, _ = bed
    rig.net.host.nft(f"delete element bridge {BRIDGE} sender {{ {two.index} }}")
    rig.enforcer.put(rig.port(two, 9))
    assert rig.alarms
    assert rig.enforcer.check()


class Refusing:
    """A transactor that refuses from some call on, or claims to have done what it has not."""

    def __init__(self, inner, *, lies):
        self.inner, self.lies = inner, lies

    def run(self, _commands):
        if not self.lies:
            raise TransactionError("refused")

    write = run

    def close(self):
        self.inner.close()


@contextlib.contextmanager
def refusing(rig, *, lies):
    """Within, no transaction of the enforcer's is carried out, neither by nft nor directly."""
    honest = rig.enforcer._nft, rig.enforcer._elements
    rig.enforcer._nft, rig.enforcer._elements = (Refusing(it, lies=lies) for it in honest)
    try:
        yield
    finally:
        rig.enforcer._nft, rig.enforcer._elements = honest


@pytest.mark.parametrize("lies", [False, True])
def test_a_change_that_is_not_in_force_is_never_taken_for_one(bed, lies):
    rig, one, two, observer = bed
    (three,) = rig.net.add("vif3.0")
    with refusing(rig, lies=lies), pytest.raises(NetError):
        rig.enforcer.put(rig.port(three, 1))
    assert three.index not in rig.enforcer.target.ports
    rig.enforcer.check()
    one.send(frame_for("odd broadcast", one))
    _without_sentinel(one, two, observer)
    assert markers(three) == [], "a later repair must not open what was refused"


@pytest.mark.parametrize("lies", [False, True])
def test_a_removal_that_failed_is_not_done_until_the_kernel_shows_it(bed, lies):
    rig, one, two, observer = bed
    with refusing(rig, lies=lies):
        for _ in range(3):
            with pytest.raises(NetError):
                rig.enforcer.remove(two.index)
    rig.enforcer.remove(two.index)
    assert _without_sentinel(one, two, observer) == {(one.number, observer.number)}


def test_a_change_of_policy_that_is_not_in_force_is_never_taken_for_one(bed):
    rig, one, two, observer = bed
    ports = list(rig.enforcer.target.ports.values())
    with refusing(rig, lies=True), pytest.raises(NetError):
        rig.enforcer.update(rig.target(ports, {(1, 9), (9, 1)}))
    assert not rig.enforcer.check()
    teach([one, two])
    assert reached(rig, [one, two], observer) == {(g.number, observer.number) for g in (one, two)}


class Noting:
    """A transactor, both ways, that notes the kernel's pairs after each transaction."""

    def __init__(self, rig):
        self.rig, self.pairs = rig, []
        self.inner, self.direct = rig.enforcer._nft, rig.enforcer._elements
        rig.enforcer._nft = rig.enforcer._elements = self

    def run(self, commands):
        self.inner.run(commands)
        self._note()

    def write(self, changes):
        self.direct.write(changes)
        self._note()

    def _note(self):
        self.pairs.append(len(self.rig.enforcer._readback.elements(BRIDGE, "pairs")))

    def close(self):
        self.inner.close()


def test_what_retired_numbers_need_is_in_force_until_it_is_settled(bed):
    rig, *_ = bed
    ports = list(rig.enforcer.target.ports.values())
    during = frozenset({(1, 1), (1, 9), (9, 1)})
    noting = Noting(rig)
    rig.enforcer.update(rig.target(ports, {(1, 1)}), during=during)
    assert noting.pairs == [3]
    rig.enforcer.settle()
    rig.enforcer.settle()
    assert noting.pairs == [3, 1]
    rig.enforcer.update(rig.target(ports, {(9, 9)}), during=frozenset({(9, 9)}))
    assert noting.pairs == [3, 1, 1]
    assert rig.alarms == []


@pytest.mark.parametrize("change", ["put", "remove", "update", "start"])
def test_retired_numbers_are_gone_before_anything_else_is_changed(bed, change):
    """They may stand for other labels in the next change, and must not keep their pairs then."""
    rig, one, two, observer = bed
    ports = list(rig.enforcer.target.ports.values())
    rig.enforcer.update(rig.target(ports, {(1, 9)}), during=frozenset({(1, 9), (7, 7), (7, 1)}))
    noting = Noting(rig)
    if change == "put":
        rig.enforcer.put(rig.port(two, 9, macs=(two.mac,)))
    elif change == "remove":
        rig.enforcer.remove(one.index)
    elif change == "update":
        rig.enforcer.update(rig.target(ports, {(7, 9), (9, 7)}))
    else:
        rig.enforcer.start(rig.target(ports, {(9, 1)}))
    assert noting.pairs == {"update": [1, 2], "start": [1]}.get(change, [1, 1])
    assert (7, 7) not in rig.enforcer.target.pairs
    assert rig.enforcer.check()
    assert observer.index in rig.enforcer.target.ports


def test_traffic_is_no_change_of_the_tables(bed):
    rig, one, two, observer = bed
    rig.enforcer.remove(two.index)
    one.send(frame_for("odd broadcast", one))
    two.send(frame_for("odd broadcast", two))
    _without_sentinel(one, two, observer)
    assert rig.enforcer.check()
    assert rig.alarms == []


@pytest.mark.parametrize("next_", ["put", "update"])
def test_after_a_failure_nothing_else_is_called_done_before_all_is_written(bed, next_):
    rig, one, two, observer = bed
    with refusing(rig, lies=False):
        with pytest.raises(NetError):
            rig.enforcer.remove(two.index)
        if next_ == "put":
            with pytest.raises(NetError):
                rig.enforcer.put(rig.port(one, 1, macs=(one.mac,)))
    if next_ == "put":
        rig.enforcer.put(rig.port(one, 1, macs=(one.mac,)))
    else:
        rig.enforcer.update(rig.enforcer.target)
    assert _without_sentinel(one, two, observer) == {(one.number, observer.number)}
    assert rig.enforcer.check()


class Saboteur:
    """A transactor beside whom somebody else flushes a chain after each of his transactions."""

    def __init__(self, rig, times):
        self.rig, self.times, self.inner = rig, times, rig.enforcer._nft

    def run(self, commands):
        self.inner.run(commands)
        if self.times > 0:
            self.times -= 1
            self.rig.net.host.nft(f"flush chain bridge {BRIDGE} forward")

    def close(self):
        self.inner.close()


def test_rules_that_somebody_spoils_at_once_do_not_become_the_measure(labelled):
    rig = labelled()
    one, two = rig.net.add("vif1.0", "vif2.0")
    (observer,) = rig.net.add(OBSERVER)
    target = rig.target([rig.port(g, 1) for g in (one, two, observer)], {(1, 1)})
    honest = rig.enforcer._nft
    rig.enforcer._nft = Saboteur(rig, 99)
    with pytest.raises(NetError):
        rig.enforcer.start(target)
    rig.enforcer._nft = honest
    rig.enforcer._nft = Saboteur(rig, 3)
    rig.enforcer.start(target)
    assert rig.enforcer.check()
    guests = [one, two, observer]
    teach(guests)
    assert delivered(guests, observer, all_frames(guests)) == expected(guests, lambda _a, _b: True)


def test_foreign_tables_are_never_touched(labelled):
    rig = labelled()
    foreign = """
        table bridge filter {
          set xpb_bridge { type ether_addr; elements = { 02:00:00:00:00:09 }; }
          chain forward { type filter hook forward priority 0; ether saddr @xpb_bridge drop; }
        }
        table inet xpb { chain input { type filter hook input priority 0; policy accept; }; }
        table ip nat { chain out { type nat hook postrouting priority 100; masquerade; }; }
    """
    rig.net.host.nft(foreign)
    before = rig.net.host.listing("ruleset")
    (guest,) = rig.net.add("vif1.0")
    rig.enforcer.start(rig.target([rig.port(guest, 1)], {(1, 1)}))
    rig.enforcer.remove(guest.index)
    rig.net.host.nft(f"delete table bridge {BRIDGE}")
    assert not rig.enforcer.check()
    for table, family in FAMILIES.items():
        rig.net.host.nft(f"delete table {family} {table}")
    assert rig.net.host.listing("ruleset") == before


def test_conntrack_entries_of_a_revoked_pair_are_cut(bed):
    if subprocess.run(["which", "conntrack"], capture_output=True, check=False).returncode:
        pytest.fail("needs the package conntrack")
    rig, one, two, observer = bed
    ports = [
        rig.port(one, 1, ips=("10.0.0.1",)),
        rig.port(two, 2, ips=("10.0.0.2",)),
        rig.port(observer, 9, ips=("10.0.0.9",)),
    ]
    rig.enforcer.update(rig.target(ports, {(1, 2), (2, 1), (1, 9), (9, 1)}))
    for target in ("10.0.0.2", "10.0.0.9", "10.0.0.77"):
        run([
            "ip", "netns", "exec", rig.net.host.name, "conntrack", "-I", "-s", "10.0.0.1",
            "-d", target, "-p", "udp", "--sport", "5", "--dport", "6", "-t", "300",
        ])  # fmt: skip
    assert entries(rig) == {"10.0.0.2", "10.0.0.9", "10.0.0.77"}
    rig.enforcer.update(rig.target(ports, {(1, 9), (9, 1)}))
    assert entries(rig) == {"10.0.0.9", "10.0.0.77"}
    rig.enforcer.remove(one.index)
    assert entries(rig) == set()


def entries(rig):
    listed = run(["ip", "netns", "exec", rig.net.host.name, "conntrack", "-L"])
    return {line.split("dst=")[1].split()[0] for line in listed.splitlines()}


def test_several_bridges_and_the_same_classes(labelled):
    rig = labelled("br0", "br1")
    one, two = rig.net.add("one", "two", bridge="br0")
    (three,) = rig.net.add("three", bridge="br1")
    (observer,) = rig.net.add(OBSERVER, bridge="br0")
    ports = [rig.port(g, 1) for g in (one, two, observer)]
    ports.append(rig.port(three, 1, bridge="br1"))
    rig.enforcer.start(rig.target(ports, {(1, 1)}))
    guests = [one, two, observer]
    teach(guests)
    assert delivered(guests, observer, all_frames(guests)) == expected(guests, lambda _a, _b: True)
    assert markers(three) == []


def test_a_port_that_moves_to_another_bridge_leaves_nothing_behind(labelled):
    rig = labelled("br0", "br1")
    wire, guest = rig.net.add("eth0", "vif1.0", bridge="br0")
    uplink = rig.port(wire, 2, uplink=True)
    rig.enforcer.start(rig.target([uplink, rig.port(guest, 1, macs=(guest.mac,))], {(1, 1)}))
    rig.enforcer.put(rig.port(guest, 1, bridge="br1", macs=(guest.mac,)))
    assert rig.enforcer._readback.elements(BRIDGE, "local_macs") == {}
    assert rig.enforcer.check()
    rig.enforcer.put(rig.port(guest, 1, macs=(guest.mac,)))
    assert len(rig.enforcer._readback.elements(BRIDGE, "local_macs")) == 1
    assert rig.alarms == []


def test_a_refused_transaction_changes_nothing_and_says_why(bed):
    rig, *_ = bed
    before = rig.content()
    with rig.net.host.entered():
        nft = Libnftables()
    with pytest.raises(TransactionError, match="No such file or directory"):
        nft.run(["add table inet xpb_inet2", "delete table inet nowhere"])
    assert rig.content() == before
    nft.close()
    with pytest.raises(TransactionError, match="closed"):
        nft.run(["add table inet xpb_inet2"])
