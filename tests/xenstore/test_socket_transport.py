"""The unix socket below a connection to a store: what it takes, what waits, and its end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread

from broker.xenstore.transport import SocketTransport

run = pytest_twisted.ensureDeferred
MUCH = bytes(range(256)) * 16384
"""Far more than a socket's buffer."""


class Heard(Protocol):
    """What a protocol is told, and the end."""

    def __init__(self, on_data=lambda protocol: None):
        self.data = b""
        self.reasons = []
        self.ended = Deferred()
        self.on_data = on_data

    def dataReceived(self, data):
        self.data += data
        self.on_data(self)

    def connectionLost(self, reason):
        self.reasons.append(reason.getErrorMessage())
        self.transport.abortConnection()
        self.ended.callback(None)


@pytest.fixture
def ends():
    """Makes a transport with its protocol, and the peer's end."""
    peers = []

    def make(protocol=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        theirs.settimeout(60)
        peers.append(theirs)
        protocol = protocol or Heard()
        SocketTransport(reactor, ours, protocol, "/store").start()
        return protocol, theirs, ours

    yield make
    for peer in peers:
        peer.close()


def watched(protocol):
    """Whether the reactor still knows the transport."""
    known = [*reactor.getReaders(), *reactor.getWriters()]
    return any(it is protocol.transport for it in known)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def read_all(peer, length):
    data = b""
    while len(data) < length:
        data += peer.recv(1 << 20)
    return data


@run
async def test_what_is_not_taken_at_once_follows_in_order(ends):
    protocol, peer, _ = ends()
    protocol.transport.writeSequence((b"first", MUCH))
    protocol.transport.write(b"last")
    assert protocol.transport in reactor.getWriters()
    wanted = b"first" + MUCH + b"last"
    assert await deferToThread(read_all, peer, len(wanted)) == wanted
    peer.sendall(b"x")
    peer.shutdown(socket.SHUT_WR)
    await protocol.ended
    assert protocol.data == b"x"
    assert not watched(protocol)


@run
async def test_a_peer_that_is_gone_ends_it_once_and_never_inside_the_callers_write(ends):
    protocol, peer, ours = ends()
    peer.close()
    protocol.transport.write(b"x")
    protocol.transport.write(b"y")
    assert protocol.reasons == []
    assert not watched(protocol)
    await protocol.ended
    assert len(protocol.reasons) == 1
    assert "Broken pipe" in protocol.reasons[0]
    assert ours.fileno() == protocol.transport.fileno() == -1


@run
async def test_a_peer_that_goes_with_much_unread_leaves_nothing_in_the_reactor(ends):
    protocol, peer, ours = ends()
    protocol.transport.write(MUCH)
    peer.close()
    await protocol.ended
    assert len(protocol.reasons) == 1
    assert not watched(protocol)
    assert ours.fileno() == -1


@run
async def test_closed_while_it_is_read_nothing_more_is_said_or_sent(ends):
    def close(protocol):
        protocol.transport.abortConnection()
        protocol.transport.loseConnection()
        protocol.transport.write(b"too late")

    protocol, peer, ours = ends(Heard(close))
    protocol.transport.write(MUCH)
    peer.sendall(b"enough")
    await protocol.ended
    assert protocol.data == b"enough"
    assert len(protocol.reasons) == 1
    assert "/store closed" in protocol.reasons[0]
    assert not watched(protocol)
    assert ours.fileno() == -1
    assert b"too late" not in await deferToThread(read_to_the_end, peer)


def read_to_the_end(peer):
    return b"".join(iter(lambda: peer.recv(1 << 20), b""))


@run
async def test_one_that_ends_as_it_is_joined_is_not_read(ends):
    class Refusing(Heard):
        def connectionMade(self):
            self.transport.abortConnection()

    protocol, peer, ours = ends(Refusing())
    peer.sendall(b"x")
    assert not watched(protocol)
    await protocol.ended
    assert protocol.data == b""
    assert ours.fileno() == -1


@run
async def test_a_hundred_connections_leave_no_descriptor(ends):
    before = descriptors()
    for _ in range(100):
        protocol, peer, _ = ends()
        protocol.transport.write(b"x")
        peer.close()
        await protocol.ended
    assert descriptors() < before + 50
