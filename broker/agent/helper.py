"""dom0's helper: makes the broker's nodes and opens to it what it has to read.

With it brokerd needs no privilege in xenstore: it is one more domid with a few permissions. What
libxl grants is kept, a reader is added. All is idempotent, redone in full on every connect, and
again per domain when libxl has written something about it.

A guest owns its frontends and may take the broker's permission off them. The helper gives it back
whenever it next has to do with that domain, and does not chase it: a guest could have dom0 work
for it all day. Meanwhile the broker finds the frontend unreadable, which is a fact about that
guest; the decision stands on `/libxl`, which no guest can hide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from broker.agent import rights
from broker.text.escape import escape
from broker.xenstore import requests
from broker.xenstore.errors import ConnectionLostError, NotFoundError, StoreError
from broker.xenstore.paths import (
    DECISIONS,
    INTRODUCE,
    LIBXL,
    LOCAL_DOMAIN,
    RELEASE,
    REPORTS,
    VM,
    Channel,
    domain_dir,
    is_device,
    is_uuid,
    libxl_device_dir,
    parse_backend_dir,
    parse_domid,
    security_dir,
)
from broker.xenstore.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from broker.agent.rights import Permissions
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.requests import Request
    from broker.xenstore.transport import Reactor

_RETRY: Final = 2.0
"""Seconds before what could not be done is tried again."""
_REFUSED: Final = b"refused"


class HelperSession(service.Service):
    """Serves the broker in domain `broker`, over the store at `address`, as domain 0.

    `refused(domid, reason)` is called for each domain whose published status says so.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        reactor: Reactor,
        *,
        broker: int,
        refused: Callable[[int, str], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._broker = broker
        self._refused = refused
        self._store = StoreSession(
            address,
            reactor,
            on_connect=self._on_connect,
            on_event=self._on_event,
            on_disconnect=self._on_disconnect,
        )
        self._ready = False
        self._all = False
        self._dirty: set[int] = set()
        self._uuids: dict[int, str] = {}
        self._channels: dict[int, set[Channel]] = {}
        self._told: set[tuple[int, str]] = set()
        self._busy = False
        self._pass: defer.Deferred[None] = defer.succeed(None)
        self._broker_alive = False
        self._anew = False
        """Whether this pass sets permissions that look right: see `_serve`."""
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Connect and serve until stopped."""
        service.Service.startService(self)
        self._store.startService()

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802 - Twisted's name
        """Finish the pass under way; everything made stays."""
        service.Service.stopService(self)
        return defer.Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._ready = False
        await self._pass
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._store.stopService()

    async def _on_connect(self, connection: StoreConnection) -> None:
        for path in (INTRODUCE, RELEASE, LIBXL, VM):
            await connection.watch(path, path)
        self._ready, self._all = True, True
        self._kick()

    def _on_disconnect(self, _reason: Failure) -> None:
        self._ready = False

    def _on_event(self, path: str, token: str) -> None:
        parts = path.split("/")
        if token == LIBXL and len(parts) > 2:
            domid = parse_domid(parts[2])
            if domid is not None:
                self._dirty.add(domid)
        elif token == VM and len(parts) > 2:
            # Deeper down it is the broker's own writing, or of no interest; but for a refusal.
            if len(parts) <= 4 or parts[3:] == ["security", "status"]:
                self._dirty.update(it for it, uuid in self._uuids.items() if uuid == parts[2])
        elif path == token and token in {LIBXL, VM}:
            return  # only the watch's own first event
        else:
            self._all = True
        self._kick()

    def _kick(self) -> None:
        if not self._busy and self._ready and (self._dirty or self._all):
            self._busy = True
            self._pass = defer.Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        while self._ready and (self._dirty or self._all):
            connection = self._store.connection
            if connection is None:
                break
            whole, self._all = self._all, False
            domids, self._dirty = self._dirty, set()
            try:
                await self._serve(connection, domids, whole=whole)
            except ConnectionLostError:
                break
            except Exception as error:  # noqa: BLE001 - the executor's edge; tried again
                self.log.warn("helper: {error}; trying again", error=escape(repr(error)))
                self._try_again(domids)
        self._busy = False
        self._kick()

    def _try_again(self, domids: set[int]) -> None:
        def again() -> None:
            self._timer = None
            # In full: what else failed meanwhile is done along with it.
            self._all = True
            self._dirty |= domids
            self._kick()

        if self._timer is None:
            self._timer = self._reactor.callLater(_RETRY, again)

    async def _serve(self, connection: StoreConnection, domids: set[int], *, whole: bool) -> None:
        if whole:
            # A permission given before its domain existed is listed, but C xenstored ignores it
            # (XSA-322: the node is older than the domain). So when the broker's domain has come,
            # and after a start of our own, all are given anew.
            alive = await connection.is_domain_introduced(self._broker)
            self._anew = self._anew or (alive and not self._broker_alive)
            self._broker_alive = alive
            await self._make(connection, rights.fixed_nodes(self._broker))
            if self._broker:
                special = rights.permissions(readers=[self._broker])
                for name in (INTRODUCE, RELEASE):
                    await connection.set_perms(name, special)
            await self._admit(connection, rights.LISTED)
            homes = await _children(connection, [LOCAL_DOMAIN])
            found = {parse_domid(home.rpartition("/")[2]) for home in homes}
            made = await self._made(connection)
            domids = domids | {it for it in found if it is not None} | set(made)
            domids |= set(self._channels)
            self._channels = made
        for domid in sorted(domids):
            await self._serve_domain(connection, domid)
        self._anew = False

    async def _serve_domain(self, connection: StoreConnection, domid: int) -> None:
        home = domain_dir(domid)
        vm = (await connection.read_many([f"{home}/vm"]))[0]
        uuid = _uuid(vm)
        if uuid is None:
            self._uuids.pop(domid, None)
        else:
            self._uuids[domid] = uuid
        backends = await self._devices(connection, domid)
        channels = sorted(backends)
        for gone in self._channels.get(domid, set()) - set(backends):
            await self._remove(connection, gone)
        self._channels[domid] = set(backends)
        # Who the domain is comes first: the broker is to know that before any agent's report.
        await self._admit(connection, rights.domain_nodes(domid, uuid))
        if uuid is not None:
            published = rights.security_nodes(uuid, domid, channels, self._broker)
            await self._publishable(connection, uuid, published)
            await self._look_for_refusal(connection, domid, uuid)
        nodes: dict[str, Permissions] = {}
        for channel in channels:
            nodes.update(rights.channel_nodes(channel, self._broker))
        await self._make(connection, nodes)
        for channel, kind in backends.items():
            listed, trees = rights.device_trees(channel, kind)
            await self._admit(connection, listed)
            await self._admit_at_once(
                connection, libxl_device_dir(domid, channel.device_class, channel.device)
            )
            await self._admit(connection, trees, below=True)

    async def _devices(self, connection: StoreConnection, domid: int) -> dict[Channel, str]:
        """The domain's channels by the toolstack's copy, each with its backend's kind."""
        top = f"{LIBXL}/{domid}/device"
        found: list[tuple[str, str]] = []
        classes = await _children(connection, [top])
        for path in await _children(connection, classes):
            device_class, device = path.split("/")[-2:]
            if is_device(device_class, device):
                found.append((device_class, device))
        paths = [f"{top}/{device_class}/{device}/backend" for device_class, device in found]
        channels: dict[Channel, str] = {}
        for (device_class, device), backend in zip(
            found, await connection.read_many(paths), strict=True
        ):
            if isinstance(backend, ConnectionLostError):
                raise backend
            parsed = (
                parse_backend_dir(backend.decode("ascii", "replace"))
                if isinstance(backend, bytes)
                else None
            )
            if parsed is not None and parsed[2:] == (domid, device):
                channels[Channel(parsed[0], device_class, domid, device)] = parsed[1]
        return channels

    async def _made(self, connection: StoreConnection) -> dict[int, set[Channel]]:
        """The channels that have nodes of ours, whether or not there still is a device."""
        made: dict[int, set[Channel]] = {}
        for top in (DECISIONS, REPORTS):
            level = [top]
            for _ in range(4):
                level = await _children(connection, level)
            for path in level:
                backend, device_class, frontend, device = path[len(top) + 1 :].split("/")
                domids = parse_domid(backend), parse_domid(frontend)
                if domids[0] is not None and domids[1] is not None:
                    channel = Channel(domids[0], device_class, domids[1], device)
                    made.setdefault(channel.frontend, set()).add(channel)
        return made

    async def _remove(self, connection: StoreConnection, channel: Channel) -> None:
        """The device is gone: so are its nodes, and what is empty above them."""
        for top in (DECISIONS, REPORTS):
            parts = [str(channel.backend), channel.device_class, str(channel.frontend)]
            try:
                await connection.rm("/".join([top, *parts, channel.device]))
                for depth in (3, 2, 1):
                    path = "/".join([top, *parts[:depth]])
                    if await connection.directory(path):
                        break
                    await connection.rm(path)
            except NotFoundError:
                continue

    async def _make(self, connection: StoreConnection, nodes: dict[str, Permissions]) -> None:
        """Have these nodes, with exactly these permissions; values are left as they are."""
        held = await connection.get_perms_many(list(nodes))
        for (path, wanted), permissions in zip(nodes.items(), held, strict=True):
            if permissions == wanted and not self._anew:
                continue
            if isinstance(permissions, NotFoundError):
                await connection.mkdir(path)
            elif isinstance(permissions, StoreError):
                raise permissions
            await connection.set_perms(path, wanted)

    async def _publishable(
        self, connection: StoreConnection, uuid: str, nodes: dict[str, Permissions]
    ) -> None:
        """Have the nodes below `/vm/<uuid>`, unless libxl has removed that meanwhile."""
        try:
            await connection.read(f"{VM}/{uuid}")
        except NotFoundError:
            return
        await self._make(connection, nodes)

    async def _admit(
        self, connection: StoreConnection, paths: Iterable[str], *, below: bool = False
    ) -> None:
        """Let the broker read these nodes, and with `below` all under them.

        A node's permissions are set before its children are listed: what is created later
        inherits them.
        """
        level = list(dict.fromkeys(paths))
        while level and self._broker:
            held = await connection.get_perms_many(level)
            there: list[str] = []
            for path, permissions in zip(level, held, strict=True):
                if isinstance(permissions, ConnectionLostError):
                    raise permissions
                if isinstance(permissions, tuple):
                    there.append(path)
                    await self._add_reader(connection, path, permissions)
            level = await _children(connection, there) if below else []

    async def _admit_at_once(self, connection: StoreConnection, top: str) -> None:
        """Let the broker read this tree of libxl's in one transaction.

        It is what decisions are made on: read in part, it would be taken for another device's.
        """
        changes: list[Request] = []
        level = [top]
        while level and self._broker:
            there: list[str] = []
            held = await connection.get_perms_many(level)
            for path, permissions in zip(level, held, strict=True):
                if isinstance(permissions, ConnectionLostError):
                    raise permissions
                if isinstance(permissions, tuple):
                    there.append(path)
                    wanted = self._wanted(path, permissions)
                    changes += [] if wanted is None else [requests.set_perms(path, wanted)]
            level = await _children(connection, there)
        if not changes:
            return
        try:
            await connection.transact(changes)
        except NotFoundError:
            return  # gone meanwhile; an event tells

    def _wanted(self, path: str, held: Permissions) -> Permissions | None:
        """What to set, None if nothing has to be."""
        try:
            wanted = rights.with_reader(held, self._broker)
        except ValueError as error:
            # The broker sees that it cannot read it.
            self.log.warn("helper: no room for the broker on {path}: {e}", path=path, e=error)
            return None
        return held if wanted is None and self._anew and len(held) > 1 else wanted

    async def _add_reader(self, connection: StoreConnection, path: str, held: Permissions) -> None:
        wanted = self._wanted(path, held)
        if wanted is None:
            return
        try:
            await connection.set_perms(path, wanted)
        except ConnectionLostError:
            raise
        except StoreError as error:
            self.log.info("helper: {path}: {error}", path=path, error=error)  # gone meanwhile

    async def _look_for_refusal(self, connection: StoreConnection, domid: int, uuid: str) -> None:
        if self._refused is None:
            return
        status = (await connection.read_many([f"{security_dir(uuid)}/status"]))[0]
        if isinstance(status, bytes) and status.split(b" ")[0] == _REFUSED:
            if (domid, uuid) not in self._told:
                self._told.add((domid, uuid))
                self._refused(domid, escape(status))
        else:
            self._told.discard((domid, uuid))


async def _children(connection: StoreConnection, paths: list[str]) -> list[str]:
    """The paths of all children of these nodes; a node that is gone has none."""
    found: list[str] = []
    for path, names in zip(paths, await connection.directory_many(paths), strict=True):
        if isinstance(names, list):
            found += [f"{path}/{name}" for name in names]
        elif not isinstance(names, NotFoundError):
            raise names
    return found


def _uuid(vm: bytes | StoreError) -> str | None:
    """The uuid in a domain's `vm` node; also raises the loss of the connection."""
    if isinstance(vm, ConnectionLostError):
        raise vm
    if not isinstance(vm, bytes) or not vm.startswith(b"/vm/"):
        return None
    uuid = vm[4:].decode("ascii", "replace")
    return uuid if is_uuid(uuid) else None
