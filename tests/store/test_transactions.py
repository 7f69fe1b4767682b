"""Snapshots, conflicts, and their bounds."""

from __future__ import annotations

import pytest

from broker.xenstore import wire
from broker.xenstore.errors import AgainError, NotFoundError, QuotaError, StoreError
from broker.xenstore.store import tree as tree_module
from broker.xenstore.store.quotas import Quotas
from broker.xenstore.store.store import EmbeddedStore


@pytest.fixture
def client():
    connection = EmbeddedStore().connect()
    connection.write("/a/b", b"1")
    return connection


def test_a_transaction_reads_the_store_as_it_was_when_it_began(client):
    tx = client.start()
    client.write("/a/b", b"2")
    client.write("/a/new", b"")
    assert client.read("/a/b", tx) == b"1"
    assert client.directory("/a", tx) == ["b"]
    with pytest.raises(NotFoundError):
        client.read("/a/new", tx)


def test_two_snapshots_each_keep_their_own_past(client):
    first = client.start()
    client.write("/a/b", b"2")
    second = client.start()
    client.rm("/a")
    assert (client.read("/a/b", first), client.read("/a/b", second)) == (b"1", b"2")
    client.end(first, commit=False)
    assert client.read("/a/b", second) == b"2"


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (lambda c, tx: c.read("/a/b", tx), lambda c: c.write("/a/b", b"1")),
        (lambda c, tx: c.get_perms("/a/b", tx), lambda c: c.set_perms("/a/b", ["n0", "r0"])),
        (lambda c, tx: c.write("/a/b", b"x", tx), lambda c: c.write("/a/b", b"y")),
        (lambda c, tx: c.directory("/a", tx), lambda c: c.write("/a/c", b"")),
        (lambda c, tx: c.directory("/a", tx), lambda c: c.rm("/a/b")),
        (lambda c, tx: c.rm("/a", tx), lambda c: c.write("/a/b/c", b"")),
        (lambda c, tx: c.mkdir("/n", tx), lambda c: c.write("/n", b"x")),
        (lambda c, tx: c.write("/a/n", b"", tx), lambda c: c.rm("/a")),
        (lambda c, tx: c.write("/a/n", b"", tx), lambda c: c.set_perms("/a", ["n0", "r0"])),
    ],
)
def test_what_a_transaction_depends_on_must_not_change(client, inside, outside):
    tx = client.start()
    inside(client, tx)
    outside(client)
    with pytest.raises(AgainError):
        client.end(tx)


def test_siblings_and_unread_values_are_no_conflict(client):
    tx = client.start()
    client.write("/a/mine", b"m", tx)
    client.write("/a/other", b"o")
    client.write("/a/b", b"9")
    client.end(tx)
    assert client.directory("/a") == ["b", "other", "mine"]


def test_a_read_of_a_missing_node_conflicts_with_its_creation(client):
    tx = client.start()
    with pytest.raises(NotFoundError):
        client.read("/a/n", tx)
    client.write("/a/n", b"")
    with pytest.raises(AgainError):
        client.end(tx)


def test_a_failed_commit_changes_nothing_and_ends_the_transaction(client):
    tx = client.start()
    client.write("/x", b"", tx)
    client.read("/a/b", tx)
    client.write("/a/b", b"2")
    with pytest.raises(AgainError):
        client.end(tx)
    with pytest.raises(NotFoundError):
        client.end(tx)
    assert "x" not in client.directory("/")


def test_a_node_removed_and_made_again_with_children_is_whole(client):
    tx = client.start()
    client.rm("/a", tx)
    client.write("/a/z/y", b"1", tx)
    client.write("/a", b"top", tx)
    client.end(tx)
    assert (client.read("/a"), client.directory("/a"), client.read("/a/z/y")) == (
        b"top",
        ["z"],
        b"1",
    )


def test_events_come_at_commit_one_a_node(client):
    client.watch("/", "t")
    client.take_events()
    tx = client.start()
    client.write("/a/b", b"2", tx)
    client.write("/a/b", b"3", tx)
    client.mkdir("/c/d", tx)
    assert client.take_events() == []
    client.end(tx)
    assert client.take_events() == [("/a/b", "t"), ("/c/d", "t")]


def test_a_transaction_in_a_transaction_is_refused(client):
    tx = client.start()
    with pytest.raises(StoreError, match="EBUSY"):
        client.request(wire.TRANSACTION_START, b"\0", tx)


def test_a_guest_touches_a_bounded_number_of_nodes_in_a_transaction():
    store = EmbeddedStore(Quotas(transaction_nodes=20))
    dom0 = store.connect()
    dom0.mkdir("/local/domain/5")
    dom0.set_perms("/local/domain/5", ["n5"])
    dom0.introduce(5)
    guest = store.connect(5)
    tx = guest.start()
    for number in range(19):
        guest.mkdir(f"n{number}", tx)
    with pytest.raises(QuotaError):
        guest.mkdir("one-too-many", tx)
    privileged = dom0.start()
    for number in range(100):
        dom0.write(f"/n/{number}", b"", privileged)
    dom0.end(privileged)


def test_a_transaction_kept_open_for_ever_costs_bounded_memory(client, monkeypatch):
    monkeypatch.setattr(tree_module, "MAX_PAST", 100)
    old = client.start()
    assert client.read("/a/b", old) == b"1"
    for number in range(200):
        tx = client.start()
        client.write(f"/n/{number}", b"", tx)
        client.end(tx)
    assert client._store.tree._past_size <= 101
    with pytest.raises(AgainError):
        client.read("/a/b", old)
    with pytest.raises(AgainError):
        client.end(old)
    fresh = client.start()
    client.write("/fresh", b"", fresh)
    client.end(fresh)


def test_one_old_form_of_a_node_is_kept_for_one_snapshot(client):
    tx = client.start()
    for number in range(100):
        client.write("/a/b", b"%d" % number)
    assert client.read("/a/b", tx) == b"1"
    assert client._store.tree._past_size == 1


def test_a_closed_connection_leaves_no_snapshot(client):
    other = client._store.connect()
    other.start()
    other.close()
    client.write("/a/b", b"2")
    assert not client._store.tree._past
