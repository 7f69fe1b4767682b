"""From judged channels to records in the store: audit intent, publish, audit outcome."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

from twisted.internet.defer import Deferred

from broker.core.plan import plan
from broker.core.record import RecordError, record_id
from broker.service import events
from broker.service.judge import make_entry
from broker.text.escape import escape

Told = Literal["decision", "report", "gone"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from broker.core.channels import Decision
    from broker.core.plan import Entry
    from broker.service.audit import Audit
    from broker.service.judge import Judge
    from broker.service.mirror import Device
    from broker.service.publisher import Publisher

    Subscriber = Callable[[Told, Device, Entry | None], None]
    """Called with what happened, the device, and the entry before."""

BATCH: Final = 512
"""Decisions in one turn: one fdatasync, one pipelined write."""
FIRST_RETRY: Final = 0.25
LONGEST_RETRY: Final = 60.0
"""Seconds until a record the store did not take is tried again; doubled each time."""


class Decider:
    """The channels that wait to be judged, and what becomes of them.

    `on_decided(judged, fresh)` tells which devices were judged, and which of them anew;
    `on_retry()` that something is pending again, `on_overspent(domid)` that a backend domain
    asks for more decisions than may be written down, `on_failed(failure)` that publishing failed.
    """

    def __init__(
        self,
        audit: Audit,
        judge: Judge,
        key: Ed25519PrivateKey,
        clock: IReactorTime,
        *,
        on_decided: Callable[[Iterable[Device], Iterable[Device]], None],
        on_retry: Callable[[], None],
        on_overspent: Callable[[int], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self.pending: dict[Device, None] = {}
        self.subscribers: list[Subscriber] = []
        self._audit = audit
        self._state = audit.state
        self._judge = judge
        self._key = key
        self._clock = clock
        self._on_decided = on_decided
        self._on_retry = on_retry
        self._on_overspent = on_overspent
        self._on_failed = on_failed
        self._finishing: Deferred[None] | None = None
        self._retries: dict[Device, float] = {}

    @property
    def unpublished(self) -> int:
        """Records that the store has not taken yet."""
        return len(self._retries)

    def clear(self) -> None:
        """Everything will be read and judged anew."""
        self.pending.clear()
        self._retries.clear()

    async def decide(self, publisher: Publisher) -> None:
        """Judge what is pending, at most a batch; what cannot be audited stays pending.

        Records are sent when it returns, not yet answered for: the next turn's reading goes on
        meanwhile, on the same connection. One batch is on its way at a time.
        """
        await self.settled()
        devices = list(self.pending)
        del devices[BATCH:]
        batch = _Batch(self._state.seq)
        for device in devices:
            if device.channel is not None and not device.gone:
                self._judge_one(device, batch)
        if not self._audit.commit(batch.lines, batch.entries):
            return
        for device in devices:
            self.pending.pop(device, None)
        self._finishing = Deferred.fromCoroutine(self._finish(publisher, devices, batch))
        self._finishing.addErrback(self._on_failed)

    async def settled(self) -> None:
        """Wait until the store has answered for all that was sent."""
        if self._finishing is not None:
            waiting: Deferred[None] = Deferred()
            self._finishing.addCallback(_fire, waiting)
            await waiting

    async def _finish(self, publisher: Publisher, devices: list[Device], batch: _Batch) -> None:
        if batch.writes:
            batch.writes.sort(key=_denials_first)
            await self._publish(publisher, batch.writes)
        if batch.fresh:
            pairs = zip(batch.fresh, batch.entries, strict=True)
            self._audit.decided([(device, entry) for (device, _), (_, entry) in pairs])
            self.tell("decision", batch.fresh)
        self._on_decided(devices, [device for device, _ in batch.fresh])

    def _judge_one(self, device: Device, batch: _Batch) -> None:
        """Judge one channel; what is new about it goes into the batch."""
        judged = self._judge.judge(device)
        entry = self._state.ledger.get(device.path)
        step = plan(judged.decision, entry, device.published)
        if step.foreign and device not in self._retries:
            self._tampered(device, entry)
        if judged.spent:
            self._audit.alarm(f"nonce of {device}", f"was used before, {judged.spent}")
        if step.action == "publish" and entry is not None:
            batch.writes.append((device, entry))
        elif step.action == "decide":
            if not self._affordable(device, judged.decision, entry):
                return
            try:
                made = make_entry(device, judged.decision, batch.seq + 1, self._key)
            except RecordError as error:
                self._audit.alarm(f"record of {device}", str(error))
                return
            batch.seq += 1
            text = made.text.decode("ascii")
            batch.lines.append(events.Decided(batch.now, device.path, text, record_id(text)))
            batch.entries.append((device.path, made))
            batch.fresh.append((device, entry))
            batch.writes.append((device, made))

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

    async def _publish(self, publisher: Publisher, writes: list[tuple[Device, Entry]]) -> None:
        answers = await publisher.records([(device, entry.text) for device, entry in writes])
        taken: list[int] = []
        for (device, entry), error in zip(writes, answers, strict=True):
            if error is None:
                device.published = entry.text
                self._retries.pop(device, None)
                taken.append(entry.seq)
                continue
            delay = min(self._retries.get(device, FIRST_RETRY / 2) * 2, LONGEST_RETRY)
            self._retries[device] = delay
            self._clock.callLater(delay, self._retry, device)
            self._audit.unpublished(device.path, entry.seq, escape(str(error)))
        if taken:
            self._audit.note(events.Published(time.time(), tuple(taken)))

    def _retry(self, device: Device) -> None:
        if device in self._retries and not device.gone:
            self.pending[device] = None
            self._on_retry()

    def _tampered(self, device: Device, entry: Entry | None) -> None:
        held = escape(device.published or b"", 120)
        instead = "nothing" if entry is None else f"record {entry.seq}"
        self._audit.alarm(device.path, f"does not hold {instead}, but: {held}")


class _Batch:
    """What one turn decides: lines to audit, entries for the state, records to publish."""

    def __init__(self, seq: int) -> None:
        self.now = time.time()
        self.seq = seq
        self.lines: list[events.Event] = []
        self.entries: list[tuple[str, Entry]] = []
        self.fresh: list[tuple[Device, Entry | None]] = []
        self.writes: list[tuple[Device, Entry]] = []


def _fire(_: None, waiting: Deferred[None]) -> None:
    waiting.callback(None)


def _denials_first(item: tuple[Device, Entry]) -> bool:
    """Sorts what closes before what opens."""
    return item[1].decision.verdict == "grant"
