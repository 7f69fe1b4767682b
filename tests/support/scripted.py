"""A store that says what a test tells it to, on a real unix socket in the same reactor."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.internet import defer, reactor
from twisted.internet.protocol import Factory, Protocol

from broker.xenstore import wire


class ScriptedStore:
    """Each request goes to `answer(operation, tx, payload)`.

    It returns an (operation, payload) to answer with, raw bytes to send as they are, or None for
    silence. `requests` keeps what came.
    """

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.connections = []
        self._directory = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
        self.path = self._directory / "socket"
        self.address = f"unix:{self.path}"
        factory = Factory.forProtocol(lambda: _Peer(self))
        factory.noisy = False
        self._port = reactor.listenUNIX(str(self.path), factory)

    def stop(self):
        for connection in list(self.connections):
            connection.transport.abortConnection()
        stopped = defer.maybeDeferred(self._port.stopListening)
        stopped.addCallback(lambda _: shutil.rmtree(self._directory))


class _Peer(Protocol):
    def __init__(self, store):
        self._store = store
        self._decoder = wire.Decoder()

    def connectionMade(self):
        self._store.connections.append(self)

    def connectionLost(self, reason=None):
        self._store.connections.remove(self)

    def dataReceived(self, data):
        for operation, request_id, tx, payload in self._decoder.receive_data(data):
            self._store.requests.append((operation, tx, payload))
            answer = self._store.answer(operation, tx, payload)
            if isinstance(answer, bytes):
                self.transport.write(answer)
            elif answer is not None:
                self.transport.write(wire.encode(answer[0], request_id, tx, answer[1]))


def error(name):
    """The answer of a store that refuses."""
    return wire.ERROR, name.encode() + b"\0"
