"""Netlink: news of others' changes and of links, and answers that are torn, stale or malformed."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_rig import Net

from broker.net import links, netlink
from broker.net.conntrack import Conntrack
from broker.net.libnftables import Libnftables
from broker.net.links import Link, LinkTable
from broker.net.model import NetError
from broker.net.monitor import Changes, Monitor

NOTHING = Changes(tables=False, gone=frozenset())


@pytest.fixture
def heard():
    net = Net("br0")
    net.add("vif1.0")
    with net.host.entered():
        monitor, nft = Monitor(), Libnftables()
    yield net, monitor, nft
    monitor.close()
    net.close()


@pytest.mark.root
def test_only_others_changes_of_our_tables_are_news(heard):
    net, monitor, nft = heard
    nft.run(["add table bridge xpb_bridge", "add chain bridge xpb_bridge forward"])
    assert monitor.changes() == NOTHING
    net.host.nft("add table bridge other; add chain bridge other forward")
    assert monitor.changes() == NOTHING
    net.host.nft("add rule bridge xpb_bridge forward accept")
    assert monitor.changes().tables
    assert monitor.changes() == NOTHING
    # Somebody's change of his own after ours is not ours touched.
    nft.run(["add chain bridge xpb_bridge input"])
    net.host.nft("delete table bridge other")
    assert monitor.changes() == NOTHING
    net.host.nft("flush ruleset")
    assert monitor.changes().tables


@pytest.mark.root
def test_unheard_is_what_comes_within_and_heard_what_comes_before_and_after(heard):
    net, monitor, _ = heard
    net.host.nft("add table bridge xpb_bridge")
    with monitor.unheard():
        pass
    assert monitor.changes().tables
    with monitor.unheard():
        net.host.nft("add chain bridge xpb_bridge forward")
    assert monitor.changes() == NOTHING
    net.host.nft("flush ruleset")
    assert monitor.changes().tables


@pytest.mark.root
def test_who_cannot_listen_again_says_so(heard):
    _, monitor, _ = heard
    monitor._tables.join = refuse
    with pytest.raises(NetError, match="who hears of tables"), monitor.unheard():
        pass
    monitor._tables.leave = refuse
    with pytest.raises(NetError, match="who hears of tables"), monitor.unheard():
        pytest.fail("it is heard still")


def refuse(_group):
    raise OSError(errno.ENOMEM, "no memory")


@pytest.mark.root
def test_a_link_is_gone_when_it_is_and_not_when_it_leaves_its_bridge(heard):
    net, monitor, _ = heard
    index = net.index("vif1.0")
    monitor.changes()
    net.host.ip("link set vif1.0 nomaster", "link set vif1.0 down", "link set vif1.0 name x")
    assert monitor.changes() == NOTHING
    net.host.ip("link del x")
    assert monitor.changes().gone == {index}


@pytest.mark.root
def test_news_that_were_lost_count_as_a_change(heard):
    _, monitor, _ = heard
    monitor._tables.heard = lambda: ([], True)
    assert monitor.changes().tables


@pytest.mark.root
def test_news_of_other_subsystems_are_not_taken_for_tables(heard):
    _, monitor, _ = heard
    body = b"\7\0\0\0" + netlink.text(1, "xpb_bridge")
    generation = b"\0\0\0\0" + netlink.attribute(2, b"\0\0\0\1")
    monitor._tables.heard = lambda: ([(5 << 8, body), (10 << 8 | 15, generation)], False)
    assert monitor.changes() == NOTHING
    monitor._tables.heard = lambda: ([(10 << 8, body), (10 << 8 | 15, generation)], False)
    assert monitor.changes().tables


class Wire:
    """A netlink socket that answers with what it is given; `{seq}` is the request's number."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sequence = 0
        self.asked = 0

    def send(self, data):
        self.sequence = struct.unpack_from("=IHHII", data)[3]
        self.asked += 1

    def recv(self, _size):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return b"".join(
            struct.pack("=IHHII", 16 + len(body), kind, flags, self.sequence + stale, 0) + body
            for kind, flags, stale, body in answer
        )


def asking(*answers):
    made = object.__new__(netlink.NetlinkSocket)
    made._socket, made._sequence = Wire(*answers), 0
    return made


DONE = (3, 0, 0, b"\0\0\0\0")


def test_the_rest_of_an_earlier_answer_is_not_this_ones():
    stale = (16, 0, -1, b"old!")
    found = asking([stale, (16, 0, 0, b"new!")], [(3, 0, -1, b"\0\0\0\0"), DONE])
    assert found.ask(18, netlink.DUMP, b"") == [(16, b"new!")]


def test_a_list_that_changed_while_it_was_read_is_read_again():
    torn = [(16, 0x10, 0, b"half"), DONE]
    whole = [(16, 0, 0, b"all!"), DONE]
    made = asking(torn, whole)
    assert made.ask(18, netlink.DUMP, b"") == [(16, b"all!")]
    assert made._socket.asked == 2
    with pytest.raises(BlockingIOError, match="kept changing"):
        asking(*[torn] * 5).ask(18, netlink.DUMP, b"")


def test_a_refusal_is_an_error_with_its_number():
    refusal = (2, 0, 0, struct.pack("=i", -errno.EPERM) + bytes(16))
    with pytest.raises(PermissionError):
        asking([refusal]).ask(19, netlink.ACK, b"")
    assert asking([(2, 0, 0, bytes(20))]).ask(19, netlink.ACK, b"") == []


def test_a_full_queue_is_told_and_what_follows_is_still_read():
    full, empty = OSError(errno.ENOBUFS, "full"), BlockingIOError()
    assert asking(full, [(16, 0, 0, b"news")], empty).heard() == ([(16, b"news")], True)
    assert asking([(16, 0, 0, b"news")], empty).heard() == ([(16, b"news")], False)
    with pytest.raises(OSError, match="gone"):
        asking(OSError(errno.EBADF, "gone")).heard()


@given(st.binary(max_size=64))
def test_any_bytes_are_taken_apart_or_left(data):
    for _, _, _, payload in netlink.messages(data):
        assert len(payload) <= len(data)
    for _, value in netlink.attribute_list(data):
        assert len(value) <= len(data)


def test_a_length_that_is_none_ends_the_list():
    assert list(netlink.messages(bytes(64))) == []
    assert list(netlink.attribute_list(bytes(64))) == []
    good, long = netlink.attribute(1, b"abcd"), struct.pack("=HH", 12, 2) + b"efgh"
    assert list(netlink.attribute_list(good + long)) == [(1, b"abcd")]
    assert links.gone(links.DELLINK, b"short") is None


class Switches(LinkTable):
    def __init__(self, *there):
        self.there = there

    def all(self):
        return list(self.there)

    def named(self, name):
        return next((link for link in self.there if link.name == name), None)


def link(name, kind):
    return Link(1, name, kind=kind, master=0, up=True, parent="")


@pytest.mark.parametrize(
    "there",
    [
        (link("br0", "openvswitch"),),
        (link("br0", ""), link("other", "openvswitch")),
        (link("br0", ""), link("ovs-system", "")),
    ],
)
def test_a_bridge_of_open_vswitch_is_refused_by_its_name(there):
    with pytest.raises(NetError, match="Open vSwitch"):
        Switches(*there).check_bridge("br0")


def test_what_is_no_bridge_is_refused_as_what_it_is():
    with pytest.raises(NetError, match="but a plain interface"):
        Switches(link("br0", "")).check_bridge("br0")
    with pytest.raises(NetError, match="there is no bridge br0"):
        Switches().check_bridge("br0")
    assert Switches(link("br0", "bridge")).check_bridge("br0").kind == "bridge"


class Entries:
    """One conntrack entry, from 10.0.0.1 to 10.0.0.2, that cannot be deleted for some reason."""

    def __init__(self, why):
        self.why = why

    def ask(self, _kind, flags, _body):
        if flags != netlink.DUMP:
            raise self.why
        ends = netlink.attribute(1, bytes((10, 0, 0, 1))) + netlink.attribute(
            2, bytes((10, 0, 0, 2))
        )
        original = netlink.attribute(1, netlink.attribute(1, ends))
        return [(256, b"\2\0\0\0" + original)]


def test_an_entry_that_ended_by_itself_is_cut_and_one_that_stays_is_an_error():
    made = object.__new__(Conntrack)
    made._socket = Entries(FileNotFoundError())
    asked = []
    assert made.cut(lambda *ends: asked.append(ends) or True) == 1
    assert asked == [("10.0.0.1", "10.0.0.2")]
    made._socket = Entries(PermissionError("not permitted"))
    assert made.cut(lambda *_: False) == 0
    with pytest.raises(NetError, match="cannot be cut: not permitted"):
        made.cut(lambda *_: True)
