"""The Twisted client's operations, on every store."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor

from broker.xenstore import requests
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import InvalidError, NotFoundError, QuotaError
from broker.xenstore.transport import connect


@pytest_twisted.async_yield_fixture
async def connection(store_daemon):
    events = []
    made = await connect(
        reactor,
        store_daemon.address,
        StoreConnection(lambda path, token: events.append((path, token)), reactor),
    )
    made.events = events
    yield made
    made.close()
    await made.lost


@pytest_twisted.ensureDeferred
async def test_what_is_written_is_read(connection):
    await connection.write("/test/x", b"\xff\n\0")
    assert await connection.read("/test/x") == b"\xff\n\0"
    await connection.write("/test/x", b"")
    assert await connection.read("/test/x") == b""
    assert await connection.directory("/test") == ["x"]
    await connection.rm("/test/x")
    with pytest.raises(NotFoundError):
        await connection.read("/test/x")


@pytest_twisted.ensureDeferred
async def test_many_answers_keep_their_places_among_refusals(connection):
    wrote = await connection.write_many(
        [("/test/a", b"1"), ("no good", b""), ("/test/b", b"2"), ("/test/c", bytes(5000))]
    )
    assert [type(it) for it in wrote] == [type(None), InvalidError, type(None), QuotaError]
    read = await connection.read_many(["/test/b", "/x//", "/test/none", "/test/a"])
    assert (read[0], read[3]) == (b"2", b"1")
    assert [type(it) for it in read[1:3]] == [InvalidError, NotFoundError]


@pytest_twisted.ensureDeferred
async def test_a_thousand_reads_pass_through_the_window(connection):
    paths = [f"/test/n{number}" for number in range(1000)]
    assert not any(await connection.write_many([(it, it.encode()) for it in paths]))
    assert await connection.read_many(paths) == [it.encode() for it in paths]
    assert sorted(await connection.directory("/test")) == sorted(it[6:] for it in paths)
    tree = await connection.read_tree("/test")
    assert tree == {"/test": b"", **{it: it.encode() for it in paths}}


@pytest_twisted.ensureDeferred
async def test_a_transaction_makes_all_or_nothing(connection):
    await connection.transact([requests.write("/test/t", b"1"), requests.write("/test/u", b"2")])
    assert await connection.read_many(["/test/t", "/test/u"]) == [b"1", b"2"]
    with pytest.raises(NotFoundError):
        await connection.transact(
            [requests.write("/test/t", b"3"), requests.set_perms("/test/none/none", ["n0"])]
        )
    assert await connection.read("/test/t") == b"1"


@pytest_twisted.ensureDeferred
async def test_a_guest_has_its_own_rights(store_daemon, connection):
    guest = store_daemon.guest(7)
    await connection.write("/test/secret", b"x")
    await connection.set_perms("/test/secret", ["n0"])
    assert await connection.get_perms("/test/secret") == ("n0",)
    with guest.client() as client:
        client.write("data", "mine")
        with pytest.raises(Exception, match="EACCES"):
            client.read("/test/secret")
    assert await connection.read("/local/domain/7/data") == b"mine"
    assert await connection.is_domain_introduced(7)
    assert await connection.get_domain_path(7) == "/local/domain/7"
    guest.die()
    assert not await connection.is_domain_introduced(7)
