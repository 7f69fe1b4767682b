"""brokerd's one flow: what is dirty is read again, judged, audited, published; in turns.

A turn: read -> mirror -> who may run -> what each channel is -> audit intent (one fdatasync) ->
publish -> audit outcome; what is only for people is written after, when there is time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from broker.service import events
from broker.service.confirming import Confirming
from broker.service.decider import Decider
from broker.service.dirty import HOST, DirtySet, Item, Kind, classify, frontend_item
from broker.service.display import Display
from broker.service.filter_telling import Telling
from broker.service.filters import VIF, Filters
from broker.service.judge import Judge
from broker.service.metrics import Metrics
from broker.service.mirror import Device, Mirror
from broker.service.observing import Observing
from broker.service.police import Police
from broker.service.publisher import Publisher
from broker.service.revoking import Revoking
from broker.service.settling import Settling
from broker.service.survey import Changes, Survey
from broker.text.escape import escape
from broker.xenstore import paths
from broker.xenstore.errors import ConnectionLostError, DeniedError, StoreError
from broker.xenstore.together import together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from broker.service.audit import Audit
    from broker.xenstore.client import StoreConnection

Phase = Literal["starting", "reconciling", "enforcing", "stopped"]

WATCHES: Final = (
    *(paths.LOCAL_DOMAIN, paths.VM, paths.LIBXL, paths.REPORTS, paths.DECISIONS),
    *(paths.FILTERS, paths.PROFILES),
    *(paths.INTRODUCE, paths.RELEASE),
)
_LATER: Final = frozenset({Kind.RECORD, Kind.RECORDS, Kind.SHOWN, Kind.DROPS})


class Engine:
    """The broker on one store.

    `check(connection)` runs after each full reading, before anything is published; what it
    raises ends the connection.
    """

    log = Logger()

    def __init__(
        self,
        audit: Audit,
        key: Ed25519PrivateKey,
        clock: IReactorTime,
        *,
        adopt: bool,
        patience: float,
        check: Callable[[StoreConnection], Awaitable[None]],
    ) -> None:
        self.audit = audit
        self.state = audit.state
        self.metrics = Metrics()
        self.confirming = Confirming(audit.state, self.metrics, clock)
        self.mirror = Mirror()
        self.judge = Judge(self.mirror, audit.state, adopt=adopt)
        self.filters = Filters(audit, self.judge, self.mirror, key)
        self.judge.filters = self.filters
        self.telling = Telling(self.filters, audit, clock)
        self.decider = Decider(
            audit,
            self.judge,
            key,
            clock,
            self.metrics,
            on_decided=self._decided,
            on_retry=self._wake,
            on_overspent=self._overspent,
            on_failed=self._turn_failed,
            filters=self.filters,
            telling=self.telling,
        )
        self.decider.subscribers.append(self.confirming.heard)
        self.revoking = Revoking(
            audit,
            clock,
            patience=patience,
            on_released=self._waiting_again,
            on_silent=self._hold_apart,
        )
        self.observing = Observing(self.judge, audit, on_over=self.policy_changed)
        self.police = Police(self.mirror, self.judge, audit, clock, on_sanction=self._sanctioned)
        self.phase: Phase = "starting"
        self.connection: StoreConnection | None = None
        self._clock = clock
        self._check = check
        self._dirty = DirtySet()
        self._survey: Survey | None = None
        self._publisher: Publisher | None = None
        self._busy = False
        self._display = Display(clock, self._display_due)
        audit.on_note = self._display.soon
        self._settling = Settling(
            *(self.mirror, self.judge, audit, self.decider),
            revoking=self.revoking,
            police=self.police,
            telling=self.telling,
            display=self._display,
        )

    # the store comes and goes

    async def connected(self, connection: StoreConnection) -> None:
        """Take up a connection: watch, read everything, reconcile, then live on events.

        Raises:
            StoreError: the connection is lost, or cannot be used.
        """
        self.phase = "reconciling"
        self._dirty.clear()
        self.decider.clear()
        self.mirror.clear()
        self.metrics.connects += 1
        self.connection = connection
        self._survey = Survey(connection, self.mirror)
        publisher = self._publisher = Publisher(connection)
        await publisher.begin()
        self.telling.begin(publisher)
        await together(*[self._watch(connection, path) for path in WATCHES])
        changes = Changes()
        await self._survey.read_domains(await self._survey.list_domains(), changes)
        await self._check(connection)
        await publisher.write(paths.STATE, b"reconciling")
        self._settling.all_was_read(changes)
        await self._settle(changes)
        self.decider.start(publisher)
        await self.decider.settled()
        self.phase = "enforcing"
        self.confirming.begin(self.mirror.devices())
        await self.announce()
        await self._know_oneself(connection)
        self.police.begin(connection)
        self._display.soon()
        self._wake()

    def _watch(self, connection: StoreConnection, path: str) -> Deferred[None]:
        def denied(failure: Failure) -> None:
            error = failure.trap(DeniedError) and failure.value
            self.log.warn("dom0's helper has not opened all of the store: {e}", e=error)

        return connection.watch(path, path).addErrback(denied)

    def disconnected(self, _: Failure) -> None:
        """The store is gone: everything stays as it is until it can be read again."""
        self.phase = "reconciling"
        self.connection = self._survey = self._publisher = None
        self._dirty.clear()
        self.decider.clear()
        self.telling.end()
        self.police.end()

    async def _know_oneself(self, connection: StoreConnection) -> None:
        """Which domain the broker is in: no sanction ever reaches it."""
        try:
            own = paths.parse_domid((await connection.read("domid")).decode("latin-1"))
        except ConnectionLostError:
            raise
        except StoreError:
            return  # on a socket in domain 0, of a store that does not say
        self.police.untouchable = frozenset({0} if own is None else {0, own})

    def tick(self) -> None:
        """Called now and then: what waits for a moment, and not for an event."""
        if self.phase == "enforcing":
            self.revoking.check()
            self.observing.check()
            self.police.tick()
            self.decider.pending.update(self.judge.waiting)
            self._wake()

    async def announce(self) -> None:
        """Write the broker's state and the policy in force.

        Raises:
            ConnectionLostError: the connection ended.
        """
        policy = self.judge.policy
        if self._publisher is None:
            return
        values: dict[str, str] = {}
        if policy is not None:
            values[f"{paths.POLICY}/name"] = policy.name
            values[f"{paths.POLICY}/version"] = f"{policy.version[0]}.{policy.version[1]}"
            values[f"{paths.POLICY}/digest"] = policy.digest
        values[paths.STATE] = self.phase  # last: who sees it finds the rest
        for path, value in values.items():
            await self._publisher.write(path, value.encode("utf-8"))

    def event(self, path: str, _: str) -> None:
        """A watch fired."""
        self.police.event(path)
        if self.telling.event(path):
            return
        item = classify(path)
        if item is None:
            return
        if item.kind in _LATER:
            self._dirty.add_later(item)
            self._display.soon()
            return
        self.metrics.stir()
        self._dirty.add(item)
        self._display.wait()
        self._wake()

    # turns

    def _wake(self) -> None:
        if self.phase != "enforcing":
            return
        if not self._busy and self._has_work():
            self._busy = True
            Deferred.fromCoroutine(self._work()).addErrback(self._turn_failed)
        self._decide()

    def _has_work(self) -> bool:
        standing = self._settling.owing and not self.audit.broken
        return bool(self._dirty) or standing or self._display.due(idle=self._idle)

    @property
    def unread(self) -> int:
        """How much waits to be read again."""
        return len(self._dirty)

    @property
    def _idle(self) -> bool:
        return not self._dirty and not self.decider.busy

    async def _work(self) -> None:
        try:
            while self.phase == "enforcing" and self._has_work():
                await self._turn(self._dirty.take())
                self._decide()
                if self._display.due(idle=self._idle):
                    self._display.begin()
                    await self._verify()
                    self._decide()
                    await self._display.show(self._publisher, self.judge, self.audit)
                    if self._dirty.has_later:
                        self._display.soon()
        finally:
            self._busy = False
            if self._display.waiting:
                self._display.soon()

    def _decide(self) -> None:
        if self._publisher is not None:
            self.decider.start(self._publisher)

    def _turn_failed(self, failure: Failure) -> None:
        """Whatever went wrong, nothing was opened by it; start over from a full reading."""
        if failure.check(ConnectionLostError, CancelledError):
            return
        self.log.failure("a turn failed; reading everything anew", failure)
        self.audit.failed(f"a turn failed: {escape(failure.getErrorMessage())}")
        self.start_over()

    async def _turn(self, items: Sequence[Item]) -> None:
        survey = self._survey
        if survey is None:
            return
        changes = Changes()
        since = self.metrics.take()
        if items:
            world = [item for item in items if item.kind is Kind.WORLD]
            if world:
                await self._read_world(survey, world, changes)
            await survey.read_items(items, changes)
        self.metrics.read(since)
        await self._settle(changes)

    async def _read_world(self, survey: Survey, items: Sequence[Item], changes: Changes) -> None:
        """Domains that came or went; all of them, if too much happened to know which."""
        listed = await survey.list_domains()
        whole = any(item.path == "*" for item in items)
        known = self.mirror.domains
        suspects = [domid for domid in listed if whole or domid not in known]
        suspects += [domid for domid in known if domid not in listed and domid != 0]
        await survey.read_domains(suspects, changes)

    async def _settle(self, changes: Changes) -> None:
        await self._settling.take_in(changes, self.connection, self._publisher)

    # the world is another one

    def relabelled(self) -> None:
        """Labels or the quarantine changed: judge everybody's standing anew now."""
        self._settling.stand()
        self._wake()

    def policy_changed(self) -> None:
        """Another policy is in force: every channel is judged anew."""
        self.decider.pending.update(dict.fromkeys(self.mirror.devices()))
        self._display.add_domains(self.mirror.domains.values())
        self.relabelled()

    def filters_changed(self) -> None:
        """Other profiles are in force, or on other vifs: tell of it, and judge vifs anew."""
        # The first texts of all are told between the vifs' records: `Telling.records`.
        if self.phase == "enforcing" and self.filters.state.head:
            Deferred.fromCoroutine(self.telling.profiles()).addErrback(self._turn_failed)
        vifs = (device for device in self.mirror.devices() if device.device_class == VIF)
        self.decider.pending.update(dict.fromkeys(vifs))
        self._wake()

    def start_over(self) -> None:
        """Read everything anew, after a time in which what was read could not be acted on."""
        if self.connection is not None:
            self.connection.close()

    def _overspent(self, domid: int) -> None:
        """A backend's agent makes up lives without end; they stay undecided in any case."""
        self._hold_apart(domid, "its agent used up its share of the audit log")

    def _waiting_again(self) -> None:
        """A revocation is over: the grants that waited for one look again."""
        self.decider.pending.update(self.judge.waiting)
        self._wake()

    def _sanctioned(self, device: Device, domid: int | None) -> None:
        """A protocol was broken: judge the channel, or all of a domain's, anew."""
        self.decider.pending[device] = None
        if domid is not None:
            self._settling.owing = True
        self._wake()

    def _hold_apart(self, domid: int, reason: str) -> None:
        """Quarantine a backend's domain, durably: never domid 0, nor a label that is protected."""
        domain = self.mirror.domains.get(domid)
        if domain is None:
            return
        uuid = domain.uuid
        if domain.domid == 0 or uuid is None or uuid in self.state.quarantine:
            return
        if self.judge.protects(domid):
            return
        if self.audit.commit([events.Quarantined(time.time(), uuid, domain.domid, reason)]):
            self.audit.failed(f"domain {domain.domid} is quarantined: {reason}")
            self._settling.owing = True
            self._wake()

    # what is for people, and what may wait

    def _decided(self, judged: Iterable[Device], fresh: Iterable[Device]) -> None:
        fresh = list(fresh)
        if self.judge.observed:
            self.observing.saw(fresh)
        for device in fresh:
            # A guest that hides its directory makes no event: look while there is time.
            self._dirty.add_later(frontend_item(device.domid, device.device_class, device.device))
        self._display.add_devices(judged)
        self.revoking.look()

    def _display_due(self) -> None:
        if self.phase != "enforcing":
            return  # whoever begins anew asks again
        self._wake()
        if self._display.waiting and not self._busy:
            # The decider is at work: what is only for people waits without a turn.
            self._display.soon()

    async def _verify(self) -> None:
        """Read what the broker itself wrote: whatever else is there is put right."""
        later = self._dirty.take_later()
        if not later or self._survey is None:
            return
        changes = Changes()
        if any(item.kind is Kind.WORLD for item in later):
            self._dirty.add(Item(Kind.WORLD, HOST, "*"))
        await self._survey.read_items(later, changes)
        await self._settle(changes)
        self._display.add_devices(changes.devices)
