"""The durable state as one file: what a new segment of the audit log goes on from.

It is bound to the log from both sides: the segment's first line names the file's SHA-256, and the
file the last line that it is the state of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.revocations import Revocation, Unconfirmed
from broker.core.sanctions import Damping  # noqa: TC001 - msgspec reads the annotations
from broker.service.events import (  # noqa: TC001 - msgspec reads the annotations
    Bound,
    PolicyLoaded,
    Request,
)
from broker.service.filter_state import Kept
from broker.service.state import Admission, Assignment, Proposal, Sanction, State

if TYPE_CHECKING:
    from broker.audit.chain import Head


class SnapshotError(ValueError):
    """The file does not hold a state, or one of another line of the log."""


class _Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bound: Bound
    key: str
    assigned: Assignment


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # Mappings stand as they are, in their order: to make others of them takes the broker's time.
    n: int
    hash: str
    seq: int
    order_seq: int
    beat: int
    policy_digest: str | None
    labels: tuple[_Label, ...]
    once_labelled: dict[str, None]
    admissions: dict[int, Admission]
    ledger: dict[str, str]
    spent: dict[str, str]
    quarantine: dict[str, str]
    proposals: dict[str, Proposal]
    versions: dict[str, tuple[int, int]]
    revocations: tuple[tuple[str, Revocation], ...]
    sanctions: dict[str, Sanction]
    observed: tuple[tuple[Request, str], ...]
    damping: dict[str, Damping]
    loaded: PolicyLoaded | None = None
    filters: Kept = Kept()


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Snapshot)


def encode_snapshot(state: State, head: Head) -> bytes:
    """The state as of the line `head`."""
    return _ENCODER.encode(
        _Snapshot(
            n=head.n,
            hash=head.hash.decode("ascii"),
            seq=state.seq,
            order_seq=state.order_seq,
            beat=state.beat,
            policy_digest=state.policy_digest,
            labels=tuple(_Label(*key, assigned) for key, assigned in state.labels.items()),
            once_labelled=state.once_labelled,
            admissions=state.admissions,
            ledger={path: entry.text.decode("ascii") for path, entry in state.ledger.items()},
            spent=state.spent,
            quarantine=state.quarantine,
            proposals=state.proposals,
            versions=state.versions,
            revocations=tuple(state.revocations.items()),
            sanctions=state.sanctions,
            observed=tuple(state.observed.items()),
            damping=state.damping,
            filters=state.filters.kept(),
            loaded=state.loaded,
        )
    )


def decode_snapshot(data: bytes, head: Head) -> State:
    """The state that a file holds, which has to be the one as of the line `head`.

    Raises:
        SnapshotError: it is not.
    """
    try:
        kept = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise SnapshotError("not a state of the broker") from None
    if (kept.n, kept.hash.encode("ascii", "replace")) != (head.n, head.hash):
        raise SnapshotError(f"the state as of line {kept.n}, not of {head.n}")
    state = State()
    state.started = True
    state.labels = {(label.bound, label.key): label.assigned for label in kept.labels}
    state.once_labelled = kept.once_labelled
    state.admissions = kept.admissions
    try:
        state.restore(kept.ledger)
        state.filters.restore(kept.filters)
    except (ValueError, UnicodeEncodeError) as error:
        raise SnapshotError(str(error)) from None
    state.spent = kept.spent
    state.quarantine = kept.quarantine
    state.proposals = kept.proposals
    state.versions = kept.versions
    state.revocations = Unconfirmed(kept.revocations)
    state.sanctions = kept.sanctions
    state.observed = dict(kept.observed)
    state.damping = kept.damping
    state.loaded = kept.loaded
    state.policy_digest = kept.policy_digest
    state.seq, state.order_seq, state.beat = kept.seq, kept.order_seq, kept.beat
    return state
