"""The nodes that dom0's helper makes for the broker, and those it lets it read.

One pass over one connection; what each node's rights are is rights.py's.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from twisted.logger import Logger

from broker.agent import rights
from broker.xenstore import requests
from broker.xenstore.errors import ConnectionLostError, NotFoundError, StoreError
from broker.xenstore.paths import (
    DECISIONS,
    FILTERS,
    LIBXL,
    REPORTS,
    VM,
    Channel,
    is_device,
    is_primary_console,
    of_agent,
    parse_backend_dir,
    parse_domid,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.agent.rights import Permissions
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.requests import Request
    from broker.xenstore.transaction import Transaction


class HelperNodes:
    """Serves the broker in domain `broker` over `connection`; all is idempotent.

    With `anew`, permissions that look right are set again. `former` is the domid of a broker before
    this one, whose permissions make room; 0 if there is none. Every function raises `StoreError`.
    """

    log = Logger()

    def __init__(
        self, connection: StoreConnection, broker: int, *, anew: bool, former: int = 0
    ) -> None:
        self._connection = connection
        self._broker = broker
        self._anew = anew
        self._former = former

    async def devices(self, domid: int) -> dict[Channel, str]:
        """The domain's channels by the toolstack's copy, each with its backend's kind."""
        top = f"{LIBXL}/{domid}/device"
        found: list[tuple[str, str]] = []
        classes = await children(self._connection, [top])
        for path in await children(self._connection, classes):
            device_class, device = path.split("/")[-2:]
            if is_device(device_class, device):
                found.append((device_class, device))
        paths = [f"{top}/{device_class}/{device}/backend" for device_class, device in found]
        channels: dict[Channel, str] = {}
        for (device_class, device), backend in zip(
            found, await self._connection.read_many(paths), strict=True
        ):
            if isinstance(backend, ConnectionLostError):
                raise backend
            parsed = (
                parse_backend_dir(backend.decode("ascii", "replace"))
                if isinstance(backend, bytes)
                else None
            )
            if parsed is None or parsed[2:] != (domid, device):
                continue
            channel = Channel(parsed[0], device_class, domid, device)
            if not is_primary_console(channel):
                channels[channel] = parsed[1]
        return channels

    async def made(self) -> dict[int, set[Channel]]:
        """The channels that have nodes of ours, whether or not there still is a device."""
        made: dict[int, set[Channel]] = {}
        for top in (DECISIONS, REPORTS):
            level = [top]
            for _ in range(4):
                level = await children(self._connection, level)
            for path in level:
                backend, device_class, frontend, device = path[len(top) + 1 :].split("/")
                domids = parse_domid(backend), parse_domid(frontend)
                if domids[0] is not None and domids[1] is not None:
                    channel = Channel(domids[0], device_class, domids[1], device)
                    made.setdefault(channel.frontend, set()).add(channel)
        return made

    async def remove(self, channel: Channel) -> None:
        """The device is gone: so are its nodes, and what is empty above them.

        What a backend reports of itself goes with its last channel.
        """
        own = of_agent(channel.backend)
        parts = [str(channel.backend), channel.device_class, str(channel.frontend)]
        for top in (DECISIONS, FILTERS, REPORTS):
            with contextlib.suppress(NotFoundError):
                await self._connection.rm("/".join([top, *parts, channel.device]))
            for depth in (3, 2, 1):
                path = "/".join([top, *parts[:depth]])
                try:
                    left = await self._connection.directory(path)
                    if [name for name in left if f"{path}/{name}" not in own]:
                        break
                    await self._connection.rm(path)
                except NotFoundError:
                    continue  # the broker was there first, and leaves what is above

    async def make(self, nodes: dict[str, Permissions]) -> None:
        """Have these nodes, with exactly these permissions; values are left as they are."""
        held = await self._connection.get_perms_many(list(nodes))
        for (path, wanted), permissions in zip(nodes.items(), held, strict=True):
            if permissions == wanted and not self._anew:
                continue
            if isinstance(permissions, NotFoundError):
                await self._connection.mkdir(path)
            elif isinstance(permissions, StoreError):
                raise permissions
            await self._connection.set_perms(path, wanted)

    async def publishable(self, uuid: str, nodes: dict[str, Permissions]) -> None:
        """Have the nodes below `/vm/<uuid>`, unless libxl has removed that, or does meanwhile."""
        top = f"{VM}/{uuid}"
        try:
            await self._connection.read(top)
        except NotFoundError:
            return
        await self.make(nodes)
        with contextlib.suppress(NotFoundError):
            if await self._connection.directory(top) == ["security"]:
                await self._connection.transaction(lambda it: _remove_ours(it, top))

    async def admit(self, paths: Iterable[str], *, below: bool = False) -> None:
        """Let the broker read these nodes, and with `below` all under them.

        A node's permissions are set before its children are listed: what is created later
        inherits them.
        """
        level = list(dict.fromkeys(paths))
        while level and self._broker:
            held = await self._connection.get_perms_many(level)
            there: list[str] = []
            for path, permissions in zip(level, held, strict=True):
                if isinstance(permissions, ConnectionLostError):
                    raise permissions
                if isinstance(permissions, tuple):
                    there.append(path)
                    await self._add_reader(path, permissions)
            level = await children(self._connection, there) if below else []

    async def admit_at_once(self, top: str) -> None:
        """Let the broker read this tree of libxl's in one transaction.

        It is what decisions are made on: read in part, it would be taken for another device's.
        """
        changes: list[Request] = []
        level = [top]
        while level and self._broker:
            there: list[str] = []
            held = await self._connection.get_perms_many(level)
            for path, permissions in zip(level, held, strict=True):
                if isinstance(permissions, ConnectionLostError):
                    raise permissions
                if isinstance(permissions, tuple):
                    there.append(path)
                    wanted = self._wanted(path, permissions)
                    changes += [] if wanted is None else [requests.set_perms(path, wanted)]
            level = await children(self._connection, there)
        if not changes:
            return
        try:
            await self._connection.transact(changes)
        except NotFoundError:
            return  # gone meanwhile; an event tells

    def _wanted(self, path: str, held: Permissions) -> Permissions | None:
        """What to set, None if nothing has to be."""
        try:
            wanted = rights.with_reader(held, self._broker, self._former)
        except ValueError as error:
            # The broker sees that it cannot read it.
            self.log.warn("helper: no room for the broker on {path}: {e}", path=path, e=error)
            return None
        return held if wanted is None and self._anew and len(held) > 1 else wanted

    async def _add_reader(self, path: str, held: Permissions) -> None:
        wanted = self._wanted(path, held)
        if wanted is None:
            return
        try:
            await self._connection.set_perms(path, wanted)
        except ConnectionLostError:
            raise
        except StoreError as error:
            self.log.info("helper: {path}: {error}", path=path, error=error)  # gone meanwhile


async def _remove_ours(transaction: Transaction, top: str) -> None:
    """Remove what was made below a `/vm/<uuid>` that libxl had just removed: it comes alone."""
    if await transaction.directory(top) == ["security"]:
        await transaction.rm(top)


async def children(connection: StoreConnection, paths: list[str]) -> list[str]:
    """The paths of all children of these nodes; a node that is gone has none."""
    found: list[str] = []
    for path, names in zip(paths, await connection.directory_many(paths), strict=True):
        if isinstance(names, list):
            found += [f"{path}/{name}" for name in names]
        elif not isinstance(names, NotFoundError):
            raise names
    return found
