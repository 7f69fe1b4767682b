"""From judged channels to records in the store: audit intent, publish, audit outcome."""

from __future__ import annotations

import time
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from broker.core.plan import Entry, plan
from broker.core.record import RecordError, record_id
from broker.core.revocations import taken_back
from broker.service import events
from broker.service.filters import VIF
from broker.service.judge import make_entry
from broker.text.escape import escape

Told = Literal["decision", "report", "gone"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from broker.core.channels import Decision
    from broker.service.audit import Audit
    from broker.service.filter_telling import Telling
    from broker.service.filters import Filters, FilterText
    from broker.service.judge import Judge
    from broker.service.metrics import Metrics
    from broker.service.mirror import Device
    from broker.service.publisher import Publisher
    from broker.xenstore.errors import StoreError

    Subscriber = Callable[[Told, Device, Entry | None], None]
    """Called with what happened, the device, and the entry before."""

_T = TypeVar("_T")

BATCH: Final = 512
"""Decisions that are committed together: one fdatasync, one pipelined write."""
SLICE: Final = 32
"""Decisions made at a stretch: a few milliseconds, then the store is heard again."""
FIRST_RETRY: Final = 0.25
LONGEST_RETRY: Final = 60.0
"""Seconds until a record the store did not take is tried again; doubled each time."""


class Decider:
    """The channels that wait to be judged, and what becomes of them.

    `on_decided(judged, fresh)` tells which devices were judged, and which of them anew;
    `on_retry()` that something is pending again, `on_overspent(domid)` that a backend domain
    asks for more decisions than may be written down, `on_failed(failure)` that deciding or
    publishing failed.
    """

    def __init__(
        self,
        audit: Audit,
        judge: Judge,
        key: Ed25519PrivateKey,
        clock: IReactorTime,
        metrics: Metrics,
        *,
        on_decided: Callable[[Iterable[Device], Iterable[Device]], None],
        on_retry: Callable[[], None],
        on_overspent: Callable[[int], None],
        on_failed: Callable[[Failure], None],
        filters: Filters,
        telling: Telling,
    ) -> None:
        self.pending: dict[Device, None] = {}
        self.subscribers: list[Subscriber] = []
        self._audit = audit
        self._state = audit.state
        self._judge = judge
        self._key = key
        self._clock = clock
        self._metrics = metrics
        self._on_decided = on_decided
        self._on_retry = on_retry
        self._on_overspent = on_overspent
        self._on_failed = on_failed
        self._filters = filters
        self._telling = telling
        self._publisher: Publisher | None = None
        self._running: Deferred[None] | None = None
        self._under_way: set[Device] = set()
        self._publishing: Deferred[None] = succeed(None)
        self._retries: dict[Device, float] = {}

    @property
    def unpublished(self) -> int:
        """Records that the store has not taken yet."""
        return len(self._retries)

    @property
    def busy(self) -> bool:
        """Whether anything is being judged or published."""
        return self._running is not None

    def clear(self) -> None:
        """Everything will be read and judged anew; what was judged before counts no more."""
        self._publisher = None
        self.pending.clear()
        self._retries.clear()

    def start(self, publisher: Publisher) -> None:
        """Judge what is pending and publish it, until nothing is left; reading goes on meanwhile.

        What cannot be audited stays pending, and nothing more is judged for now.
        """
        self._publisher = publisher
        if self._running is None and self.pending and not self._audit.broken:
            running = self._running = Deferred.fromCoroutine(self._run())
            running.addBoth(self._ran).addErrback(self._on_failed)

    def _ran(self, result: _T) -> _T:
        self._running = None
        return result

    async def settled(self) -> None:
        """Wait until all that is pending is judged and the store has answered for it."""
        if self._running is not None:
            waiting: Deferred[None] = Deferred()
            self._running.addCallback(_fire, waiting)
            await waiting

    async def _run(self) -> None:
        """One batch is judged while the one before is on its way to the store.

        A channel whose record is on its way waits: what its node holds is not known yet. Who may
        lose a grant is judged before who may get one, which has to wait for that.
        """
        try:
            while True:
                waiting = [device for device in self.pending if device not in self._under_way]
                waiting.sort(key=self._has_no_grant)
                while waiting and self._publisher is not None and not self._audit.broken:
                    batch, waiting = waiting[:BATCH], waiting[BATCH:]
                    await self._decide([device for device in batch if device in self.pending])
                if self._under_way:
                    await self._published()
                elif waiting or not self.pending:
                    return
        finally:
            self._under_way = set()
            # Why it failed is told already; what is on its way still fails by itself.
            self._publishing.addErrback(_ignored)

    async def _decide(self, devices: list[Device]) -> None:
        """Judge devices, a slice at a time so that the store has work meanwhile; commit; send."""
        publisher, begun = self._publisher, perf_counter()
        batch = _Batch(self._state.seq, self._state.filters.seq)
        for start in range(0, len(devices), SLICE):
            if start:
                await deferLater(self._clock, 0)
            for device in devices[start : start + SLICE]:
                self.pending.pop(device, None)
                self._judge_one(device, batch)
        self._metrics.decide.add(perf_counter() - begun, len(devices))
        await self._published()
        if publisher is None or publisher is not self._publisher:
            return  # the connection is another one, and everything is read again
        # Nothing is committed that was judged by what has changed since, or is gone.
        for device in [it for it in batch.made if it in self.pending or it.gone]:
            self.pending.pop(device, None)
            self._judge_one(device, batch)
        self._put_off(batch)
        fresh = batch.fresh
        begun = perf_counter()
        lines: list[events.Event] = list(batch.filtered)
        lines += [_line(batch.now, device, made.text) for device, _, made in fresh]
        if not self._audit.commit(lines, [(device.path, made) for device, _, made in fresh]):
            self.pending.update(dict.fromkeys(batch.made))
            return
        self._metrics.audit.add(perf_counter() - begun, len(fresh))
        self._under_way = set(batch.made)
        self._publishing = Deferred.fromCoroutine(self._publish(publisher, batch))

    def _has_no_grant(self, device: Device) -> bool:
        """Whether the last decision on a channel is no grant."""
        entry = self._state.ledger.get(device.path)
        return entry is None or entry.decision.verdict != "grant"

    def _put_off(self, batch: _Batch) -> None:
        """Where a batch takes grants back, it gives none: they are judged by what it took."""
        fresh = batch.fresh
        if any(_takes_back(before, entry) for _, before, entry in fresh):
            for device, _, entry in fresh:
                if entry.decision.verdict == "grant":
                    del batch.made[device]
                    self.pending[device] = None

    async def _published(self) -> None:
        """Wait for the batch on its way, if there is one."""
        publishing, self._publishing = self._publishing, succeed(None)
        await publishing
        self._under_way = set()

    def _judge_one(self, device: Device, batch: _Batch) -> None:
        """Judge one channel; what becomes of it goes into the batch."""
        batch.made.pop(device, None)
        before = self._state.ledger.get(device.path)
        made = _Made(before, None, fresh=False)
        if device.channel is not None and not device.gone:
            made = self._judge_channel(device, before, batch)
        batch.made[device] = made

    def _judge_channel(self, device: Device, before: Entry | None, batch: _Batch) -> _Made:
        judged = self._judge.judge(device)
        told = self._filtered(device, judged.decision, batch)
        step = plan(judged.decision, before, device.published)
        if step.foreign and device not in self._retries:
            self._tampered(device, before)
        if judged.spent:
            self._audit.alarm(f"nonce of {device}", f"was used before, {judged.spent}")
        if step.action == "publish":
            return _Made(before, before, fresh=False, told=told)
        if step.action == "decide" and self._affordable(device, judged.decision, before):
            try:
                entry = make_entry(device, judged.decision, batch.seq + 1, self._key)
            except RecordError as error:
                self._audit.alarm(f"record of {device}", str(error))
            else:
                batch.seq += 1
                return _Made(before, entry, fresh=True, told=told)
        return _Made(before, None, fresh=False, told=told)

    def _filtered(self, device: Device, decision: Decision, batch: _Batch) -> FilterText | None:
        """The filter record that goes before a vif's grant; where it changed, numbered.

        Raises:
            RecordError, BindError: it cannot be made; the judge denies such a vif.
        """
        if device.device_class != VIF or decision.verdict != "grant":
            return None
        told = self._filters.record(device, decision, batch.filter_seq + 1)
        batch.filter_seq += told is not None and told.fresh
        return told

    def _affordable(self, device: Device, decision: Decision, entry: Entry | None) -> bool:
        """Whether this may be decided: a new life is on the account of the backend's domain.

        What may not be is left undecided, and so closed: the record there is of another life.
        """
        backend = device.backend
        if entry is None or not backend or decision.nonce == entry.decision.nonce:
            return True
        if self._audit.may_renew(device, decision.nonce):
            return True
        self._on_overspent(backend)
        return False

    def tell(self, event: Told, devices: Iterable[tuple[Device, Entry | None]]) -> None:
        """Tell the subscribers."""
        if self.subscribers:
            for device, before in devices:
                for subscriber in list(self.subscribers):
                    subscriber(event, device, before)

    async def _publish(self, publisher: Publisher, batch: _Batch) -> None:
        """Write a batch's records, denials first; then tell whom it concerns.

        A vif's filters are in the store before its grant is, or it is not granted yet.
        """
        unfiltered = await self._tell_filters(batch)
        writes = [
            (device, it.entry)
            for device, it in batch.made.items()
            if it.entry is not None and device not in unfiltered
        ]
        writes.sort(key=_denials_first)
        if writes:
            begun = perf_counter()
            answers = await publisher.records([(device, entry.text) for device, entry in writes])
            self._metrics.publish.add(perf_counter() - begun, len(writes))
            self._answered(zip(writes, answers, strict=True))
        fresh = batch.fresh
        if fresh:
            self._audit.decided([(device, entry) for device, _, entry in fresh])
            self.tell("decision", [(device, before) for device, before, _ in fresh])
        self._on_decided(batch.made, [device for device, _, _ in fresh])

    async def _tell_filters(self, batch: _Batch) -> set[Device]:
        """Tell of a batch's filters; the vifs for which the store did not take it."""
        told = [(device, it.told) for device, it in batch.made.items() if it.told is not None]
        answers = await self._telling.records([it for _, it in told]) if told else []
        failed: set[Device] = set()
        for (device, it), error in zip(told, answers, strict=True):
            if error is not None:
                failed.add(device)
                self._try_again(device)
                self._audit.unpublished(it.path, self._state.filters.seq, escape(str(error)))
            elif batch.made[device].entry is None:
                self._retries.pop(device, None)
        return failed

    def _answered(self, answers: Iterable[tuple[tuple[Device, Entry], StoreError | None]]) -> None:
        """Note which records the store took; the others are tried again."""
        taken: list[int] = []
        for (device, entry), error in answers:
            if error is None:
                device.published = entry.text
                self._retries.pop(device, None)
                taken.append(entry.seq)
                continue
            self._try_again(device)
            self._audit.unpublished(device.path, entry.seq, escape(str(error)))
        if taken:
            self._audit.note(events.Published(time.time(), tuple(taken)))

    def _try_again(self, device: Device) -> None:
        delay = min(self._retries.get(device, FIRST_RETRY / 2) * 2, LONGEST_RETRY)
        self._retries[device] = delay
        self._clock.callLater(delay, self._retry, device)

    def _retry(self, device: Device) -> None:
        if device.gone:
            self._retries.pop(device, None)
        elif device in self._retries:
            self.pending[device] = None
            self._on_retry()

    def _tampered(self, device: Device, entry: Entry | None) -> None:
        held = escape(device.published or b"", 120)
        instead = "nothing" if entry is None else f"record {entry.seq}"
        self._audit.alarm(device.path, f"does not hold {instead}, but: {held}")


class _Made(msgspec.Struct, frozen=True):
    """One channel judged: the entry before, what to publish if anything, and whether it is new.

    `told` is the filter record that has to be there with a vif's grant.
    """

    before: Entry | None
    entry: Entry | None
    fresh: bool
    told: FilterText | None = None


class _Batch:
    """What is judged and committed together, in the order of the records' numbers."""

    def __init__(self, seq: int, filter_seq: int) -> None:
        self.now = time.time()
        self.seq = seq
        self.filter_seq = filter_seq
        self.made: dict[Device, _Made] = {}

    @property
    def filtered(self) -> list[events.Filtered]:
        """The filter records that are news, by their numbers."""
        return [
            events.Filtered(self.now, it.told.path, it.told.text.decode("ascii"))
            for it in self.made.values()
            if it.told is not None and it.told.fresh
        ]

    @property
    def fresh(self) -> list[tuple[Device, Entry | None, Entry]]:
        """What is decided anew: the device, the entry before, and the new one."""
        return [
            (device, it.before, it.entry)
            for device, it in self.made.items()
            if it.fresh and it.entry is not None
        ]


def _line(now: float, device: Device, text: bytes) -> events.Decided:
    record = text.decode("ascii")
    return events.Decided(now, device.path, record, record_id(record))


def _takes_back(before: Entry | None, entry: Entry) -> bool:
    former = None if before is None else before.decision
    return taken_back(former, entry.decision, entry.seq) is not None


def _fire(_: None, waiting: Deferred[None]) -> None:
    waiting.callback(None)


def _ignored(_: Failure) -> None:
    return None


def _denials_first(item: tuple[Device, Entry]) -> bool:
    """Sorts what closes before what opens."""
    return item[1].decision.verdict == "grant"
