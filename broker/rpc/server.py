"""Where the RPC is served: the local unix socket, and TLS on any endpoint."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from broker.rpc.certificates import CertificatePeers, TlsContext
from broker.rpc.errors import ListenError
from broker.rpc.http import AdminChannel, AdminFactory
from broker.rpc.inherited import InheritedPort
from broker.rpc.limits import Places
from broker.rpc.local import LocalPeers, prepare_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import (
        IAddress,
        IListeningPort,
        IReactorTime,
        IReactorUNIX,
        IStreamServerEndpoint,
    )

    from broker.rpc.admin import Admin
    from broker.rpc.limits import Limits
    from broker.rpc.tls_files import Notice, TlsFiles

RECHECK: Final = 5.0
"""Seconds after which a stream whose caller is revoked or has lost his role has ended."""
_UNIX: Final = "unix:"
_BACKLOG: Final = 128


class LocalServer:
    """The RPC on a unix socket for the listed uids (root alone, unless told otherwise)."""

    def __init__(
        self,
        admin: Admin,
        path: Path,
        reactor: IReactorUNIX,
        clock: IReactorTime,
        *,
        uids: frozenset[int] = frozenset({0}),
        limits: Limits | None = None,
        places: Places | None = None,
        inherited: int | None = None,
    ) -> None:
        """Prepare; `inherited` is a descriptor that listens at `path` already."""
        self._path = path
        self._inherited = inherited
        self._reactor = reactor
        self._factory = AdminFactory(
            admin, LocalPeers(uids), clock, local=True, limits=limits, places=places
        )
        # The socket's mode keeps everybody else away; other uids get in only if some are listed.
        self._mode, self._directory_mode = (0o600, 0o700) if uids <= {0} else (0o666, 0o755)
        self._port: IListeningPort | InheritedPort | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            SocketInUseError: another broker listens there.
            OSError, CannotListenError: the socket cannot be made.
        """
        if self._inherited is not None:
            self._port = InheritedPort(self._inherited, self._factory, self._reactor)
            self._port.startListening()
            return
        prepare_path(self._path, self._directory_mode)
        # The mode has to hold from the first moment, not from the chmod after bind.
        before = os.umask(0o777 & ~self._mode)
        try:
            self._port = self._reactor.listenUNIX(
                os.fspath(self._path), self._factory, backlog=_BACKLOG, mode=self._mode
            )
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop listening, remove the socket and hang up on everybody."""
        port, self._port = self._port, None
        if port is not None:
            await _stop(port, self._factory)


class _ProxiedTls(TLSMemoryBIOProtocol):
    """TLS whose time runs from its first byte on, whatever has to be said until then.

    A proxy, as `vchan-socket-proxy`, connects when it starts, long before somebody speaks.
    """

    wrappedProtocol: AdminChannel  # noqa: N815 - Twisted's name
    _spoken = False

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Begin to count at the first byte."""
        if not self._spoken:
            self._spoken = True
            self.wrappedProtocol.begin()
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted's has no types


class _TlsFactory(TLSMemoryBIOFactory):
    """TLS around the connections that there is a place for."""

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]  # noqa: N802 - Twisted's; where it says Protocol, None refuses a connection
        """A connection, or None where there are too many."""
        inner = self.wrappedFactory.buildProtocol(addr)
        if inner is None:
            return None
        if getattr(addr, "host", None) is None:  # a socket in the file system
            inner.wait()
            return _ProxiedTls(self, inner)  # type: ignore[no-untyped-call]  # as above
        return self.protocol(self, inner)


class TlsServer:
    """The RPC over TLS 1.3 for those with a certificate; who the socket's peer is says nothing.

    So it may stand behind a proxy, as `vchan-socket-proxy` before a mini-domain.
    """

    def __init__(
        self,
        admin: Admin,
        listen: Sequence[str],
        files: TlsFiles,
        reactor: IReactorTime,
        *,
        limits: Limits | None = None,
        places: Places | None = None,
    ) -> None:
        """Prepare to listen at Twisted's endpoints: `tcp:7443`, `unix:/PATH`, `systemd:...`.

        Raises:
            TlsFilesError: the certificate, key or CA will not do.
            ListenError: an endpoint is malformed.
        """
        self.context = TlsContext(files)
        self.peers = CertificatePeers(files.revoked)
        self._endpoints = [(text, _endpoint(text, reactor)) for text in listen]
        self._factory = AdminFactory(
            admin, self.peers, reactor, local=False, limits=limits, places=places
        )
        self._tls = _TlsFactory(self.context, False, self._factory, reactor)  # noqa: FBT003 - Twisted's signature
        self.ports: list[IListeningPort] = []
        self._rechecks = LoopingCall(self._factory.recheck)
        self._rechecks.clock = reactor

    def start(self) -> None:
        """Listen everywhere.

        Raises:
            ListenError: a place cannot be taken.
            SocketInUseError: another process listens on a unix socket.
        """
        for text, endpoint in self._endpoints:
            if text.startswith(_UNIX):
                prepare_path(Path(text.removeprefix(_UNIX).partition(":")[0]))
            self.ports.append(_listen(text, endpoint, self._tls))
        self._rechecks.start(RECHECK, now=False)

    async def stop(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._rechecks.running:
            self._rechecks.stop()
        ports, self.ports = self.ports, []
        for port in ports:
            await _stop(port, self._factory)


class Servers:
    """Everything a broker serves its RPC at: the local socket, and TLS where it is configured."""

    def __init__(
        self,
        admin: Admin,
        socket: Path,
        listen: Sequence[str],
        tls: TlsFiles | None,
        reactor: object,
        *,
        limits: Limits | None = None,
        inherited: Mapping[str, int] | None = None,
    ) -> None:
        """Prepare; `inherited` are listening unix sockets that there are already, by path.

        Raises:
            TlsFilesError, ListenError: as `TlsServer`.
        """
        places = Places()
        clock = cast("IReactorTime", reactor)
        self._local = LocalServer(
            admin,
            socket,
            cast("IReactorUNIX", reactor),
            clock,
            limits=limits,
            places=places,
            inherited=(inherited or {}).get(os.fspath(socket)),
        )
        self._tls: TlsServer | None = None
        if listen and tls is not None:
            self._tls = TlsServer(admin, listen, tls, clock, limits=limits, places=places)

    def start(self) -> None:
        """Listen everywhere.

        Raises:
            OSError, CannotListenError, ListenError, SocketInUseError: a place cannot be taken.
        """
        self._local.start()
        if self._tls is not None:
            self._tls.start()

    async def stop(self) -> None:
        """Stop listening and hang up on everybody."""
        await self._local.stop()
        if self._tls is not None:
            await self._tls.stop()

    def notices(self) -> tuple[Notice, ...]:
        """What an operator should know of certificates: which expire soon, what does not read."""
        if self._tls is None:
            return ()
        now = datetime.now(UTC)
        return (*self._tls.context.notices(now), *self._tls.peers.notices())

    def expiries(self) -> tuple[tuple[str, float], ...]:
        """The broker's own certificates and when each expires, seconds since 1970."""
        return () if self._tls is None else self._tls.context.expiries()


def _endpoint(text: str, reactor: object) -> IStreamServerEndpoint:
    if text.startswith(_UNIX + "/") and ":" not in text.removeprefix(_UNIX):
        # Root alone, where Twisted would let everybody connect.
        return UNIXServerEndpoint(
            reactor, text.removeprefix(_UNIX), backlog=_BACKLOG, mode=0o600, wantPID=False
        )
    try:
        return cast("IStreamServerEndpoint", serverFromString(reactor, text))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ListenError(
            f"{text[:200]!a} is no place to listen at ({error}); "
            "tcp:7443, unix:/PATH and systemd:domain=INET:index=0 are"
        ) from None


def _listen(text: str, endpoint: IStreamServerEndpoint, factory: Any) -> IListeningPort:  # noqa: ANN401 - Twisted's factories have no common type
    outcome: list[object] = []
    # tcp, unix and systemd listen at once, or fail at once.
    endpoint.listen(factory).addBoth(outcome.append)
    if outcome and isinstance(outcome[0], Failure):
        raise ListenError(f"cannot listen at {text}: {outcome[0].getErrorMessage()}")
    if not outcome:
        raise ListenError(f"{text}: only endpoints that listen at once will do")
    return cast("IListeningPort", outcome[0])


async def _stop(port: IListeningPort | InheritedPort, factory: AdminFactory) -> None:
    stopped = port.stopListening()
    for channel in list(factory.channels):
        channel.abort()
    if isinstance(stopped, Deferred):
        await stopped
