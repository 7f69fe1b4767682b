"""Where the RPC is served: the local unix socket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from broker.rpc.http import AdminFactory, Limits
from broker.rpc.local import LocalPeers, prepare_path

if TYPE_CHECKING:
    from pathlib import Path

    from twisted.internet.interfaces import IListeningPort, IReactorTime, IReactorUNIX

    from broker.rpc.admin import Admin


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
    ) -> None:
        self._path = path
        self._reactor = reactor
        self._factory = AdminFactory(admin, LocalPeers(uids), clock, limits=limits or Limits())
        # The socket's mode keeps everybody else away; other uids get in only if some are listed.
        self._mode, self._directory_mode = (0o600, 0o700) if uids <= {0} else (0o666, 0o755)
        self._port: IListeningPort | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            SocketInUseError: another broker listens there.
            OSError, CannotListenError: the socket cannot be made.
        """
        prepare_path(self._path, self._directory_mode)
        # The mode has to hold from the first moment, not from the chmod after bind.
        before = os.umask(0o777 & ~self._mode)
        try:
            self._port = self._reactor.listenUNIX(
                os.fspath(self._path), self._factory, backlog=128, mode=self._mode
            )
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop listening, remove the socket and hang up on everybody."""
        port, self._port = self._port, None
        if port is None:
            return
        stopped = port.stopListening()
        for channel in list(self._factory.channels):
            channel.abort()
        if isinstance(stopped, Deferred):
            await stopped
