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
from broker.agent.helper_nodes import HelperNodes, children
from broker.text.escape import escape
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.paths import (
    INTRODUCE,
    LIBXL,
    LOCAL_DOMAIN,
    RELEASE,
    STATE,
    VM,
    Channel,
    domain_dir,
    is_uuid,
    libxl_device_dir,
    parse_domid,
    security_dir,
)
from broker.xenstore.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from broker.agent.rights import Permissions
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_RETRY: Final = 2.0
"""Seconds before what could not be done is tried again."""
_REFUSED: Final = b"refused"


class HelperSession(service.Service):
    """Serves the broker in domain `broker`, over the store at `address`, as domain 0.

    With `broker_uuid` that is whichever domain has this uuid (the oldest, as for any two lives of
    one uuid); `found(domid)` is called when it comes, and `broker` stands until then.
    `refused(domid, reason)` is called for each domain whose published status says so.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        reactor: Reactor,
        *,
        broker: int,
        broker_uuid: str | None = None,
        found: Callable[[int], object] = lambda _: None,
        refused: Callable[[int, str], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._broker = broker
        self._broker_uuid = broker_uuid
        self._found = found
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
        former = 0
        if whole:
            homes = await children(connection, [LOCAL_DOMAIN])
            found = {parse_domid(home.rpartition("/")[2]) for home in homes}
            await self._find_broker(connection, {it for it in found if it is not None})
            former = await self._former_broker(connection)
            # A permission given before its domain existed is listed, but C xenstored ignores it
            # (XSA-322: the node is older than the domain). So when the broker's domain has come,
            # and after a start of our own, all are given anew.
            alive = await connection.is_domain_introduced(self._broker)
            self._anew = self._anew or (alive and not self._broker_alive)
            self._broker_alive = alive
        nodes = HelperNodes(connection, self._broker, anew=self._anew, former=former)
        if whole:
            await nodes.make(rights.fixed_nodes(self._broker))
            if self._broker:
                special = rights.permissions(readers=[self._broker])
                for name in (INTRODUCE, RELEASE):
                    await connection.set_perms(name, special)
            await nodes.admit(rights.LISTED)
            made = await nodes.made()
            domids = domids | {it for it in found if it is not None} | set(made)
            domids |= set(self._channels)
            self._channels = made
        for domid in sorted(domids):
            await self._serve_domain(connection, nodes, domid)
        self._anew = False

    async def _find_broker(self, connection: StoreConnection, domids: set[int]) -> None:
        """Who has the broker's uuid now; nobody new if it is who it was, or nobody at all."""
        if self._broker_uuid is None:
            return
        listed = sorted(domids)
        held = await connection.read_many([f"{domain_dir(domid)}/vm" for domid in listed])
        same = [it for it, vm in zip(listed, held, strict=True) if _uuid(vm) == self._broker_uuid]
        if same and self._broker not in same:
            self._broker = same[0]
            self._broker_alive = False
            self.log.info("helper: the broker is domain {domid} now", domid=self._broker)
            self._found(self._broker)

    async def _former_broker(self, connection: StoreConnection) -> int:
        """The domid that the broker's own nodes were made for, where it is another; else 0."""
        held = (await connection.get_perms_many([STATE]))[0]
        domids = [] if isinstance(held, StoreError) else [int(entry[1:]) for entry in held[1:]]
        return next((it for it in domids if it != self._broker), 0)

    async def _serve_domain(
        self, connection: StoreConnection, nodes: HelperNodes, domid: int
    ) -> None:
        home = domain_dir(domid)
        vm = (await connection.read_many([f"{home}/vm"]))[0]
        uuid = _uuid(vm)
        if uuid is None:
            self._uuids.pop(domid, None)
        else:
            self._uuids[domid] = uuid
        backends = await nodes.devices(domid)
        channels = sorted(backends)
        for gone in self._channels.get(domid, set()) - set(backends):
            await nodes.remove(gone)
        self._channels[domid] = set(backends)
        # Who the domain is comes first: the broker is to know that before any agent's report.
        await nodes.admit(rights.domain_nodes(domid, uuid))
        if uuid is not None:
            published = rights.security_nodes(uuid, domid, channels, self._broker)
            await nodes.publishable(uuid, published)
            await self._look_for_refusal(connection, domid, uuid)
        wanted: dict[str, Permissions] = {}
        for channel in channels:
            wanted.update(rights.channel_nodes(channel, self._broker))
        await nodes.make(wanted)
        for channel, kind in backends.items():
            listed, trees = rights.device_trees(channel, kind)
            await nodes.admit(listed)
            copy = libxl_device_dir(domid, channel.device_class, channel.device)
            await nodes.admit_at_once(copy)
            await nodes.admit(trees, below=True)
        await nodes.admit(rights.size_trees(domid), below=True)

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


def _uuid(vm: bytes | StoreError) -> str | None:
    """The uuid in a domain's `vm` node; also raises the loss of the connection."""
    if isinstance(vm, ConnectionLostError):
        raise vm
    if not isinstance(vm, bytes) or not vm.startswith(b"/vm/"):
        return None
    uuid = vm[4:].decode("ascii", "replace")
    return uuid if is_uuid(uuid) else None
