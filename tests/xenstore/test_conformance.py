"""What every store does, by its wire: operations, paths, transactions, domains, listings."""

from __future__ import annotations

import struct

import pytest
from differences import expected
from support.blocking import outcome

from broker.xenstore import wire


@pytest.fixture
def root(store_daemon):
    with store_daemon.client() as client:
        client.mkdir("/test")
        yield client


def test_a_value_holds_any_bytes(root):
    value = bytes(range(256)) * 7
    root.write("/test/x", value)
    assert root.read("/test/x") == value
    root.write("/test/x", b"")
    assert root.read("/test/x") == b""


def test_a_write_makes_the_nodes_on_the_way(root):
    root.write("/test/a/b/c", "1")
    assert root.read("/test/a") == b""
    assert root.directory("/test/a/b") == ["c"]


def test_mkdir_leaves_a_node_that_exists_as_it_is(root):
    root.write("/test/a", "v")
    root.mkdir("/test/a")
    assert root.read("/test/a") == b"v"


def test_rm_takes_all_below_and_forgives_a_missing_node_but_not_its_parent(root):
    root.write("/test/a/b/c", "1")
    root.rm("/test/a")
    assert outcome(root.read, "/test/a/b/c") == "ENOENT"
    assert outcome(root.rm, "/test/none") is None
    assert outcome(root.rm, "/none/none/none") == "ENOENT"


def test_the_root_and_its_names(store_daemon, root):
    assert ("@releaseDomain" in root.directory("/")) is expected(store_daemon, "root.names")
    removed = outcome(root.rm, "/") or "all is lost"
    assert removed == expected(store_daemon, "root.remove")
    assert (root.directory("/") == []) is (removed == "all is lost")


@pytest.mark.parametrize(
    "path", ["", "/a//b", "/a/", "/a b", "/a\n", "/" + "x" * 3072, "x" * 2049, "/a\xe9"]
)
def test_a_path_outside_the_rules_is_refused(root, path):
    assert outcome(root.read, path) == "EINVAL"


@pytest.mark.parametrize("home", ["", "/local/domain/0", "/local/domain/7"])
def test_the_longest_path_is_2048_bytes_not_counting_a_domains_home(root, home):
    longest = home + "/" + "x" * (2047 if not home else 2048)
    assert outcome(root.read, longest) == "ENOENT"
    assert outcome(root.read, longest + "x") == "EINVAL"


def test_a_full_frame_is_taken_and_a_longer_one_is_not(store_daemon, root):
    path = "/test/v"
    full = wire.MAX_PAYLOAD - len(path) - 1
    assert outcome(root.write, path, bytes(full)) == expected(store_daemon, "quota.domain_0")
    if expected(store_daemon, "quota.domain_0") is None:
        assert root.read(path) == bytes(full)
    with store_daemon.client() as other:
        other.send(struct.pack("<IIII", wire.READ, 5, 0, 4097) + bytes(4097))
        answer = outcome(other.receive)
    if isinstance(answer, tuple):
        answer = answer[3].rstrip(b"\0").decode()
    assert answer == expected(store_daemon, "request.too_long")


def test_a_path_without_its_terminator(store_daemon, root):
    answer = outcome(root.call_payload, wire.READ, b"/test/none")
    assert answer == expected(store_daemon, "request.unterminated")


def test_a_request_without_a_payload_is_answered_at_the_latest_with_the_next(root):
    root.send(wire.encode(wire.TRANSACTION_START, 1, 0, b""))
    root.send(wire.encode(wire.GET_DOMAIN_PATH, 2, 0, b"0\0"))
    assert [root.receive()[1] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("operation", [20, 23, 99, 0xFFFF])
def test_an_unknown_operation_is_refused_and_the_connection_lives(root, operation):
    assert outcome(root.call, operation, "x") == "ENOSYS"
    assert root.read("/test") == b""


def test_many_requests_written_at_once_are_all_answered_in_order(root):
    frames = [wire.encode(wire.READ, number, 0, b"/test\0") for number in range(100, 164)]
    root.send(b"".join(frames))
    assert [root.receive()[1] for _ in frames] == list(range(100, 164))


def test_a_long_listing_comes_whole_or_in_parts(store_daemon, root):
    names = sorted(f"node-with-a-long-name-{number}" for number in range(300))
    for name in names:
        root.write(f"/test/dir/{name}")
    if expected(store_daemon, "directory.long") == "E2BIG":
        assert outcome(root.directory, "/test/dir") == "E2BIG"
    else:
        assert sorted(root.directory("/test/dir")) == names
    part = outcome(root.call, wire.DIRECTORY_PART, "/test/dir", "0")
    if expected(store_daemon, "directory.part") == "ENOSYS":
        assert part == "ENOSYS"
        return
    listing = b""
    while not listing.endswith(b"\0\0"):
        part = root.call(wire.DIRECTORY_PART, "/test/dir", str(len(listing)))
        assert len(part) <= wire.MAX_PAYLOAD
        listing += part.partition(b"\0")[2]
    assert sorted(listing[:-2].decode().split("\0")) == names


def test_a_transaction_is_seen_by_nobody_before_its_commit(store_daemon, root):
    root.write("/test/a", "1")
    with store_daemon.client() as other:
        tx = root.start()
        root.write("/test/a", "2", tx=tx)
        assert (other.read("/test/a"), root.read("/test/a", tx=tx)) == (b"1", b"2")
        root.end(tx)
        assert other.read("/test/a") == b"2"


def test_an_aborted_transaction_leaves_nothing(root):
    tx = root.start()
    root.write("/test/a", "2", tx=tx)
    root.end(tx, commit=False)
    assert outcome(root.read, "/test/a") == "ENOENT"


def test_a_transaction_belongs_to_its_connection(store_daemon, root):
    unknown = expected(store_daemon, "transaction.unknown")
    assert outcome(root.read, "/test", tx=999) == unknown
    tx = root.start()
    with store_daemon.client() as other:
        assert outcome(other.end, tx) == unknown
    assert outcome(root.call, wire.TRANSACTION_START, tx=tx) == "EBUSY"
    assert outcome(root.call, wire.TRANSACTION_END, "X", tx=tx) == "EINVAL"


def test_a_transaction_ends_with_its_connection(store_daemon, root):
    with store_daemon.client() as other:
        tx = other.start()
        other.write("/test/a", "2", tx=tx)
    assert outcome(root.read, "/test/a") == "ENOENT"


def _conflict(store_daemon, root, inside, outside):
    root.write("/test/a", "1")
    root.write("/test/b", "1")
    tx = root.start()
    inside(tx)
    with store_daemon.client() as other:
        outside(other)
    return outcome(root.end, tx)


def test_a_commit_conflicts_when_what_it_read_has_changed(store_daemon, root):
    def inside(tx):
        root.read("/test/a", tx=tx)
        root.write("/test/b", "2", tx=tx)

    assert _conflict(store_daemon, root, inside, lambda it: it.write("/test/a", "9")) == "EAGAIN"
    assert root.read("/test/b") == b"1"
    assert _conflict(store_daemon, root, inside, lambda it: it.rm("/test/a")) == "EAGAIN"
    same = _conflict(store_daemon, root, inside, lambda it: it.write("/test/a", "1"))
    assert same == expected(store_daemon, "transaction.same_value")


def test_a_commit_does_not_conflict_with_what_it_did_not_touch(store_daemon, root):
    result = _conflict(
        store_daemon, root,
        lambda tx: root.write("/test/b", "2", tx=tx),
        lambda it: it.write("/test/a", "9"),
    )  # fmt: skip
    assert (result, root.read("/test/b"), root.read("/test/a")) == (None, b"2", b"9")


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("siblings", ("write", "/test/n1"), "/test/n2"),
        ("read_only", ("read", "/test/a"), "/test/a"),
        ("blind_write", ("write", "/test/a"), "/test/a"),
    ],
)
def test_conflicts_on_which_the_daemons_differ(store_daemon, root, name, inside, outside):
    result = _conflict(
        store_daemon, root,
        lambda tx: getattr(root, inside[0])(inside[1], tx=tx),
        lambda it: it.write(outside, "other"),
    )  # fmt: skip
    assert result == expected(store_daemon, f"transaction.{name}")


def test_introduction_and_release(store_daemon, root):
    guest = store_daemon.guest(7)
    assert root.is_introduced(7)
    assert not root.is_introduced(8)
    assert root.is_introduced(0)
    assert root.call(wire.GET_DOMAIN_PATH, "8") == b"/local/domain/8\0"
    assert outcome(root.introduce, 7) is None
    assert outcome(root.introduce, 7, 2, 5) == expected(store_daemon, "introduce.changed")
    assert outcome(root.introduce, 99) == expected(store_daemon, "introduce.no_domain")
    assert outcome(root.release, 55) == expected(store_daemon, "release.unknown")
    assert outcome(root.release, 0) == expected(store_daemon, "release.zero")
    guest.die()
    assert not root.is_introduced(7)


def test_a_guests_relative_paths_begin_at_its_home(store_daemon, root):
    with store_daemon.guest(7).client() as guest:
        guest.watch("data", "t")
        guest.write("data/x", "1")
        assert guest.read("/local/domain/7/data/x") == b"1"
        assert guest.drain_events() == [("data", "t"), ("data/x", "t")]


def test_what_domain_0_alone_may_do(store_daemon, root):
    with store_daemon.guest(7).client() as guest:
        refused = [
            outcome(guest.introduce, 8),
            outcome(guest.release, 7),
            outcome(guest.is_introduced, 0),
            outcome(guest.call, wire.SET_TARGET, "7", "0"),
            outcome(guest.call, wire.RESUME, "7"),
        ]
        assert refused == ["EACCES"] * 5
        assert guest.call(wire.GET_DOMAIN_PATH, "0") == b"/local/domain/0\0"


def test_a_target_lends_its_rights(store_daemon, root):
    stub, target = store_daemon.guest(7), store_daemon.guest(8)
    with target.client() as client:
        client.write("secret", "v")
    with stub.client() as client:
        assert outcome(client.read, "/local/domain/8/secret") == "EACCES"
        root.call(wire.SET_TARGET, "7", "8")
        assert client.read("/local/domain/8/secret") == b"v"


def test_a_dead_domains_nodes_go_and_its_grants_serve_no_successor(store_daemon, root):
    guest = store_daemon.guest(7)
    for name, owner in (("elsewhere", "n7"), ("grant", "n0")):
        root.write(f"/test/{name}", "v")
        root.set_perms(f"/test/{name}", owner, "r7")
    root.watch("/test/elsewhere", "t")
    root.drain_events()
    guest.die()
    assert outcome(root.read, "/test/elsewhere") == "ENOENT"
    assert outcome(root.read, "/local/domain/7") == "ENOENT"
    assert (("/test/elsewhere", "t") in root.drain_events()) is expected(
        store_daemon, "death.event"
    )
    with store_daemon.guest(7).client() as successor:
        assert root.get_perms("/test/grant") == expected(store_daemon, "death.grants")
        assert outcome(successor.read, "/test/grant") == "EACCES"


def test_reset_watches_drops_watches_and_transactions_of_a_guest(store_daemon, root):
    with store_daemon.guest(7).client() as guest:
        guest.watch("a", "t")
        tx = guest.start()
        guest.drain_events()
        guest.call(wire.RESET_WATCHES)
        guest.write("a", "1")
        assert guest.drain_events() == []
        assert outcome(guest.end, tx) == expected(store_daemon, "transaction.unknown")


def test_a_killed_store_comes_back_empty(store_daemon, root):
    root.write("/test/x", "1")
    store_daemon.guest(7)
    store_daemon.restart_empty()
    with store_daemon.client() as client:
        assert outcome(client.read, "/test/x") == "ENOENT"
        assert not client.is_introduced(7)
