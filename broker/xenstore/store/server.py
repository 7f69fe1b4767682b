"""The store on unix sockets: one for domain 0, and for each introduced domain its own."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from broker.text.escape import escape
from broker.xenstore import wire

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IListeningPort, IReactorUNIX
    from twisted.internet.unix import Server
    from twisted.python.failure import Failure

    from broker.xenstore.store.connections import Connection
    from broker.xenstore.store.store import EmbeddedStore

MAX_SOCKET_PATH: Final = 107
"""Bytes of a unix socket's path that fit into `sun_path`."""


@implementer(IPushProducer)
class StoreProtocol(Protocol):
    """One peer: frames in, replies and events out.

    While the peer does not read, neither are its requests read; its events wait in the
    connection, which bounds them.
    """

    log = Logger()
    transport: Server

    def __init__(self, store: EmbeddedStore, domid: int) -> None:
        self._store = store
        self._domid = domid
        self._decoder = wire.Decoder(wire.MAX_PAYLOAD)
        self._connection: Connection | None = None
        self._paused = False

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """A peer has come."""
        self._connection = self._store.open(self._domid, self._flush, self._end)
        self.transport.registerProducer(self, True)  # noqa: FBT003 - Twisted's signature

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Answer every request that `data` completes, then deliver what they caused."""
        connection = self._connection
        if connection is None:
            return
        replies: list[bytes] = []
        broken = ""
        try:
            for op, request_id, transaction, payload in self._decoder.receive_data(data):
                if not self._store.is_open(connection):
                    break
                reply_op, reply = self._store.answer(connection, op, transaction, payload)
                replies.append(wire.encode(reply_op, request_id, transaction, reply))
        except wire.FrameError as error:
            broken = str(error)
        self.transport.write(b"".join(replies))
        self._store.wake()
        if broken:
            self._end(f"malformed frame: {broken}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The peer is gone, with its watches and transactions."""
        if self._connection is not None:
            self._store.close(self._connection)
            self._connection = None
        if not reason.check(ConnectionDone):
            self.log.debug(
                "domain {domid}: {why}", domid=self._domid, why=escape(reason.getErrorMessage())
            )

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The peer reads too slowly."""
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The peer has read all."""
        self._paused = False
        self.transport.resumeProducing()
        self._flush()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport is closing."""
        self._paused = True

    def _flush(self) -> None:
        if self._paused or self._connection is None:
            return
        frames = [
            wire.encode(wire.WATCH_EVENT, 0, 0, path.encode("latin-1") + b"\0" + token + b"\0")
            for path, token in self._connection.take_events()
        ]
        self.transport.write(b"".join(frames))

    def _end(self, reason: str) -> None:
        self.log.warn(
            "connection of domain {domid} ended: {why}", domid=self._domid, why=escape(reason)
        )
        if self._connection is not None:
            self._store.close(self._connection)
            self._connection = None
        # A peer that does not read would keep a gentle close waiting for ever.
        if self._paused:
            self.transport.abortConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()


class _Peers(Factory):
    noisy = False

    def __init__(self, store: EmbeddedStore, domid: int) -> None:
        self._store = store
        self._domid = domid

    def buildProtocol(self, _addr: IAddress | None) -> StoreProtocol:  # noqa: N802 - Twisted's name
        return StoreProtocol(self._store, self._domid)


class StoreServer:
    """The listening sockets.

    `socket_path` speaks as domain 0, as xenstored's own socket does. With `guest_sockets`, each
    introduced domain has `<domid>.sock` in that directory until it is released.
    """

    log = Logger()

    def __init__(
        self,
        store: EmbeddedStore,
        socket_path: str,
        reactor: IReactorUNIX,
        *,
        guest_sockets: str | None = None,
    ) -> None:
        self._store = store
        self._socket_path = socket_path
        self._reactor = reactor
        self._guest_sockets = guest_sockets
        self._ports: dict[int, IListeningPort] = {}

    def start(self) -> IListeningPort:
        """Listen; the result is domain 0's port.

        Raises:
            OSError: a path is too long, in use, or cannot be made.
            CannotListenError: the same, as Twisted finds it.
        """
        port = self._listen(0, self._socket_path)
        if self._guest_sockets is not None:
            Path(self._guest_sockets).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._store.on_domain = self._on_domain
        return port

    def stop(self) -> Deferred[None]:
        """Listen no more, and end every connection."""
        self._store.on_domain = lambda _domid, _introduced: None
        stopping = [maybeDeferred(port.stopListening) for port in self._ports.values()]
        self._ports.clear()
        self._store.close_all("the store stops")
        return gatherResults(stopping).addCallback(lambda _results: None)

    def _on_domain(self, domid: int, introduced: bool) -> None:  # noqa: FBT001 - the store's callback
        if domid == 0:
            return
        if introduced:
            try:
                self._listen(domid, str(Path(self._guest_sockets or "") / f"{domid}.sock"))
            except (OSError, CannotListenError):
                self.log.failure("no socket for domain {domid}", domid=domid)
        elif domid in self._ports:
            maybeDeferred(self._ports.pop(domid).stopListening)

    def _listen(self, domid: int, path: str) -> IListeningPort:
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise OSError(f"{path}: a socket's path has {MAX_SOCKET_PATH} bytes at most")
        _clear_stale(path)
        port = self._reactor.listenUNIX(path, _Peers(self._store, domid), mode=0o600)
        self._ports[domid] = port
        return port


def _clear_stale(path: str) -> None:
    """Remove a socket that nobody listens on; a live one, or another file, is left alone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()


def serve(
    store: EmbeddedStore, socket_path: str, reactor: IReactorUNIX
) -> Deferred[IListeningPort]:
    """Serve `store` to domain 0 on `socket_path`; fails as `StoreServer.start` raises."""
    return maybeDeferred(StoreServer(store, socket_path, reactor).start)
