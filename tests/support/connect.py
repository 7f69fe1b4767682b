"""A Twisted connection to a store, for the length of a `async with`."""

from contextlib import asynccontextmanager

from twisted.internet import reactor

from broker.xenstore.client import StoreConnection
from broker.xenstore.transport import connect


@asynccontextmanager
async def connected(address, on_event=lambda path, token: None):
    connection = await connect(reactor, address, StoreConnection(on_event, reactor))
    try:
        yield connection
    finally:
        connection.close()
        await connection.lost
