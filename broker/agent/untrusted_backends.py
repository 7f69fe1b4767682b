"""Backend domains that the broker holds apart: dom0's agent takes their devices away.

Such a domain was told to close and did not say that it had, or its agent flooded the broker. Its
own agent is not believed any more, so both ends' directories and the toolstack's copy are removed
from outside, as `libxl__device_destroy` does it (libxl_device.c): netback and blkback let go when
their directory is gone, and so do the frontends. What the broker signed is the authority; the
backend domain's published status only says where to look.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet import defer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from broker.core.record import Record, RecordError, verify_record
from broker.text.escape import escape
from broker.xenstore import paths
from broker.xenstore.devices import remove_device
from broker.xenstore.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from twisted.internet.interfaces import IReactorTime

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transaction import Transaction

INTERVAL: Final = 5.0
"""Seconds between two looks."""
_HELD_APART: Final = b"refused quarantined"
_BACKEND_HELD_APART: Final = "quarantined: backend domain"


class UntrustedBackends:
    """Looks now and then; `connection()` is the store's, or raises while there is none."""

    log = Logger()

    def __init__(
        self,
        connection: Callable[[], StoreConnection],
        key: Ed25519PublicKey,
        clock: IReactorTime,
    ) -> None:
        self._connection = connection
        self._key = key
        self._looking = LoopingCall(self._look_once)
        self._looking.clock = clock

    def start(self) -> None:
        """Begin."""
        self._looking.start(INTERVAL, now=False)

    def stop(self) -> None:
        """No more looks; what was taken away stays away."""
        if self._looking.running:
            self._looking.stop()

    def _look_once(self) -> defer.Deferred[None]:
        looking = defer.Deferred.fromCoroutine(self.look())
        return looking.addErrback(
            lambda failure: self.log.warn(
                "looking at backends that are held apart: {error}; trying again",
                error=escape(failure.getErrorMessage()),
            )
        )

    async def look(self) -> None:
        """Take away every device whose backend domain is held apart.

        Raises:
            StoreError: the store would not have it; the next look tries again.
        """
        connection = self._connection()
        (listing,) = await connection.directory_many([paths.DECISIONS])
        names = listing if isinstance(listing, list) else []
        for backend in [paths.parse_domid(name) for name in names]:
            if backend and await self._held_apart(connection, backend):
                await self._take_away(connection, backend)

    async def _held_apart(self, connection: StoreConnection, backend: int) -> bool:
        uuid = await _uuid(connection, backend)
        if uuid is None:
            return False
        (status,) = await connection.read_many([f"{paths.security_dir(uuid)}/status"])
        return isinstance(status, bytes) and status.startswith(_HELD_APART)

    async def _take_away(self, connection: StoreConnection, backend: int) -> None:
        tree = await connection.read_tree(f"{paths.DECISIONS}/{backend}")
        for path, text in tree.items():
            record = self._denial(path, text)
            if record is None or await _uuid(connection, record.frontend) != record.uuid:
                continue
            if await connection.transaction(partial(_remove, record)):
                self.log.warn(
                    "took {cls} {dev} of domain {fe} away from domain {be}, which is held apart",
                    cls=record.device_class,
                    dev=record.device,
                    fe=record.frontend,
                    be=record.backend,
                )

    def _denial(self, path: str, text: bytes) -> Record | None:
        """The record of a path, if it is the broker's, and denies for the backend's sake."""
        parsed = paths.parse_channel(paths.DECISIONS, path)
        if parsed is None or parsed[1] or not text:
            return None
        try:
            record = verify_record(text, self._key)
        except RecordError:
            return None
        named = paths.Channel(record.backend, record.device_class, record.frontend, record.device)
        meant = record.verdict == "deny" and record.reason.startswith(_BACKEND_HELD_APART)
        return record if meant and named == parsed[0] else None


async def _uuid(connection: StoreConnection, domid: int) -> str | None:
    (vm,) = await connection.read_many([f"{paths.domain_dir(domid)}/vm"])
    uuid = vm.decode("latin-1").removeprefix("/vm/") if isinstance(vm, bytes) else ""
    return uuid if paths.is_uuid(uuid) else None


async def _remove(record: Record, tx: Transaction) -> bool:
    """Remove a device at all three places; whether it was there, with that backend."""
    copy = paths.libxl_device_dir(record.frontend, record.device_class, record.device)
    try:
        backend_dir = (await tx.read(f"{copy}/backend")).decode("latin-1")
    except NotFoundError:
        return False
    parsed = paths.parse_backend_dir(backend_dir)
    if parsed is None:
        return False
    backend, _, frontend, device = parsed
    if (backend, frontend, device) != (record.backend, record.frontend, record.device):
        return False
    front = paths.frontend_dir(record.frontend, record.device_class, record.device)
    await remove_device(tx, backend_dir, front, copy)
    return True
