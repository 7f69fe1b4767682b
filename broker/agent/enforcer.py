"""From slots that may have changed to gates that are as they should be, in one pass.

look at the directories → settle which life each is → judge (broker/core/consumer.py) → close, and
meanwhile save and report nonces → judge again what is to open → open → look again → report what is
enforced. Nothing opens before what allowed it is on disk, and closing waits for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from twisted.internet import defer
from twisted.logger import Logger

from broker.agent.durable import Known
from broker.agent.gates.base import Device, GateError, NotReadyError
from broker.agent.judging import Judge
from broker.agent.lives import Sight, Slot
from broker.agent.reports import Outcome, Reports
from broker.agent.ungated import Gates, Refusals
from broker.text.escape import escape
from broker.xenstore.paths import Channel
from broker.xenstore.together import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from broker.agent.bridges import Bridges
    from broker.agent.config import BootstrapDevice
    from broker.agent.dismissal import Dismissals
    from broker.agent.durable import DurableState
    from broker.agent.lives import BackendDirs
    from broker.agent.ungated import Destroy
    from broker.agent.vif_filters import NotHeld, VifFilters
    from broker.core.consumer import Judgement
    from broker.xenstore.client import StoreConnection


class _Case(msgspec.Struct, kw_only=True):
    """One slot on its way through a pass."""

    slot: Slot
    known: Known
    sight: Sight
    judgement: Judgement
    was_open: bool
    failure: str = ""
    waits: bool = False
    retry: bool = False


class Enforcer:
    """Holds a domain's gates to the broker's decisions.

    `refused(frontend, reason)` destroys the domain of any life that was denied (strict mode),
    `ungated` of one that no gate closes. `bridges` holds vifs' frames to labels, where configured;
    `filters` knows what else they are held to.
    """

    log = Logger()

    def __init__(
        self,
        *,
        domid: int,
        dirs: BackendDirs,
        gates: Gates,
        durable: DurableState,
        key: Ed25519PublicKey,
        connection: Callable[[], StoreConnection],
        fresh: Callable[[], bool],
        dismissals: Dismissals,
        bootstrap: Sequence[BootstrapDevice] = (),
        refused: Destroy | None = None,
        ungated: Destroy | None = None,
        bridges: Bridges | NotHeld | None = None,
        filters: VifFilters | None = None,
        allow_observe: bool = False,
    ) -> None:
        self.reports = Reports(connection)
        self.outcomes: dict[Slot, Outcome] = {}
        self.withheld: set[Slot] = set()
        """Slots that open once the heartbeat is fresh again."""
        self.lost: set[Slot] = set()
        """Slots whose devices the store has lost, and that stay open as long as they are."""
        self.looked = 0
        """How many gates were looked at or moved so far."""
        self._domid = domid
        self._dirs = dirs
        self._gates = gates
        self._durable = durable
        self._judging = Judge(
            domid=domid,
            gates=gates,
            key=key,
            connection=connection,
            fresh=fresh,
            bootstrap=bootstrap,
            allow_observe=allow_observe,
        )
        self._fresh = fresh
        self._dismissals = dismissals
        self._bridges = bridges
        self._filters = filters
        self._connection = connection
        self._refusals = Refusals(refused, ungated, {it.uuid for it in bootstrap})
        self._sights: dict[Slot, Sight] = {}
        self._others: dict[Channel, Slot] = {}
        """The slots whose channels are not named as they are: a qdisk's is a vbd."""

    def slots(self) -> list[Slot]:
        """Every slot with a life that is known."""
        return [Slot.parse(key) for key, it in self._durable.saved.slots.items() if it.nonce]

    def slots_of(self, channel: Channel) -> list[Slot]:
        """Where this channel's device may be."""
        plain = Slot(channel.device_class, channel.frontend, channel.device)
        other = self._others.get(channel)
        return [plain] if other is None else [plain, other]

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
        shown: dict[Slot, bool] = {}
        unseen: set[Slot] = set()
        for slot, sight in sights.items():
            self.lost.discard(slot)
            self.looked += 1
            try:
                alive = await self._settle(slot, sight, starting=starting)
                if alive is not None:
                    shown[slot] = self._gates[slot.kind].observe(alive.device).open
            except GateError as error:
                # One device that cannot be looked at is no reason to leave others as they are.
                self.log.warn("{slot}: {error}", slot=slot, error=escape(str(error)))
                unseen.add(slot)
                continue
            if alive is not None:
                settled[slot] = alive
        cases = await self._judged(settled, shown)
        # Before anything that takes its time: what is to be closed is on its way to be.
        closing = self._begin([it for it in cases if it.judgement.action in {"close", "suspend"}])
        try:
            await self._look_at_filters(cases)
            saved = self._save()
            if self._bridges is not None:
                may_move = saved and self._fresh()
                closing += self._begin(
                    self._hold_to_labels(self._bridges, cases, may_move=may_move)
                )
            await self._report_nonces(cases)
        finally:
            await together(*closing)
        opening = [case for case in cases if case.judgement.action == "open"]
        if saved:
            opening = await self._still(opening)
            await together(*self._begin(opening))
        else:
            for case in opening:
                case.failure, case.retry = "granted, but the agent's state cannot be saved", True
        await self._conclude(cases)
        return unseen | {case.slot for case in cases if case.retry}

    async def release(self, slot: Slot) -> None:
        """The toolstack takes the device away: close it and give back what it holds."""
        known, sight = self._known(slot), self._sights.get(slot)
        if known.nonce:
            await self._let_go(slot, known, sight)

    def sweep(self) -> None:
        """Give back what a crash left behind: all but what open devices use."""
        nonces = set()
        for key, known in self._durable.saved.slots.items():
            outcome = self.outcomes.get(Slot.parse(key))
            if known.nonce and (outcome is None or outcome.state in {"open", "failed"}):
                nonces.add(known.nonce)
        for gate in self._gates.all():
            gate.sweep(nonces)

    async def _settle(self, slot: Slot, sight: Sight, *, starting: bool) -> Sight | None:
        """The sight of the slot's present life, begun now if it is a new one."""
        known = self._known(slot)
        nonce, channel = sight.device.nonce, sight.device.channel
        if channel.device_class != slot.kind and not sight.elsewhere:
            self._others[channel] = slot
        if known.nonce and nonce == known.nonce and sight.inputs == known.inputs:
            self._sights[slot] = sight
            return sight
        # Left alone is only what was open before anything was ever known of this place.
        unknown = not known.nonce and known.memory.seq < 0
        found_open = starting and unknown and self._gates[slot.kind].observe(sight.device).open
        if known.nonce:
            why = "its inputs changed" if nonce == known.nonce else "another took its place"
            self.log.info("{slot}: a device's life is over: {why}", slot=slot, why=why)
            await self._let_go(slot, known, self._sights.get(slot))
        if (begun := await self._dirs.begin(slot)) is None:
            return None
        known.nonce, known.inputs = begun.device.nonce, begun.inputs
        known.found_open, known.state = found_open, "closed"
        self._sights[slot] = begun
        found = "found open, stays until answered" if known.found_open else "a device's life begins"
        self.log.info("{slot}: {found}, {nonce}", slot=slot, found=found, nonce=known.nonce)
        return begun

    async def _gone(self, slot: Slot, *, resync: bool) -> None:
        """The slot's directory is gone: so is its life, unless it may be the store that is."""
        known = self._durable.saved.slots.get(str(slot))
        if known is None or not known.nonce:
            return
        blank = self._device(slot, known, None)
        if (resync or slot in self.lost) and self._gates[slot.kind].observe(blank).open:
            if slot not in self.lost:
                self.log.warn("{slot}: not in the store, but open: stays", slot=slot)
            self.lost.add(slot)
            return
        self.lost.discard(slot)
        self.log.info("{slot}: a device's life is over: it is gone", slot=slot)
        sight = self._sights.pop(slot, None)
        await self._let_go(slot, known, sight)
        if sight is not None:
            self._others.pop(sight.device.channel, None)
        self._refusals.forget(known.nonce)
        known.nonce, known.inputs, known.found_open, known.state = "", "", False, "closed"
        self.outcomes.pop(slot, None)
        self.withheld.discard(slot)
        self.reports.forget(slot)

    async def _let_go(self, slot: Slot, known: Known, sight: Sight | None) -> None:
        self._dismissals.forget(known.nonce)
        try:
            await self._gates[slot.kind].release(self._device(slot, known, sight))
        except GateError as error:
            self.log.warn("{slot}: {error}", slot=slot, error=escape(str(error)))

    async def _judged(self, sights: dict[Slot, Sight], shown: dict[Slot, bool]) -> list[_Case]:
        cases: list[_Case] = []
        for slot, text in (await self._judging.texts(sights)).items():
            known, sight = self._known(slot), sights[slot]
            gate_open = shown[slot]
            if not gate_open:
                known.found_open = False  # what was found open and then closed is like any other
            judgement = self._judging.judge(slot, known, sight, text, gate_open=gate_open)
            known.memory = judgement.memory
            (self.withheld.add if judgement.withheld else self.withheld.discard)(slot)
            cases.append(
                _Case(slot=slot, known=known, sight=sight, judgement=judgement, was_open=gate_open)
            )
        return cases

    async def _still(self, opening: list[_Case]) -> list[_Case]:
        """Those that would be opened now, after what took its time; the others are tried again."""
        if not opening:
            return []
        sights = await self._dirs.look([case.slot for case in opening])
        texts = await self._judging.texts(sights)
        kept: list[_Case] = []
        for case in opening:
            sight, known = sights.get(case.slot), case.known
            same = sight is not None and (sight.device.nonce, sight.inputs) == (
                known.nonce,
                known.inputs,
            )
            if sight is not None and same:
                text, device = texts[case.slot], sight.device
                gate_open = self._gates[case.slot.kind].observe(device).open
                now = self._judging.judge(case.slot, known, sight, text, gate_open=gate_open)
                if now.action == "open":
                    case.sight = sight
                    kept.append(case)
                    continue
            case.failure, case.retry = "granted, but something changed meanwhile", True
        return kept

    def _hold_to_labels(
        self, bridges: Bridges | NotHeld, cases: list[_Case], *, may_move: bool
    ) -> list[_Case]:
        """What stays open has the class of its label, or is to be suspended until it has: these."""
        bridges.follow([case.known.memory for case in cases])
        bridges.follow_filters(may_move=may_move)
        suspended: list[_Case] = []
        for case in cases:
            if case.slot.kind != "vif" or case.judgement.action != "hold" or not case.was_open:
                continue
            why = bridges.keep(case.sight.device, may_move=may_move)
            if why:
                case.judgement = msgspec.structs.replace(
                    case.judgement, action="suspend", reason=why
                )
                suspended.append(case)
        return suspended

    async def _look_at_filters(self, cases: list[_Case]) -> None:
        """Know what the frames of these vifs are held to, before any of them opens."""
        vifs = [(it.sight.device.channel, it.known) for it in cases if it.slot.kind == "vif"]
        if self._filters is not None and vifs:
            await self._filters.look(self._connection(), vifs)

    def _save(self) -> bool:
        try:
            self._durable.save()
        except OSError as error:
            self.log.warn("the agent's state cannot be saved, nothing opens: {e}", e=error)
            return False
        return True

    def _begin(self, cases: Iterable[_Case]) -> list[defer.Deferred[None]]:
        """Have these gates moved, beside each other."""
        return [defer.Deferred.fromCoroutine(self._act(case)) for case in cases]

    async def _act(self, case: _Case) -> None:
        """Move one gate; whatever goes wrong, the gate counts as failed and is tried again."""
        gate, device, judgement = self._gates[case.slot.kind], case.sight.device, case.judgement
        self.looked += 1
        try:
            if judgement.action == "open":
                await gate.open(device)
            elif judgement.action == "suspend":
                await gate.suspend(device)
            else:
                await gate.revoke(device, final=judgement.final)
            # Closed without a denial: a grant may be there that could not be acted upon.
            case.retry = judgement.action != "open" and not judgement.memory.denied
        except NotReadyError as error:
            case.failure, case.waits, case.retry = f"{judgement.reason}, but {error}", True, True
            return
        except Exception as error:  # noqa: BLE001 - whatever a gate meets, it has failed
            case.failure, case.retry = str(error) or repr(error), True
            self.log.warn(
                "{slot}: to {what} it failed: {error}",
                slot=case.slot,
                what=judgement.action,
                error=escape(str(error)),
            )
            return
        self.log.info(
            "{slot}: {what} (seq {seq}): {why}",
            slot=case.slot,
            what={"open": "opened", "suspend": "suspended", "close": "revoked"}[judgement.action],
            seq="-" if judgement.seq is None else judgement.seq,
            why=escape(judgement.reason),
        )

    async def _conclude(self, cases: list[_Case]) -> None:
        """Look again at what was moved, and report."""
        moved = [case.slot for case in cases if case.judgement.action != "hold"]
        again = await self._dirs.look(moved) if moved else {}
        outcomes: list[tuple[_Case, Outcome]] = []
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
            shut = outcome.refused and outcome.state == "closed"
            self._dismissals.note(case.sight.device, refused=shut)
            outcomes.append((case, outcome))
        self._save()
        failed = await self.reports.outcomes(
            [(case.slot, case.sight.device.channel, outcome) for case, outcome in outcomes]
        )
        _retry(cases, failed)

    async def _report_nonces(self, cases: list[_Case]) -> None:
        lives = [
            (case.slot, case.sight.device.channel, case.known.nonce)
            for case in cases
            if not case.sight.elsewhere
        ]
        _retry(cases, await self.reports.nonces(lives))

    def _outcome(self, case: _Case, *, gone: bool) -> Outcome:
        known, judgement, unclosed = case.known, case.judgement, case.sight.unclosed
        is_open = not gone and self._gates[case.slot.kind].observe(case.sight.device).open
        suspended = judgement.action == "suspend" or (
            known.state == "suspended" and known.memory.denied
        )
        granted = known.memory.granted == known.nonce
        reason = case.failure or judgement.reason
        if unclosed and not granted:
            reason = f"{unclosed}: {reason}"
        if (judgement.refused and unclosed and not gone) or (
            is_open and judgement.action in {"close", "suspend"}
        ):
            state = "failed"
        elif is_open:
            state, reason = "open", "granted" if granted else reason
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
        if not outcome.refused or outcome.state == "open":
            return
        slot, seq = case.slot, outcome.seq
        why = f"{slot} is denied (seq {seq}): {case.judgement.reason}"
        case.retry |= self._refusals.tell(
            outcome.nonce, slot.frontend, case.sight.uuid, why, case.sight.unclosed
        )

    def _known(self, slot: Slot) -> Known:
        return self._durable.saved.slots.setdefault(str(slot), Known())

    def _device(self, slot: Slot, known: Known, sight: Sight | None) -> Device:
        channel = Channel(self._domid, slot.kind, slot.frontend, slot.device)
        values: dict[str, bytes] = {}
        if sight is not None:
            channel, values = sight.device.channel, sight.device.values
        return Device(channel=channel, kind=slot.kind, values=values, nonce=known.nonce)


def _retry(cases: list[_Case], slots: set[Slot]) -> None:
    for case in cases:
        case.retry |= case.slot in slots
