"""Many at once: conflicting transactions, long listings that change, floods of events."""

from __future__ import annotations

import pytest_twisted
from twisted.internet import defer, reactor
from twisted.internet.threads import deferToThread

from broker.xenstore import requests
from broker.xenstore.client import StoreConnection
from broker.xenstore.transport import connect


async def joined(address, on_event=lambda *_: None):
    connection = await connect(reactor, address, StoreConnection(on_event, reactor))
    # oxenstored's queue holds one connect; the next must not come before it was accepted.
    await connection.get_domain_path(0)
    return connection


@pytest_twisted.ensureDeferred
async def test_conflicting_counts_all_count(store_daemon):
    connections = [await joined(store_daemon.address) for _ in range(4)]
    await connections[0].write("/test/count", b"0")

    async def count(transaction):
        value = int(await transaction.read("/test/count"))
        await transaction.write("/test/count", b"%d" % (value + 1))

    async def count_five(connection):
        for _ in range(5):
            await connection.transaction(count, attempts=200)

    await defer.gatherResults(
        [defer.ensureDeferred(count_five(connection)) for connection in connections]
    )
    assert await connections[0].read("/test/count") == b"20"
    for connection in connections:
        connection.close()


@pytest_twisted.ensureDeferred
async def test_conflicting_transactions_from_a_guests_ring_all_count(store_daemon):
    guest = await deferToThread(store_daemon.guest, 7)
    root, ring = await joined(store_daemon.address), await joined(guest.address)
    await ring.write("count", b"0")

    async def increase(connection, path):
        async def body(transaction):
            value = int(await transaction.read(path))
            await transaction.write(path, b"%d" % (value + 1))

        for _ in range(5):
            await connection.transaction(body, attempts=200)

    await defer.gatherResults(
        [
            defer.ensureDeferred(increase(root, "/local/domain/7/count")),
            defer.ensureDeferred(increase(ring, "count")),
        ]
    )
    assert await root.read("/local/domain/7/count") == b"10"
    root.close()
    ring.close()
    await ring.lost


@pytest_twisted.ensureDeferred
async def test_a_long_listing_is_whole_though_it_changes_meanwhile(store_daemon):
    connection, other = await joined(store_daemon.address), await joined(store_daemon.address)
    fixed = [f"a-name-of-some-length-{number}" for number in range(400)]
    await connection.write_many([(f"/test/{name}", b"") for name in fixed])
    listings = [connection.directory("/test") for _ in range(3)]
    changes = [(f"/test/new{number}", b"") for number in range(50)]
    await other.write_many(changes)
    for listing in await defer.gatherResults(listings):
        assert set(fixed) <= set(listing)
        assert len(listing) == len(set(listing))
    connection.close()
    other.close()


@pytest_twisted.ensureDeferred
async def test_a_flood_of_events_is_taken_while_requests_go_on(store_daemon):
    seen = set()
    watcher = await joined(store_daemon.address, lambda path, _: seen.add(path))
    writer = await joined(store_daemon.address)
    await watcher.watch("/test", "t")
    paths = [f"/test/n{number}" for number in range(3000)]
    await writer.mkdir("/test")
    writing = writer.write_many([(path, b"1") for path in paths])
    for _ in range(20):
        await watcher.read("/test")
    assert not any(await writing)
    while len(seen) < len(paths) + 1:
        await watcher.read("/test")
    watcher.close()
    writer.close()


@pytest_twisted.ensureDeferred
async def test_what_a_closed_connection_left_is_cleared(store_daemon):
    guest = await deferToThread(store_daemon.guest, 7)
    first = await joined(guest.address)
    await first.watch("data", "t")
    await first.request(requests.transaction_start())
    first.close()
    await first.lost
    events = []
    second = await joined(guest.address, lambda path, _: events.append(path))
    await second.write("data", b"1")
    await second.watch("data", "t")
    await second.write("data", b"2")
    await second.read("data")
    assert set(events) == {"data"}
    second.close()
