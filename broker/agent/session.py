"""The agent's conversation with the store: watches in, passes of the enforcer out.

Events are hints: each names a slot that may have changed, whatever happened to it; the pass
re-reads it. One pass runs at a time, over all that has become dirty meanwhile.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from broker.agent.dismissal import Dismissals
from broker.agent.enforcer import Enforcer
from broker.agent.gates.base import GateError
from broker.agent.lives import BackendDirs, Slot
from broker.agent.ungated import Gates
from broker.agent.vif_filters import HEAD
from broker.core.consumer import Heartbeat
from broker.text.escape import escape
from broker.xenstore.errors import ConnectionLostError, NotFoundError, StoreError
from broker.xenstore.paths import (
    DECISIONS,
    FILTERS,
    HEARTBEAT,
    REPORTS,
    domain_dir,
    parse_backend_dir,
    parse_channel,
)
from broker.xenstore.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from broker.agent.bridges import Bridges
    from broker.agent.config import BootstrapDevice
    from broker.agent.durable import DurableState
    from broker.agent.gates.base import BackendNodes, Gate
    from broker.agent.reports import Outcome
    from broker.agent.ungated import Destroy
    from broker.agent.vif_filters import NotHeld, VifFilters
    from broker.net.links import Link
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_RETRY_FIRST: Final = 0.2
_RETRY_LONGEST: Final = 30.0
"""Seconds before what failed is tried again, doubled each time."""
_BEAT_CHECK: Final = 1.0
"""Seconds between looks at whether the heartbeat has gone stale, for the log's sake."""
_PARENT: Final = re.compile(r"xen-backend/(vif)-([0-9]+)-([0-9]+)")
_PLAIN_NAME: Final = re.compile(r"(vif)([0-9]+)\.([0-9]+)")


class AgentSession(service.Service):
    """One backend domain's agent, from the store at `address` to its gates.

    `make_gates` is given the backend directories' writer and returns a gate for each backend
    kind that can be gated here. `refused`, `ungated` and `bridges` are as for `Enforcer`.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        reactor: Reactor,
        *,
        domid: int,
        key: Ed25519PublicKey,
        durable: DurableState,
        make_gates: Callable[[BackendNodes], dict[str, Gate]],
        bootstrap: Sequence[BootstrapDevice] = (),
        refused: Destroy | None = None,
        ungated: Destroy | None = None,
        bridges: Bridges | NotHeld | None = None,
        filters: VifFilters | None = None,
        allow_observe: bool = False,
    ) -> None:
        self.reactor = reactor
        self._durable = durable
        self._home = f"{domain_dir(domid)}/backend"
        self._decisions, self._reports = f"{DECISIONS}/{domid}", f"{REPORTS}/{domid}"
        self._told = f"{FILTERS}/{domid}"
        self._heartbeat = Heartbeat(key, durable.saved.heartbeat)
        self._was_fresh = False
        self._dirs = BackendDirs(domid, self.connected)
        self._gates = Gates(make_gates(self._dirs))
        self._dismissals = Dismissals(reactor, self._dirs)
        self._enforcer = Enforcer(
            domid=domid,
            dirs=self._dirs,
            gates=self._gates,
            durable=durable,
            key=key,
            connection=self.connected,
            fresh=lambda: self._heartbeat.fresh(reactor.seconds()),
            dismissals=self._dismissals,
            bootstrap=bootstrap,
            refused=refused,
            ungated=ungated,
            bridges=bridges,
            filters=filters,
            allow_observe=allow_observe,
        )
        self._store = StoreSession(
            address,
            reactor,
            on_connect=self._on_connect,
            on_event=self._on_event,
            on_disconnect=self._on_disconnect,
        )
        self._starting = True
        self._ready = False
        self._dirty: dict[Slot, None] = {}
        self._list_all = False
        self._busy = False
        self._pass_failed = False
        self._looked_before = 0
        self._pass: defer.Deferred[None] = defer.succeed(None)
        self._retry_delay = _RETRY_FIRST
        self._retrying: set[Slot] = set()
        self._timers: set[IDelayedCall] = set()
        self._waiting: dict[Slot, list[defer.Deferred[Outcome]]] = {}

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Connect and enforce until stopped."""
        service.Service.startService(self)
        self._store.startService()
        self._check_beat()

    async def stop(self) -> None:
        """Finish the pass under way and leave every gate as it is."""
        service.Service.stopService(self)
        self._ready = False
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._dismissals.stop()
        await self._pass
        await self._store.stopService()

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802 - Twisted's name
        """As `stop`."""
        return defer.Deferred.fromCoroutine(self.stop())

    def settled(self, slot: Slot) -> defer.Deferred[Outcome]:
        """Fires once the slot is open or denied: now, or after a coming pass."""
        waiting: defer.Deferred[Outcome] = defer.Deferred(self._forget_waiting)
        self._waiting.setdefault(slot, []).append(waiting)
        self.touch([slot])
        return waiting

    async def release(self, slot: Slot) -> None:
        """The toolstack is about to take this device away."""
        await self._enforcer.release(slot)

    def touch(self, slots: Sequence[Slot]) -> None:
        """These may have changed."""
        self._dirty.update(dict.fromkeys(slots))
        self._kick()

    def links_changed(self, links: Sequence[Link] | None) -> None:
        """These network links changed; None: any may have."""
        if links is None or any(_link_slot(link) is None for link in links):
            self.touch(self._vifs())
            return
        slots = (_link_slot(link) for link in links)
        self.touch([slot for slot in slots if slot is not None])

    def _vifs(self) -> list[Slot]:
        return [slot for slot in self._enforcer.slots() if slot.kind == "vif"]

    def states(self) -> list[str]:
        """How the gates are, as reported: `open`, `closed`, `suspended` or `failed` for each."""
        return [outcome.state for outcome in self._enforcer.outcomes.values()]

    def beat(self) -> int | None:
        """The broker's heartbeat counter; None while it is not known to live."""
        heartbeat = self._heartbeat
        return heartbeat.floor if heartbeat.fresh(self.reactor.seconds()) else None

    async def works(self) -> bool:
        """Whether the store answers, and what was to be looked at since the last call has been.

        A pass that takes its time works as long as it comes to one gate after another.
        """
        before, self._looked_before = self._looked_before, self._enforcer.looked
        try:
            await self._all_heard()
        except ConnectionLostError:
            return False
        at_rest = self._ready and not self._busy
        return not self._pass_failed and (at_rest or self._enforcer.looked != before)

    def connected(self) -> StoreConnection:
        """The store's connection; raises `ConnectionLostError` while there is none."""
        connection = self._store.connection
        if connection is None:
            raise ConnectionLostError("there is no connection to the store")
        return connection

    async def _on_connect(self, connection: StoreConnection) -> None:
        told = (self._told, HEAD, HEARTBEAT)
        for path in (self._home, self._decisions, self._reports, *told):
            await connection.watch(path, path)
        await self._read_heartbeat(connection)
        self._enforcer.reports.forget_all()
        slots = await self._all_slots()
        failed = await self._enforcer.enforce(
            [*slots, *self._enforcer.slots()], starting=self._starting, resync=True
        )
        if self._starting:
            self._enforcer.sweep()
        self._starting = False
        self._ready = True
        self.log.info("{count} devices, watching for more", count=len(slots))
        self._answer_waiting()
        self._retry_later(failed)
        self._kick()

    async def _all_slots(self) -> list[Slot]:
        kinds = [kind for kind in await self._dirs.kinds() if kind in self._gates]
        return await self._dirs.slots(kinds)

    def _on_disconnect(self, _reason: Failure) -> None:
        self._ready = False
        self._heartbeat.unwatched()
        self.log.warn("without a store: what is open stays, nothing opens")

    def _on_event(self, path: str, token: str) -> None:
        if token == HEARTBEAT:
            if self._ready:
                reading = defer.Deferred.fromCoroutine(self._read_heartbeat(self.connected()))
                reading.addErrback(_trap_store_error)
            return
        if token == self._home:
            self._backend_event(path)
        elif token == HEAD:
            self._dirty.update(dict.fromkeys(self._vifs()))
        else:
            root = {self._reports: REPORTS, self._told: FILTERS}.get(token, DECISIONS)
            found = parse_channel(root, path)
            if found is not None:
                for slot in self._enforcer.slots_of(found[0]):
                    if root != REPORTS or not self._enforcer.reports.complete(slot):
                        self._dirty[slot] = None
        self._kick()

    def _backend_event(self, path: str) -> None:
        parts = path.split("/")
        found = parse_backend_dir("/".join(parts[:8]))
        if found is not None:
            self._dirty[Slot(*found[1:])] = None
            return
        # Something above the devices: those below it may be gone.
        below = [slot for slot in self._enforcer.slots() if self._is_below(slot, path)]
        self._dirty.update(dict.fromkeys(below))
        self._list_all = self._list_all or len(parts) < 7

    def _is_below(self, slot: Slot, path: str) -> bool:
        return f"{self._dirs.path(slot)}/".startswith(f"{path}/")

    def _kick(self) -> None:
        if not self._busy and self._ready and (self._dirty or self._list_all):
            self._busy = True
            self._pass = defer.Deferred.fromCoroutine(self._run_passes())

    async def _run_passes(self) -> None:
        while self._ready and (self._dirty or self._list_all):
            slots, self._dirty = list(self._dirty), {}
            list_all, self._list_all = self._list_all, False
            try:
                await self._all_heard()
                slots, self._dirty = [*slots, *self._dirty], {}
                if list_all:
                    slots += await self._all_slots()
                failed = await self._enforcer.enforce(slots)
                self._pass_failed = False
            except ConnectionLostError:
                break  # all is read anew when connected again
            except (StoreError, GateError) as error:
                self.log.warn("a pass failed: {error}", error=escape(str(error)))
                failed, self._pass_failed = set(slots), True
            except Exception:  # noqa: BLE001 - the executor's edge: nothing opened, tried again
                self.log.failure("a pass failed")
                failed, self._pass_failed = set(slots), True
            self._answer_waiting()
            self._retrying.difference_update(slots)
            if not failed and not self._retrying:
                self._retry_delay = _RETRY_FIRST
            self._retry_later(failed)
        self._busy = False
        self._kick()

    async def _all_heard(self) -> None:
        """Wait for a round trip: events come in order with answers.

        Of records that were written together, none is left for a later pass, where it would wait
        for whatever this one waits for.
        """
        try:
            await self.connected().get_domain_path(0)
        except ConnectionLostError:
            raise
        except StoreError as error:
            self.log.debug("a round trip: {error}", error=error)  # any answer is one

    def _retry_later(self, slots: set[Slot]) -> None:
        """One timer for all that failed; the delay grows from one retry to the next."""
        if slots and not self._retrying:
            self._call_later(self._retry_delay, self._retry)
        self._retrying |= slots

    def _retry(self) -> None:
        slots, self._retrying = self._retrying, set()
        self._retry_delay = min(2 * self._retry_delay, _RETRY_LONGEST)
        self.touch(list(slots))

    def _call_later(self, delay: float, call: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            self._timers.discard(timer)
            call(*arguments)

        timer = self.reactor.callLater(delay, run)
        self._timers.add(timer)

    async def _read_heartbeat(self, connection: StoreConnection) -> None:
        try:
            text = await connection.read(HEARTBEAT)
        except ConnectionLostError:
            raise
        except NotFoundError:
            text = b""
        except StoreError as error:
            self.log.warn("heartbeat cannot be read: {error}", error=error)
            return
        problem = self._heartbeat.observe(text, self.reactor.seconds())
        if problem is not None:
            self.log.warn("heartbeat refused: {why}", why=escape(problem))
        self._durable.saved.heartbeat = self._heartbeat.floor
        self._beat_noted()

    def _check_beat(self) -> None:
        self._beat_noted()
        # Nothing else tells of their end: the store does not know them.
        self.touch(list(self._enforcer.lost))
        self._call_later(_BEAT_CHECK, self._check_beat)

    def _beat_noted(self) -> None:
        fresh = self._heartbeat.fresh(self.reactor.seconds())
        if fresh == self._was_fresh:
            return
        self._was_fresh = fresh
        if fresh:
            self.log.info("the broker's heartbeat is alive")
            self.touch(list(self._enforcer.withheld))
        else:
            self.log.warn("the broker's heartbeat has stopped: nothing new opens")

    def _answer_waiting(self) -> None:
        for slot in list(self._waiting):
            outcome = self._enforcer.outcomes.get(slot)
            if outcome is not None and (outcome.state == "open" or outcome.refused):
                for waiting in self._waiting.pop(slot):
                    waiting.callback(outcome)

    def _forget_waiting(self, cancelled: defer.Deferred[Outcome]) -> None:
        for slot, waiting in list(self._waiting.items()):
            waiting[:] = [it for it in waiting if it is not cancelled]
            if not waiting:
                del self._waiting[slot]


def _link_slot(link: Link) -> Slot | None:
    """The slot a link belongs to, by its parent or its plain name."""
    found = _PARENT.fullmatch(link.parent) or _PLAIN_NAME.fullmatch(link.name)
    return None if found is None else Slot(found[1], int(found[2]), found[3])


def _trap_store_error(failure: Failure) -> None:
    failure.trap(StoreError)
