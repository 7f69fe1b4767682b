"""The agent's rule: what a backend domain does about one channel, given what it can see.

Pure: the text of the decision node, the agent's own memory and what it observed go in; one
action and what to remember come out. Opening needs everything to be in order; closing what is
live needs a signed `deny` that is newer than all accepted before; in every other case things
are left as they are. What is open without ever having been granted, and was not already open
when the agent first came to this host, is closed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from broker.core.filter_record import is_filtered
from broker.core.observation import is_observed
from broker.core.record import Record, RecordError, verify_heartbeat, verify_record

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Action = Literal["open", "hold", "suspend", "close"]
"""`hold` leaves the gate as it is; `suspend` closes a vif reversibly; `close` revokes."""

STALE_AFTER: Final = 10.0
"""Seconds without a new heartbeat after which nothing new opens; one is sent every 2 s."""
FINAL_WORDS: Final = frozenset({"final", "quarantine", "quarantined", "reset", "destroy"})
"""A denial whose reason begins with one of these also takes the device away."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One life of one device, as its backend's agent knows it.

    The first four name the channel, from the node's path. `nonce` is the one reported for this
    life, None before that. `inputs` is `inputs_digest` of what is about to be used, None while
    it cannot be told (unreadable, or the toolstack's copy says otherwise). `found_open` is
    whether it was already open when the agent first saw it, at the agent's own start. `told` is
    whether whoever waits for it to open was told: a kill may come in between.
    """

    backend: int
    device_class: str
    frontend: int
    device: str
    nonce: str | None
    inputs: str | None
    found_open: bool = False
    told: bool = True


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a record, and a restart of the agent: per path, kept on disk.

    `seq` and `digest` (SHA-256 of the text) are the last accepted record's; seq is -1 before the
    first. `granted` is the nonce of the life that a grant was last acted upon for and that was
    not since denied: what may stay open. `denied` is whether a denial was accepted and no good
    grant since. `label` is the frontend's in the last good grant, `policy` the digest of the
    policy that the last accepted record was decided under. `filtered` is whether the last good
    grant was for a vif that has filter profiles.
    """

    seq: int = -1
    digest: str = ""
    granted: str | None = None
    denied: bool = False
    label: str | None = None
    policy: str | None = None
    filtered: bool = False


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, why, and what to remember (durably, before it is done).

    `seq` is that of the record this rests on, None if there is none. `refused` is whether this
    very life was denied, `final` whether for good. `withheld` is whether only a fresh heartbeat
    is missing to open.
    """

    action: Action
    reason: str
    memory: Memory
    seq: int | None
    refused: bool = False
    final: bool = False
    withheld: bool = False


NOTHING: Final = Memory()


def judge(
    text: bytes | None,
    key: Ed25519PublicKey,
    life: Life,
    memory: Memory,
    *,
    fresh: bool,
    gate_open: bool,
    allow_observe: bool = False,
) -> Judgement:
    """Apply the rule to one channel.

    Args:
        text: the decision node's value; None or empty if there is none.
        key: the broker's.
        life: the device's present life.
        memory: what was remembered of this path.
        fresh: whether the broker's heartbeat is alive (`Heartbeat.fresh`).
        gate_open: whether the kernel shows the gate open at this moment.
        allow_observe: whether a grant of observe mode is one here. If not it is what it says it
            would be: a denial.
    """
    try:
        record = _accept(text, key, life, memory)
    except RecordError as error:
        return _unanswered(str(error), life, memory, gate_open=gate_open)
    if record.verdict == "grant" and is_observed(record.reason) and not allow_observe:
        reason = f"allow_observe is not set here; {record.reason}"
        record = msgspec.structs.replace(record, verdict="deny", reason=reason)
    opened = memory.granted == life.nonce
    may_stay = opened or (life.found_open and not memory.denied)
    memory = _remember(record, text or b"", life, memory)
    if record.verdict == "deny":
        refused = life.nonce is not None and record.nonce == life.nonce
        final = refused and is_final(record.reason)
        reason = record.reason or "denied"
        judgement = _denied(reason, life, memory, final=final, gate_open=gate_open)
        return msgspec.structs.replace(judgement, refused=refused)
    if record.verdict == "pending":
        reason = f"pending: {record.reason}" if record.reason else "pending"
        return _unanswered(reason, life, memory, gate_open=gate_open)
    refusal = _why_not_ours(record, life)
    if refusal is not None:
        return _unanswered(refusal, life, memory, gate_open=gate_open)
    if gate_open and not may_stay:
        # Somebody else was quicker, with who knows what: closed, and then opened by ourselves.
        return _judgement(_closing(life), "opened by another before it was granted", memory)
    acted_upon = msgspec.structs.replace(memory, granted=life.nonce)
    if gate_open and (life.told or not opened):
        return _judgement("hold", "granted and open", acted_upon)
    if not fresh:
        reason = "granted, but the broker's heartbeat has stopped"
        return _judgement("hold", reason, memory, withheld=True)
    return _judgement("open", record.reason or "granted", acted_upon)


def _accept(text: bytes | None, key: Ed25519PublicKey, life: Life, memory: Memory) -> Record:
    """The record in `text`, if it is authentic, of this path, and not older than what was seen.

    Raises:
        RecordError: it is not; the message says why.
    """
    if not text:
        raise RecordError("no decision yet")
    record = verify_record(text, key)
    path = (life.backend, life.device_class, life.frontend, life.device)
    if (record.backend, record.device_class, record.frontend, record.device) != path:
        raise RecordError("record of another channel")
    if record.seq < memory.seq:
        raise RecordError(f"record seq {record.seq} is older than {memory.seq}, seen before")
    if record.seq == memory.seq and _digest(text) != memory.digest:
        raise RecordError(f"a second record with seq {record.seq}")
    return record


def _remember(record: Record, text: bytes, life: Life, memory: Memory) -> Memory:
    granted, denied, label = memory.granted, memory.denied, memory.label
    filtered = memory.filtered
    if record.verdict == "deny":
        granted, denied, label = None, True, None
    elif record.verdict == "grant" and _why_not_ours(record, life) is None:
        denied, label, filtered = False, record.labels[0], is_filtered(record.reason)
    return Memory(
        seq=record.seq,
        digest=_digest(text),
        granted=granted,
        denied=denied,
        label=label,
        policy=record.policy or memory.policy,
        filtered=filtered,
    )


def _why_not_ours(record: Record, life: Life) -> str | None:
    """Why a grant does not open this life of the device, or None if it does."""
    if life.nonce is None or record.nonce != life.nonce:
        return "granted to another life of the device"
    if life.inputs is None:
        return "granted, but what is about to be used cannot be told"
    if record.inputs != life.inputs:
        return "granted for other inputs than those about to be used"
    return None


def _unanswered(reason: str, life: Life, memory: Memory, *, gate_open: bool) -> Judgement:
    """No good grant and no new denial: what is rightly open stays, nothing opens."""
    if memory.denied:
        reason = f"denied before; now: {reason}"
        return _denied(reason, life, memory, final=False, gate_open=gate_open)
    if not gate_open:
        return _judgement("hold", reason, memory)
    if life.nonce is not None and memory.granted == life.nonce:
        return _judgement("hold", f"stays open: {reason}", memory)
    if life.found_open:
        return _judgement("hold", f"found open, stays until answered: {reason}", memory)
    return _judgement(_closing(life), f"open without a grant: {reason}", memory)


def _denied(reason: str, life: Life, memory: Memory, *, final: bool, gate_open: bool) -> Judgement:
    if final:
        return _judgement("close", reason, memory, final=True)
    if not gate_open:
        return _judgement("hold", reason, memory)
    return _judgement(_closing(life), reason, memory)


def _closing(life: Life) -> Action:
    """A vif is suspended, which its guest can outlive; anything else has to be revoked."""
    return "suspend" if life.device_class == "vif" else "close"


def _judgement(
    action: Action, reason: str, memory: Memory, *, final: bool = False, withheld: bool = False
) -> Judgement:
    seq = None if memory.seq < 0 else memory.seq
    return Judgement(
        action=action, reason=reason, memory=memory, seq=seq, final=final, withheld=withheld
    )


def is_final(reason: str) -> bool:
    """Whether a denial for this reason is for good: its first word is in `FINAL_WORDS`."""
    return reason.replace(":", " ", 1).partition(" ")[0].lower() in FINAL_WORDS


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


class Heartbeat:
    """Whether the broker lives, from its signed counter and the caller's monotonic clock.

    A counter found in the store proves nothing, it may be a dead broker's: only one that
    *grows* while it is watched does, beyond any that was seen before (`floor`, durable).
    """

    def __init__(self, key: Ed25519PublicKey, floor: int = -1) -> None:
        self._key = key
        self._baseline: int | None = None
        self._grew_at: float | None = None
        self.floor = floor

    def observe(self, text: bytes | None, now: float) -> str | None:
        """Take in the node's value (None or empty: no node) at `now`, monotonic seconds.

        Returns:
            Why the value was refused, or None.
        """
        if not text:
            if self._baseline is None:
                self._baseline = self.floor
            return None
        try:
            counter = verify_heartbeat(text, self._key)
        except RecordError as error:
            return str(error)
        if self._baseline is None:
            self._baseline = max(counter, self.floor)
        elif counter > self._baseline:
            self._baseline = counter
            self._grew_at = now
        self.floor = self._baseline
        return None

    def unwatched(self) -> None:
        """The node was out of sight: what it holds next may be a dead broker's last."""
        self._baseline = None

    def fresh(self, now: float) -> bool:
        """Whether the counter grew within the last `STALE_AFTER` seconds."""
        return self._grew_at is not None and now - self._grew_at < STALE_AFTER
