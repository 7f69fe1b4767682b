"""Who may read, write, own and learn of a node; the lives of domains; quotas."""

from __future__ import annotations

import pytest

from broker.xenstore import wire
from broker.xenstore.errors import (
    ConnectionLostError,
    DeniedError,
    InvalidError,
    NotFoundError,
    QuotaError,
    StoreError,
    UnsupportedError,
)
from broker.xenstore.store.quotas import Quotas
from broker.xenstore.store.store import EmbeddedStore


def domain(dom0, domid):
    home = f"/local/domain/{domid}"
    dom0.mkdir(home)
    dom0.set_perms(home, [f"n{domid}"])
    dom0.introduce(domid)
    return dom0._store.connect(domid)


@pytest.fixture
def dom0():
    return EmbeddedStore().connect()


@pytest.fixture
def guest(dom0):
    return domain(dom0, 5)


def test_relative_paths_begin_at_the_domains_home(dom0, guest):
    guest.write("data/x", b"1")
    assert dom0.read("/local/domain/5/data/x") == b"1"
    guest.watch("data", "rel")
    guest.watch("/local/domain/5/data", "abs")
    guest.take_events()
    guest.write("data/x", b"2")
    assert sorted(guest.take_events()) == [("/local/domain/5/data/x", "abs"), ("data/x", "rel")]


@pytest.mark.parametrize(
    ("permissions", "reads", "writes"),
    [
        (["n0"], False, False), (["r0"], True, False), (["w0"], False, True), (["b0"], True, True),
        (["n0", "r5"], True, False), (["n0", "w5"], False, True), (["b0", "n5"], False, False),
        (["n0", "r6"], False, False), (["n0", "n5", "b5"], False, False), (["n5"], True, True),
        (["n0", "r6", "b5"], True, True),
    ],
)  # fmt: skip
def test_the_first_entry_for_a_domain_decides(dom0, guest, permissions, reads, writes):
    dom0.write("/n", b"1")
    dom0.set_perms("/n", permissions)
    for allowed, act in (
        (reads, lambda: guest.read("/n")),
        (writes, lambda: guest.write("/n", b"")),
    ):
        if allowed:
            act()
        else:
            with pytest.raises(DeniedError):
                act()


def test_new_nodes_inherit_and_belong_to_the_guest_that_makes_them(dom0, guest):
    dom0.mkdir("/shared")
    dom0.set_perms("/shared", ["n0", "b5", "r7"])
    guest.write("/shared/a/b", b"")
    dom0.write("/shared/c", b"")
    assert dom0.get_perms("/shared/a") == ("n5", "b5", "r7")
    assert dom0.get_perms("/shared/a/b") == ("n5", "b5", "r7")
    assert dom0.get_perms("/shared/c") == ("n0", "b5", "r7")


def test_a_missing_node_is_hidden_with_its_parent(dom0, guest):
    dom0.mkdir("/closed")
    with pytest.raises(DeniedError):
        guest.read("/closed/none")
    with pytest.raises(NotFoundError):
        guest.read("none")


@pytest.mark.parametrize("text", ["r", "x5", "r-5", "r05", "r5 ", "", "r123456"])
def test_malformed_permissions_are_refused(dom0, text):
    with pytest.raises(InvalidError):
        dom0.set_perms("/tool", ["n0", text])


def test_only_the_owner_sets_permissions_and_cannot_give_a_node_away(dom0, guest):
    dom0.mkdir("/n")
    dom0.set_perms("/n", ["n0", "b5"])
    with pytest.raises(DeniedError):
        guest.set_perms("/n", ["n5"])
    guest.set_perms("/local/domain/5", ["n5", "r0"])
    with pytest.raises(DeniedError):
        guest.set_perms("/local/domain/5", ["n0"])
    with pytest.raises(NotFoundError):
        guest.set_perms("/local/domain/5", ["n5", "r99"])


def test_a_watch_tells_nothing_of_an_unreadable_path(dom0, guest):
    guest.watch("/", "t")
    dom0.watch("/", "all")
    assert guest.take_events() == [("/", "t")]
    dom0.write("/secret/x", b"")
    dom0.rm("/secret")
    assert guest.take_events() == []
    assert ("/secret", "all") in dom0.take_events()


def test_losing_and_gaining_the_right_to_read_are_both_told(dom0, guest):
    dom0.mkdir("/n")
    guest.watch("/n", "t")
    guest.take_events()
    dom0.set_perms("/n", ["n0", "r5"])
    assert guest.take_events() == [("/n", "t")]
    dom0.set_perms("/n", ["n0"])
    assert guest.take_events() == [("/n", "t")]
    dom0.write("/n", b"")
    assert guest.take_events() == []


def test_a_commit_tells_who_could_read_a_node_it_removes(dom0, guest):
    dom0.mkdir("/n")
    dom0.set_perms("/n", ["n0", "r5"])
    guest.watch("/n", "t")
    guest.take_events()
    tx = dom0.start()
    dom0.rm("/n", tx)
    dom0.end(tx)
    assert guest.take_events() == [("/n", "t")]


def test_removing_a_tree_tells_of_its_top_and_of_watched_nodes_below(dom0):
    dom0.write("/a/b/c", b"")
    dom0.watch("/", "top")
    dom0.watch("/a/b/c", "deep")
    dom0.take_events()
    dom0.rm("/a")
    assert sorted(dom0.take_events()) == [("/a", "top"), ("/a/b/c", "deep")]


def test_an_event_too_long_for_the_wire_is_dropped(dom0):
    token = "t" * 4000
    dom0.request(wire.WATCH, wire.join_strings([b"/a", token.encode()]))
    dom0.take_events()
    dom0.write("/a/" + "b" * 200, b"")
    dom0.write("/a/b", b"")
    assert dom0.take_events() == [("/a/b", token)]


def test_special_events_reach_a_guest_only_when_allowed(dom0, guest):
    guest.watch("@releaseDomain", "r")
    guest.watch("@introduceDomain", "i")
    guest.take_events()
    domain(dom0, 6)
    dom0.release(6)
    assert guest.take_events() == []
    dom0.set_perms("@releaseDomain", ["n0", "r5"])
    domain(dom0, 6)
    dom0.release(6)
    assert guest.take_events() == [("@releaseDomain", "r")]
    with pytest.raises(InvalidError):
        guest.set_perms("@releaseDomain", ["n0"])


def test_a_dead_domain_leaves_no_nodes_no_rights_no_connection(dom0, guest):
    dom0.write("/n", b"secret")
    dom0.set_perms("/n", ["n0", "r5"])
    dom0.mkdir("/shared")
    dom0.set_perms("/shared", ["n0", "b5"])
    guest.write("/shared/mine", b"")
    assert guest.read("/n") == b"secret"
    dom0.release(5)
    assert guest.closed
    with pytest.raises(ConnectionLostError):
        guest.read("/n")
    assert dom0.directory("/shared") == []
    assert "5" not in dom0.directory("/local/domain")
    dom0.introduce(5)
    again = dom0._store.connect(5)
    assert dom0.get_perms("/n") == ("n0", "r5")
    with pytest.raises(DeniedError):
        again.read("/n")
    dom0.set_perms("/n", ["n0", "r5"])
    assert again.read("/n") == b"secret"


def test_a_node_given_to_another_counts_for_and_dies_with_its_new_owner():
    dom0 = EmbeddedStore(Quotas(nodes=2)).connect()
    five, six = domain(dom0, 5), domain(dom0, 6)
    five.mkdir("x")
    with pytest.raises(QuotaError):
        five.mkdir("y")
    dom0.set_perms("/local/domain/5/x", ["n6"])
    five.mkdir("y")
    with pytest.raises(QuotaError):
        six.mkdir("z")
    dom0.release(6)
    assert five.directory("/local/domain/5") == ["y"]


def test_a_stale_grant_is_not_inherited_into_a_new_life(dom0, guest):
    dom0.mkdir("/n")
    dom0.set_perms("/n", ["n0", "b5"])
    dom0.release(5)
    dom0.write("/n/child", b"")
    again = domain(dom0, 5)
    with pytest.raises(DeniedError):
        again.read("/n/child")


def test_a_grant_made_in_a_transaction_is_of_the_life_it_was_made_in(dom0, guest):
    dom0.mkdir("/n")
    tx = dom0.start()
    dom0.set_perms("/n", ["n0", "b5"], tx)
    dom0.release(5)
    again = domain(dom0, 5)
    dom0.end(tx)
    with pytest.raises(DeniedError):
        again.read("/n")


def test_the_root_and_the_special_names_outlive_their_owner(dom0, guest):
    dom0.set_perms("/", ["r5"])
    dom0.set_perms("@releaseDomain", ["n5"])
    dom0.release(5)
    assert dom0.get_perms("/") == ("r0",)
    assert "tool" in dom0.directory("/")


def test_a_stub_domain_has_its_targets_rights(dom0, guest):
    stub = domain(dom0, 6)
    with pytest.raises(DeniedError):
        stub.read("/local/domain/5")
    dom0.request(wire.SET_TARGET, b"6\x005\0")
    stub.write("/local/domain/5/x", b"1")
    dom0.release(5)
    domain(dom0, 5)
    with pytest.raises(DeniedError):
        stub.read("/local/domain/5")


def test_introducing_again_resets_the_domains_connection(dom0, guest):
    guest.watch("x", "t")
    tx = guest.start()
    dom0.introduce(5)
    guest.take_events()
    guest.write("x", b"")
    assert guest.take_events() == []
    with pytest.raises(NotFoundError):
        guest.read("x", tx)


def test_reset_watches_drops_watches_and_transactions(guest):
    guest.watch("x", "t")
    tx = guest.start()
    guest.request(wire.RESET_WATCHES)
    guest.write("x", b"")
    assert guest.take_events() == []
    with pytest.raises(NotFoundError):
        guest.end(tx)


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        (wire.INTRODUCE, b"6\x001\x001\0"), (wire.RELEASE, b"5\0"), (wire.CONTROL, b"check\0"),
        (wire.IS_DOMAIN_INTRODUCED, b"5\0"), (wire.RESUME, b"5\0"), (wire.SET_TARGET, b"5\x000\0"),
    ],
)  # fmt: skip
def test_a_guest_may_not_administer(guest, op, payload):
    with pytest.raises(DeniedError):
        guest.request(op, payload)


@pytest.mark.parametrize("domid", [0x7FF0, 65535, 99999])
def test_numbers_that_no_domain_can_have_are_refused(dom0, domid):
    with pytest.raises(NotFoundError):
        dom0.introduce(domid)
    with pytest.raises(NotFoundError):
        dom0.set_perms("/tool", ["n0", f"r{domid}"])


def test_a_domain_that_is_not_introduced_cannot_connect(dom0):
    with pytest.raises(NotFoundError):
        dom0._store.connect(5)


@pytest.mark.parametrize("op", [15, 16, 20, 23, 0xFFFF])
def test_unknown_operations_are_refused(dom0, op):
    with pytest.raises(UnsupportedError):
        dom0.request(op)


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        (wire.READ, b""),
        (wire.READ, b"\0"),
        (wire.READ, b"/a"),
        (wire.READ, b"/a\0/b\0"),
        (wire.READ, b"/a//b\0"),
        (wire.READ, b"/a/\0"),
        (wire.READ, b"/a\n\0"),
        (wire.READ, b"\xff\0"),
        (wire.READ, b"@releaseDomain\0"),
        (wire.READ, b"/" + b"a" * 2048 + b"\0"),
        (wire.WRITE, b"/a"),
        (wire.WATCH, b"/a\0"),
        (wire.WATCH, b"/a\0t\0u\0"),
        (wire.WATCH, b"/a\0t"),
        (wire.WATCH, b"@" + b"a" * 2048 + b"\0t\0"),
        (wire.WATCH, b"@\xff\0t\0"),
        (wire.SET_PERMS, b"/\0"),
        (wire.SET_PERMS, b"/\0n0"),
        (wire.SET_PERMS, b"@other\0n0\0"),
        (wire.DIRECTORY_PART, b"/\0"),
        (wire.DIRECTORY_PART, b"/\0x\0"),
        (wire.TRANSACTION_END, b"X\0"),
        (wire.TRANSACTION_END, b""),
        (wire.INTRODUCE, b"5\x001\0"),
        (wire.INTRODUCE, b"5\x001\x000\0"),
        (wire.INTRODUCE, b"-5\x001\x001\0"),
        (wire.RELEASE, b"x\0"),
        (wire.RELEASE, b"0\0"),
        (wire.CONTROL, b"memreport\0"),
        (wire.RM, b"/\0"),
        (wire.RELEASE, b"9" * 30 + b"\0"),
    ],
)
def test_malformed_requests_are_refused(dom0, op, payload):
    with pytest.raises(InvalidError):
        dom0.request(op, payload)


def test_quotas_hold_a_guest_and_not_domain_0():
    quotas = Quotas(nodes=5, node_bytes=200, permissions=2, watches=2, transactions=1)
    dom0 = EmbeddedStore(quotas).connect()
    guest = domain(dom0, 5)
    for name in "abcd":
        guest.mkdir(name)
    for refused in (
        lambda: guest.mkdir("e"),
        lambda: guest.write("a", b"x" * 168),
        lambda: guest.set_perms("a", ["n5", "r0", "r0"]),
        lambda: [guest.watch(path, "t") for path in "wxyz"],
        lambda: [guest.start() for _ in range(3)],
    ):
        with pytest.raises(QuotaError):
            refused()
    guest.write("a", b"x" * 167)
    guest.rm("b")
    guest.mkdir("e")
    for number in range(20):
        dom0.write(f"/many/{number}", b"x" * 3000)
        dom0.watch(f"/w{number}", "t")
        dom0.start()


def test_names_of_children_count_against_a_guests_parent_node():
    dom0 = EmbeddedStore(Quotas(node_bytes=100)).connect()
    guest = domain(dom0, 5)
    guest.mkdir("a/" + "x" * 60)
    with pytest.raises(QuotaError):
        guest.mkdir("a/" + "y" * 60)
    with pytest.raises(QuotaError):
        guest.mkdir("b/" + "z" * 80 + "/c")
    assert dom0.directory("/local/domain/5") == ["a"]


def test_quotas_count_what_a_transaction_has_made():
    dom0 = EmbeddedStore(Quotas(nodes=4)).connect()
    guest = domain(dom0, 5)
    tx = guest.start()
    for name in "abc":
        guest.mkdir(name, tx)
    with pytest.raises(QuotaError):
        guest.mkdir("d", tx)
    guest.rm("a", tx)
    guest.mkdir("d", tx)


def test_transactions_side_by_side_cannot_pass_the_quota():
    dom0 = EmbeddedStore(Quotas(nodes=4)).connect()
    guest = domain(dom0, 5)
    one, two = guest.start(), guest.start()
    for name in "ab":
        guest.mkdir(f"one-{name}", one)
        guest.mkdir(f"two-{name}", two)
    guest.end(one)
    with pytest.raises(QuotaError):
        guest.end(two)
    assert sorted(dom0.directory("/local/domain/5")) == ["one-a", "one-b"]


def test_a_guests_deepest_tree_is_removed_and_walked(dom0, guest):
    deep = "/".join("d" * 900)
    guest.mkdir(deep)
    dom0.rm("/local/domain/5/d")
    assert guest.directory("/local/domain/5") == []
    guest.mkdir(deep)
    dom0.release(5)
    assert dom0.directory("/local/domain") == []


def test_pending_identical_events_are_one_and_a_flood_ends_the_watcher(dom0, monkeypatch):
    monkeypatch.setattr("broker.xenstore.store.connections.MAX_PENDING_EVENTS", 50)
    slow = dom0._store.connect()
    slow.watch("/a", "t")
    for _ in range(1000):
        dom0.write("/a/same", b"")
    assert slow.closed is None
    for number in range(60):
        dom0.write(f"/a/{number}", b"")
    assert slow.closed == "too many events left unread"
    with pytest.raises(StoreError):
        slow.read("/a")


def test_many_long_events_end_the_watcher_too(dom0, monkeypatch):
    monkeypatch.setattr("broker.xenstore.store.connections.MAX_PENDING_BYTES", 10_000)
    slow = dom0._store.connect()
    slow.watch("/", "t")
    for _ in range(10):
        dom0.write("/" + "x" * 1500, b"")
    assert slow.closed is None
    for number in range(10):
        dom0.write("/" + "x" * 1500 + str(number), b"")
    assert slow.closed
