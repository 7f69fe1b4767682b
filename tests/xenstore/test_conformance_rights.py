"""Permissions, quotas, watches and what they show to whom, on every store."""

from __future__ import annotations

import pytest
from differences import expected
from support.blocking import outcome


@pytest.fixture
def root(store_daemon):
    with store_daemon.client() as client:
        client.mkdir("/test")
        yield client


@pytest.fixture
def guest(store_daemon, root):
    with store_daemon.guest(7).client() as client:
        yield client


def test_a_guest_owns_its_home_and_nothing_else(root, guest):
    guest.write("data", "1")
    assert root.get_perms("/local/domain/7/data") == ["n7"]
    root.set_perms("/test", "n0")
    refused = [
        outcome(guest.read, "/test"),
        outcome(guest.directory, "/test"),
        outcome(guest.get_perms, "/test"),
        outcome(guest.write, "/test/x", "1"),
        outcome(guest.mkdir, "/new"),
        outcome(guest.rm, "/test"),
        outcome(guest.set_perms, "/test", "n7"),
    ]
    assert refused == ["EACCES"] * 7


@pytest.mark.parametrize(
    ("granted", "reads", "writes"),
    [("r7", True, False), ("w7", False, True), ("b7", True, True), ("n7", False, False),
     ("b8", False, False)],
)  # fmt: skip
def test_the_four_rights(root, guest, granted, reads, writes):
    root.write("/test/x", "v")
    root.set_perms("/test/x", "n0", granted)
    assert outcome(guest.read, "/test/x") == (b"v" if reads else "EACCES")
    assert outcome(guest.write, "/test/x", "w") == (None if writes else "EACCES")
    assert outcome(guest.set_perms, "/test/x", "n7") == "EACCES"


@pytest.mark.parametrize(("default", "reads"), [("r0", True), ("n0", False), ("b0", True)])
def test_the_first_entry_is_everyones_right(root, guest, default, reads):
    root.write("/test/x", "v")
    root.set_perms("/test/x", default)
    assert outcome(guest.read, "/test/x") == (b"v" if reads else "EACCES")


def test_rights_are_a_nodes_own_and_new_nodes_take_their_parents(store_daemon, root, guest):
    root.write("/test/x/kept", "v")
    root.set_perms("/test/x", "n0", "b7")
    root.set_perms("/test/x/kept", "n0")
    assert outcome(guest.read, "/test/x/kept") == "EACCES"
    guest.write("/test/x/new", "1")
    owner = expected(store_daemon, "permissions.created_below")
    assert root.get_perms("/test/x/new") == [owner, "b7"]


def test_a_node_below_an_unreadable_one_can_be_readable(store_daemon, root, guest):
    root.write("/test/hidden/open", "v")
    root.set_perms("/test/hidden", "n0")
    root.set_perms("/test/hidden/open", "n0", "r7")
    assert guest.read("/test/hidden/open") == b"v"
    missing = expected(store_daemon, "permissions.missing_in_hidden")
    assert outcome(guest.read, "/test/hidden/none") == missing


def test_owners_set_permissions_but_do_not_give_away(store_daemon, root, guest):
    store_daemon.guest(8)
    guest.write("data", "1")
    guest.set_perms("data", "n7", "r8")
    assert root.get_perms("/local/domain/7/data") == ["n7", "r8"]
    gift = outcome(guest.set_perms, "data", "n8")
    assert gift == expected(store_daemon, "permissions.take_owner")
    root.write("/test/p", "v")
    assert outcome(root.set_perms, "/test/p", "n77") == expected(
        store_daemon, "permissions.unknown_domain"
    )


@pytest.mark.parametrize("malformed", [(), ("n",), ("n0", "x1"), ("7",)])
def test_malformed_permissions_are_refused(root, malformed):
    assert outcome(root.set_perms, "/test", *malformed) == "EINVAL"


def test_a_guest_can_hide_its_directory_from_others_not_from_domain_0(store_daemon, root, guest):
    guest.write("device/vif/0/state", "1")
    guest.set_perms("device/vif/0", "n7")
    assert root.read("/local/domain/7/device/vif/0/state") == b"1"
    with store_daemon.guest(8).client() as other:
        assert outcome(other.read, "/local/domain/7/device/vif/0/state") == "EACCES"


def _until_refused(action, most):
    for number in range(most):
        result = outcome(action, number)
        if isinstance(result, str):
            return result
    return None


def test_quotas_hold_a_guest(store_daemon, root, guest):
    assert outcome(guest.write, "big", bytes(2100)) == expected(store_daemon, "quota.node_size")
    assert outcome(guest.write, "fits", bytes(2000)) is None
    nodes = _until_refused(lambda number: guest.write(f"n{number}"), 1200)
    assert nodes == expected(store_daemon, "quota.nodes")
    started = _until_refused(lambda _: guest.start(), 20)
    assert started == expected(store_daemon, "quota.transactions")


def test_watches_are_a_quota_too(store_daemon, root, guest):
    watches = _until_refused(lambda number: guest.watch(f"w{number}", "t"), 200)
    assert watches == expected(store_daemon, "quota.watches")


def test_permissions_on_a_node_are_a_quota_too(store_daemon, guest):
    guest.write("p")
    assert outcome(guest.set_perms, "p", "n7", *["r0"] * 4) is None
    sixth = outcome(guest.set_perms, "p", "n7", *["r0"] * 5)
    assert sixth == expected(store_daemon, "quota.permissions")


def test_quotas_do_not_hold_domain_0(root):
    assert _until_refused(lambda number: root.watch(f"/test/w{number}", "t"), 200) is None
    for number in range(1200):
        root.write(f"/test/n{number}")


def test_a_watch_fires_at_once_even_on_nothing(root):
    root.watch("/test/none", "t")
    assert root.next_event() == ("/test/none", "t")


def test_one_watch_a_path_and_token(root):
    root.watch("/test/w", "t")
    assert outcome(root.watch, "/test/w", "t") == "EEXIST"
    assert outcome(root.watch, "/test/w", "u") is None
    assert outcome(root.unwatch, "/test/w", "none") == "ENOENT"
    root.unwatch("/test/w", "t")
    root.drain_events()
    root.write("/test/w", "1")
    assert root.drain_events() == [("/test/w", "u")]


def test_every_change_below_a_watch_is_told(root):
    root.watch("/test", "t")
    root.drain_events()
    seen = []
    for change in (
        lambda: root.write("/test/a/b", "1"),
        lambda: root.write("/test/a/b", "1"),
        lambda: root.set_perms("/test/a/b", "n0"),
        lambda: root.mkdir("/test/a/b"),
        lambda: root.rm("/test/a"),
    ):
        change()
        seen.append([path for path, _ in root.drain_events()])
    assert seen == [["/test/a/b"], ["/test/a/b"], ["/test/a/b"], [], ["/test/a"]]


def test_a_watch_on_a_removed_child_is_told(root):
    root.write("/test/a/b/c", "1")
    root.watch("/test/a/b/c", "t")
    root.drain_events()
    root.rm("/test/a")
    assert root.drain_events() == [("/test/a/b/c", "t")]


def test_no_event_leaves_a_transaction_before_its_commit(store_daemon, root):
    root.watch("/test", "t")
    root.drain_events()
    tx = root.start()
    root.write("/test/a", "1", tx=tx)
    root.write("/test/a", "2", tx=tx)
    assert root.drain_events() == []
    root.end(tx)
    events = root.drain_events()
    assert set(events) == {("/test/a", "t")}
    assert len(events) == expected(store_daemon, "transaction.events")
    tx = root.start()
    root.write("/test/a", "3", tx=tx)
    root.end(tx, commit=False)
    assert root.drain_events() == []


def test_a_guests_watch_never_tells_of_what_it_may_not_read(root, guest):
    """XSA-115."""
    root.set_perms("/test", "n0")
    for name, granted in (("open", ("n0", "r7")), ("secret", ("n0",))):
        root.write(f"/test/{name}", "v")
        root.set_perms(f"/test/{name}", *granted)
    guest.watch("/test", "t")
    assert guest.drain_events() == [("/test", "t")]
    root.write("/test/secret", "1")
    root.write("/test/open", "1")
    assert guest.drain_events() == [("/test/open", "t")]
    root.rm("/test/secret")
    assert guest.drain_events() == []
    root.rm("/test/open")
    assert guest.drain_events() == [("/test/open", "t")]


def test_special_watches_tell_domain_0_of_every_domain(store_daemon, root):
    root.watch("@introduceDomain", "i")
    root.watch("@releaseDomain", "r")
    assert root.drain_events() == [("@introduceDomain", "i"), ("@releaseDomain", "r")]
    guest = store_daemon.guest(9)
    assert root.drain_events() == [("@introduceDomain", "i")]
    guest.die()
    assert root.drain_events() == [("@releaseDomain", "r")]


def test_special_watches_tell_a_guest_only_what_it_was_granted(store_daemon, root, guest):
    guest.watch("@releaseDomain", "r")
    guest.drain_events()
    store_daemon.guest(9).die()
    assert guest.drain_events() == []
    root.set_perms("@releaseDomain", "n0", "r7")
    store_daemon.guest(9).die()
    assert guest.drain_events() == [("@releaseDomain", "r")]
    assert outcome(root.read, "@releaseDomain") == expected(store_daemon, "special.read")


def test_a_slow_reader_of_events_does_not_lose_the_last_state(store_daemon, root):
    with store_daemon.client() as slow:
        slow.watch("/test", "t")
        for number in range(500):
            root.write(f"/test/n{number % 10}", str(number))
        seen = {path for path, _ in slow.drain_events()}
    assert {f"/test/n{number}" for number in range(10)} <= seen
