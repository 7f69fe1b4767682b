"""From slots that may have changed to gates that are as they should be, in one pass.

look at the directories → settle which life each is → judge (broker/core/consumer.py) → save →
report nonces → close → open → look again → report what is enforced. Nothing opens before what
allowed it is on disk; closing waits for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from twisted.internet import defer
from twisted.logger import Logger

from broker.agent.durable import Known
from broker.agent.gates.base import Device, GateError, NotReadyError
from broker.agent.lives import Sight, Slot
from broker.core.consumer import Judgement, Life, judge
from broker.core.record import encode_value
from broker.text.escape import escape
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.paths import Channel, decision_path, report_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from broker.agent.config import BootstrapDevice
    from broker.agent.durable import DurableState
    from broker.agent.gates.base import Gate
    from broker.agent.lives import BackendDirs
    from broker.xenstore.client import StoreConnection

_REASON_LIMIT: Final = 400
"""Characters of a reason in a report: it has to fit a node with room to spare."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a slot stands after a pass: `state` as reported, whether this life was denied, why."""

    state: str
    refused: bool
    seq: int | None
    nonce: str
    reason: str


class _Case(msgspec.Struct, kw_only=True):
    """One slot on its way through a pass."""

    slot: Slot
    known: Known
    sight: Sight
    judgement: Judgement
    failure: str = ""
    waits: bool = False
    retry: bool = False


class Enforcer:
    """Holds a domain's gates to the broker's decisions. `gates` has one for each backend kind.

    `refused(frontend, reason)` is called once for each life that was denied.
    """

    log = Logger()

    def __init__(
        self,
        *,
        domid: int,
        dirs: BackendDirs,
        gates: dict[str, Gate],
        durable: DurableState,
        key: Ed25519PublicKey,
        connection: Callable[[], StoreConnection],
        fresh: Callable[[], bool],
        bootstrap: Sequence[BootstrapDevice] = (),
        refused: Callable[[int, str], None] | None = None,
    ) -> None:
        self.outcomes: dict[Slot, Outcome] = {}
        self.withheld: set[Slot] = set()
        """Slots that open once the heartbeat is fresh again."""
        self._domid = domid
        self._dirs = dirs
        self._gates = gates
        self._durable = durable
        self._key = key
        self._connection = connection
        self._fresh = fresh
        self._bootstrap = bootstrap
        self._refused = refused
        self._refusals: set[str] = set()
        self._sights: dict[Slot, Sight] = {}
        self._reported: dict[Slot, tuple[str, str]] = {}

    def slots(self) -> list[Slot]:
        """Every slot with a life that is known."""
        slots = self._durable.saved.slots
        return [_slot(key) for key, known in slots.items() if known.nonce]

    def forget_reports(self) -> None:
        """The store may have lost what was reported: report all again."""
        self._reported.clear()

    def has_reported(self, slot: Slot) -> bool:
        """Whether all there is to report on this slot is in the store."""
        return bool(self._reported.get(slot, ("", ""))[1])

    async def enforce(
        self, slots: Iterable[Slot], *, starting: bool = False, resync: bool = False
    ) -> set[Slot]:
        """One pass over `slots`; returns those to be tried again later.

        Args:
            slots: those that may have changed.
            starting: the agent has just come to this host: what is open now was found open.
            resync: the store was just connected: what is missing may be the store's loss.

        Raises:
            StoreError: the store refuses to be read; nothing was opened.
        """
        wanted = [slot for slot in dict.fromkeys(slots) if slot.kind in self._gates]
        sights = await self._dirs.look(wanted)
        for slot in wanted:
            if slot not in sights:
                await self._gone(slot, resync=resync)
        settled: dict[Slot, Sight] = {}
        for slot, sight in sights.items():
            alive = await self._settle(slot, sight, starting=starting)
            if alive is not None:
                settled[slot] = alive
        cases = await self._judged(settled)
        saved = self._save()
        await self._report_nonces(cases)
        closing = [case for case in cases if case.judgement.action in {"close", "suspend"}]
        opening = [case for case in cases if case.judgement.action == "open"]
        await defer.gatherResults([defer.Deferred.fromCoroutine(self._act(it)) for it in closing])
        if saved:
            acts = [defer.Deferred.fromCoroutine(self._act(it)) for it in opening]
            await defer.gatherResults(acts)
        else:
            for case in opening:
                case.failure, case.retry = "granted, but the agent's state cannot be saved", True
        await self._conclude(cases)
        return {case.slot for case in cases if case.retry}

    async def release(self, slot: Slot) -> None:
        """The toolstack takes the device away: close it and give back what it holds."""
        known, sight = self._known(slot), self._sights.get(slot)
        if known.nonce:
            await self._let_go(slot, known, sight)

    def sweep(self) -> None:
        """Give back what a crash left behind: all but what open devices use."""
        nonces = set()
        for key, known in self._durable.saved.slots.items():
            outcome = self.outcomes.get(_slot(key))
            if known.nonce and (outcome is None or outcome.state in {"open", "failed"}):
                nonces.add(known.nonce)
        for gate in self._gates.values():
            gate.sweep(nonces)

    async def _settle(self, slot: Slot, sight: Sight, *, starting: bool) -> Sight | None:
        """The sight of the slot's present life, begun now if it is a new one."""
        known = self._known(slot)
        nonce = sight.device.nonce
        if known.nonce and nonce == known.nonce and sight.inputs == known.inputs:
            self._sights[slot] = sight
            return sight
        was_open = self._gates[slot.kind].observe(sight.device).open
        if known.nonce:
            why = "its inputs changed" if nonce == known.nonce else "another took its place"
            self.log.info("{slot}: a device's life is over: {why}", slot=_name(slot), why=why)
            if not (starting and was_open):
                await self._let_go(slot, known, self._sights.get(slot))
        begun = await self._dirs.begin(slot)
        if begun is None:
            return None
        known.nonce, known.inputs = begun.device.nonce, begun.inputs
        known.found_open, known.state = starting and was_open, "closed"
        self._sights[slot] = begun
        found = "found open, stays until answered" if known.found_open else "a device's life begins"
        self.log.info("{slot}: {found}, {nonce}", slot=_name(slot), found=found, nonce=known.nonce)
        return begun

    async def _gone(self, slot: Slot, *, resync: bool) -> None:
        """The slot's directory is gone: so is its life, unless it may be the store that is."""
        known = self._durable.saved.slots.get(_key(slot))
        if known is None or not known.nonce:
            return
        blank = self._device(slot, known, None)
        if resync and self._gates[slot.kind].observe(blank).open:
            self.log.warn("{slot}: not in the store, but open: stays", slot=_name(slot))
            return
        self.log.info("{slot}: a device's life is over: it is gone", slot=_name(slot))
        await self._let_go(slot, known, self._sights.pop(slot, None))
        known.nonce, known.inputs, known.found_open, known.state = "", "", False, "closed"
        self.outcomes.pop(slot, None)
        self.withheld.discard(slot)
        self._reported.pop(slot, None)

    async def _let_go(self, slot: Slot, known: Known, sight: Sight | None) -> None:
        try:
            await self._gates[slot.kind].release(self._device(slot, known, sight))
        except GateError as error:
            self.log.warn("{slot}: {error}", slot=_name(slot), error=escape(str(error)))

    async def _judged(self, sights: dict[Slot, Sight]) -> list[_Case]:
        slots = list(sights)
        paths = [decision_path(self._channel(slot)) for slot in slots]
        cases: list[_Case] = []
        for slot, text in zip(slots, await self._connection().read_many(paths), strict=True):
            if isinstance(text, ConnectionLostError):
                raise text
            known, sight = self._known(slot), sights[slot]
            judgement = self._judge(slot, known, sight, text)
            known.memory = judgement.memory
            (self.withheld.add if judgement.withheld else self.withheld.discard)(slot)
            cases.append(_Case(slot=slot, known=known, sight=sight, judgement=judgement))
        return cases

    def _judge(self, slot: Slot, known: Known, sight: Sight, text: bytes | StoreError) -> Judgement:
        gate_open = self._gates[slot.kind].observe(sight.device).open
        life = Life(
            backend=self._domid,
            device_class=slot.kind,
            frontend=slot.frontend,
            device=slot.device,
            nonce=known.nonce,
            inputs=sight.agreed,
            found_open=known.found_open,
        )
        record = text if isinstance(text, bytes) else None
        judgement = judge(
            record, self._key, life, known.memory, fresh=self._fresh(), gate_open=gate_open
        )
        if self._is_bootstrap(slot, sight):
            action = "hold" if gate_open else "open"
            reason = "a bootstrap device of the agent's own list"
            return msgspec.structs.replace(judgement, action=action, reason=reason, final=False)
        if judgement.action == "open" and sight.device.values.get("online") == b"0":
            reason = "granted, but the device is being removed"
            return msgspec.structs.replace(judgement, action="hold", reason=reason)
        return judgement

    def _is_bootstrap(self, slot: Slot, sight: Sight) -> bool:
        """Whether the local list names it; only where the toolstack's copy agrees."""
        params = sight.device.values.get("params", b"")
        return sight.agreed is not None and any(
            (it.uuid, it.device_class, str(it.devid), it.params.encode())
            == (sight.uuid, slot.kind, slot.device, params)
            for it in self._bootstrap
        )

    def _save(self) -> bool:
        try:
            self._durable.save()
        except OSError as error:
            self.log.warn("the agent's state cannot be saved, nothing opens: {e}", e=error)
            return False
        return True

    async def _act(self, case: _Case) -> None:
        """Move one gate; whatever goes wrong, the gate counts as failed and is tried again."""
        gate, device, judgement = self._gates[case.slot.kind], case.sight.device, case.judgement
        try:
            if judgement.action == "open":
                await gate.open(device)
            elif judgement.action == "suspend":
                await gate.suspend(device)
            else:
                await gate.revoke(device, final=judgement.final)
        except NotReadyError as error:
            case.failure = f"{judgement.reason}, but {error}"
            case.waits = case.retry = True
            return
        except Exception as error:  # noqa: BLE001 - whatever a gate meets, it has failed
            case.failure, case.retry = str(error) or repr(error), True
            self.log.warn(
                "{slot}: to {what} it failed: {error}",
                slot=_name(case.slot),
                what=judgement.action,
                error=escape(str(error)),
            )
            return
        self.log.info(
            "{slot}: {what} (seq {seq}): {why}",
            slot=_name(case.slot),
            what={"open": "opened", "suspend": "suspended", "close": "revoked"}[judgement.action],
            seq="-" if judgement.seq is None else judgement.seq,
            why=escape(judgement.reason),
        )

    async def _conclude(self, cases: list[_Case]) -> None:
        """Look again at what was moved, and report."""
        moved = [case.slot for case in cases if case.judgement.action != "hold"]
        again = await self._dirs.look(moved) if moved else {}
        items: list[tuple[str, bytes]] = []
        reported: list[tuple[_Case, str]] = []
        for case in cases:
            sight = again.get(case.slot)
            if sight is not None and sight.device.nonce == case.known.nonce:
                case.sight = self._sights[case.slot] = sight
            elif case.slot in moved:
                case.retry = True  # gone meanwhile: the next pass sees to it
                if not case.judgement.final:
                    continue
            outcome = self._outcome(case, gone=case.slot in moved and sight is None)
            self.outcomes[case.slot] = outcome
            case.known.state = outcome.state
            self._tell_refused(case, outcome)
            line = _line(outcome)
            nonce, last = self._reported.get(case.slot, ("", ""))
            # Only after its nonce, which may have been refused a moment ago and now would not be.
            if nonce == case.known.nonce and last != line:
                items.append(
                    (f"{report_dir(self._channel(case.slot))}/enforced", line.encode("ascii"))
                )
                reported.append((case, line))
        self._save()
        for (case, line), error in zip(
            reported, await self._connection().write_many(items), strict=True
        ):
            if error is None:
                self._reported[case.slot] = (case.known.nonce, line)
            else:
                self._report_failed(case, error)

    async def _report_nonces(self, cases: list[_Case]) -> None:
        news = [
            case for case in cases if self._reported.get(case.slot, ("", ""))[0] != case.known.nonce
        ]
        items = [
            (f"{report_dir(self._channel(case.slot))}/nonce", case.known.nonce.encode("ascii"))
            for case in news
        ]
        for case, error in zip(news, await self._connection().write_many(items), strict=True):
            if error is None:
                self._reported[case.slot] = (case.known.nonce, "")
            else:
                self._report_failed(case, error)

    def _report_failed(self, case: _Case, error: StoreError) -> None:
        if isinstance(error, ConnectionLostError):
            raise error
        # Usual for a moment in a driver domain: dom0's helper has not made the node yet.
        case.retry = True
        self.log.debug("{slot}: cannot report: {error}", slot=_name(case.slot), error=error)

    def _outcome(self, case: _Case, *, gone: bool) -> Outcome:
        known, judgement = case.known, case.judgement
        is_open = not gone and self._gates[case.slot.kind].observe(case.sight.device).open
        suspended = judgement.action == "suspend" or (
            known.state == "suspended" and known.memory.denied
        )
        reason = case.failure or judgement.reason
        if is_open and judgement.action in {"close", "suspend"}:
            state = "failed"
        elif is_open:
            state, granted = "open", known.memory.granted == known.nonce
            reason = "granted" if granted else judgement.reason
        elif case.failure and not case.waits:
            state = "failed"
        else:
            state = "suspended" if suspended else "closed"
        return Outcome(
            state=state,
            refused=judgement.refused,
            seq=judgement.seq,
            nonce=known.nonce,
            reason=reason,
        )

    def _tell_refused(self, case: _Case, outcome: Outcome) -> None:
        if not outcome.refused or outcome.state == "open" or self._refused is None:
            return
        if case.known.nonce not in self._refusals:
            self._refusals.add(case.known.nonce)
            self._refused(case.slot.frontend, outcome.reason)

    def _known(self, slot: Slot) -> Known:
        return self._durable.saved.slots.setdefault(_key(slot), Known())

    def _channel(self, slot: Slot) -> Channel:
        return Channel(self._domid, slot.kind, slot.frontend, slot.device)

    def _device(self, slot: Slot, known: Known, sight: Sight | None) -> Device:
        values = {} if sight is None else sight.device.values
        return Device(channel=self._channel(slot), kind=slot.kind, values=values, nonce=known.nonce)


def _line(outcome: Outcome) -> str:
    seq = "-" if outcome.seq is None else outcome.seq
    reason = encode_value(outcome.reason[:_REASON_LIMIT] or None)
    return f"{outcome.state} seq={seq} nonce={outcome.nonce} reason={reason}"


def _key(slot: Slot) -> str:
    return f"{slot.kind}/{slot.frontend}/{slot.device}"


def _slot(key: str) -> Slot:
    kind, frontend, device = key.split("/")
    return Slot(kind, int(frontend), device)


def _name(slot: Slot) -> str:
    return _key(slot)
