"""The store served from within this process, to the product's own client."""

from __future__ import annotations

import pytest_twisted
from support.connect import connected
from twisted.internet import reactor

from broker.xenstore.store.server import StoreServer, serve
from broker.xenstore.store.store import EmbeddedStore


@pytest_twisted.ensureDeferred
async def test_serve_shares_one_store_between_sockets_and_the_process(tmp_path):
    store = EmbeddedStore()
    port = await serve(store, str(tmp_path / "s"), reactor)
    local = store.connect()
    local.watch("/x", "t")
    async with connected(f"unix:{tmp_path}/s") as client:
        await client.write("/x", b"1")
        assert local.read("/x") == b"1"
    assert local.take_events() == [("/x", "t")]
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_stopped_server_ends_every_connection_and_removes_its_sockets(tmp_path):
    store = EmbeddedStore()
    server = StoreServer(
        store, str(tmp_path / "s"), reactor, guest_sockets=str(tmp_path / "guests")
    )
    server.start()
    store.connect().introduce(5)
    assert (tmp_path / "guests" / "5.sock").is_socket()
    async with connected(f"unix:{tmp_path}/guests/5.sock") as guest:
        await server.stop()
        await guest.lost
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "guests" / "5.sock").exists()
