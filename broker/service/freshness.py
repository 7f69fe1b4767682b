"""Whether the durable state is as new as what is published; a state that is older is refused."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from broker.core.record import RecordError, parse_record, verify_heartbeat, verify_record
from broker.service import events
from broker.service.statedir import RefusedError
from broker.xenstore import paths
from broker.xenstore.errors import StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from broker.service.audit import Audit
    from broker.service.mirror import Mirror
    from broker.xenstore.client import StoreConnection

_PLAUSIBLE: Final = 1 << 53
"""With `--init`, a number above this was never counted to, and is not gone on from."""
SEQ_PER_SECOND: Final = 1024
"""More decisions than any broker makes in the long run, so that the time is above its numbers."""


async def check_freshness(
    connection: StoreConnection,
    mirror: Mirror,
    audit: Audit,
    key: Ed25519PublicKey,
    *,
    init: bool,
) -> None:
    """Compare the state's counters with what the store holds under our signature.

    With `init`, the state's counters are raised above whatever is published instead, so that
    no number is ever used twice; and above what agents may remember of records that are gone:
    a state without numbers, or one that was behind, goes on from the time of day.

    Raises:
        RefusedError: something published is newer than the state.
        StoreError: the connection is lost.
    """
    state = audit.state
    seq, where = state.seq, ""
    for device in mirror.devices():
        text = device.published
        entry = state.ledger.get(device.path)
        if text and (entry is None or entry.text != text):
            published = _seq(text, None if init else key)
            if published > seq:
                seq, where = published, device.path
    (heartbeat,) = await connection.read_many([paths.HEARTBEAT])
    beat = state.beat
    if not isinstance(heartbeat, StoreError):
        published = _beat(heartbeat, None if init else key)
        if published > beat:
            beat, where = published, where or paths.HEARTBEAT
    if init and (where or not state.seq):
        now = time.time()
        accepted = events.Accepted(now, max(seq, int(now) * SEQ_PER_SECOND), max(beat, int(now)))
        if not audit.commit([accepted]):
            raise RefusedError(f"the audit log cannot be written: {audit.broken}")
    elif where:
        raise RefusedError(
            f"the state is older than what is published: {where} holds number "
            f"{seq if seq > state.seq else beat}, the state ends at "
            f"{state.seq if seq > state.seq else state.beat}; restore the newest state directory, "
            "or start with --init to go on above what is published"
        )


def _seq(text: bytes, key: Ed25519PublicKey | None) -> int:
    try:
        record = parse_record(text) if key is None else verify_record(text, key)
    except RecordError:
        return -1
    return record.seq if record.seq < _PLAUSIBLE else -1


def _beat(text: bytes, key: Ed25519PublicKey | None) -> int:
    if key is not None:
        try:
            return verify_heartbeat(text, key)
        except RecordError:
            return -1
    digits = text.partition(b" ")[0]
    counter = int(digits) if digits.isdigit() and len(digits) < 20 else -1
    return counter if counter < _PLAUSIBLE else -1
