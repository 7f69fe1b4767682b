"""Every kind of line in the audit log: what it says, in JSON.

A line is a JSON object: `event` names its kind, `t` is seconds since 1970, UTC; how it is numbered
and chained is `broker.audit.chain`'s. The broker's durable state is a fold over these lines
(`state.py`); kinds that change no state are there for people. Text from guests is escaped before
it gets here. Where somebody acted, `subject` is who, and `role` in which role.
"""

from __future__ import annotations

import json
from typing import Final, Literal

import msgspec

from broker.audit.checkpoint import Checkpoint
from broker.audit.segments import Segment
from broker.core.definition import Action  # noqa: TC001 - msgspec reads the annotations
from broker.core.order import Kind  # noqa: TC001 - msgspec reads the annotations

Bound = Literal["uuid", "name"]
Request = tuple[str, str, str, str | None, Literal["r", "w"]]
"""Class, labels of frontend and backend, resource, mode."""
Dropped = Literal["expired", "rejected", "withdrawn"]


class Line(msgspec.Struct, frozen=True, tag_field="event", forbid_unknown_fields=True):
    """What all lines have."""

    t: float


class Started(Line, frozen=True, tag="started"):
    """The broker started; `note` says what was repaired or accepted (`--init`)."""

    version: str
    note: str = ""


class Accepted(Line, frozen=True, tag="accepted"):
    """`--init` set the counters above what was found published."""

    seq: int
    beat: int


class Stopped(Line, frozen=True, tag="stopped"):
    """A clean stop: every record and gate is left as it is."""


class LabelSet(Line, frozen=True, tag="label_set"):
    """A label was assigned to a uuid or to a name."""

    bound: Bound
    key: str
    label: str
    policy: str | None
    subject: str
    role: str = ""


class LabelExported(Line, frozen=True, tag="label_exported"):
    """A ticket of a domain's label is signed, good until `expires`."""

    uuid: str
    label: str
    expires: int
    subject: str
    role: str = ""


class LabelRemoved(Line, frozen=True, tag="label_removed"):
    """The label of a uuid or a name was taken away."""

    bound: Bound
    key: str
    subject: str
    role: str = ""


class Admitted(Line, frozen=True, tag="admitted"):
    """A domain appeared, or was labelled anew: the order of these lines is that of admission."""

    domid: int
    uuid: str | None
    label: str | None


class Released(Line, frozen=True, tag="released"):
    """A domain is gone, dying included."""

    domid: int


class Decided(Line, frozen=True, tag="decided"):
    """The intent to publish a decision record: its path, exact text, and the `id` in that."""

    path: str
    text: str
    id: str


class Published(Line, frozen=True, tag="published"):
    """The outcome of publishing: the records (by seq) that the store took."""

    seqs: tuple[int, ...]


class Unpublished(Line, frozen=True, tag="unpublished"):
    """The store did not take a record; it is tried again."""

    path: str
    seq: int
    error: str


class Vanished(Line, frozen=True, tag="vanished"):
    """A channel's device is gone; `removed`: its node was removed, else dom0's helper does."""

    path: str
    removed: bool


class Confirmed(Line, frozen=True, tag="confirmed"):
    """A backend's agent says that what record `seq` revoked on a path is closed."""

    path: str
    seq: int


class PolicyLoaded(Line, frozen=True, tag="policy_loaded"):
    """A policy is put in force; its bytes are in `policy-<hex>.yaml`.

    `renames` are labels that have another name in it, by the former one. `approver` is the
    second person, where one was needed, and `proposal` what he approved; all other proposals
    were to replace what is in force no more, and are gone. `signer` is the id of the key that
    signed it, where it came signed.
    """

    name: str
    version: str
    digest: str
    replaces: str | None
    subject: str
    renames: dict[str, str] = {}
    role: str = ""
    approver: str = ""
    approver_role: str = ""
    proposal: str = ""
    signer: str = ""


class PolicyProposed(Line, frozen=True, tag="policy_proposed"):
    """A policy waits for a second person; its bytes are in `proposal-<hex>.yaml`.

    `governs` are the governed keys that it changes; `person` who may not approve it.
    """

    id: str
    name: str
    version: str
    digest: str
    replaces: str | None
    source: str
    governs: tuple[str, ...]
    subject: str
    role: str
    person: str
    expires: float
    signer: str = ""


class PolicyDropped(Line, frozen=True, tag="policy_dropped"):
    """A proposal waits no more; by nobody (`subject` empty) if it expired."""

    id: str
    why: Dropped
    subject: str
    role: str


class PolicyRefused(Line, frozen=True, tag="policy_refused"):
    """A policy was not loaded; the one before stays in force."""

    source: str
    problems: tuple[str, ...]
    subject: str
    role: str = ""


class Beat(Line, frozen=True, tag="beat"):
    """Heartbeat counters below `upto` may have been used."""

    upto: int


class Quarantined(Line, frozen=True, tag="quarantined"):
    """A domain is held apart until its label is set again."""

    uuid: str
    domid: int
    reason: str


class QuarantineLifted(Line, frozen=True, tag="quarantine_lifted"):
    """An administrator labelled the domain anew."""

    uuid: str
    subject: str
    role: str = ""


class Sanctioned(Line, frozen=True, tag="sanctioned"):
    """A channel is closed because `party` broke its protocol, in the life `nonce` (None: any).

    `uuid` is the blamed domain's, where one is.
    """

    path: str
    nonce: str | None
    action: Action
    party: str
    uuid: str | None
    reason: str


class Damped(Line, frozen=True, tag="damped"):
    """A domain that broke a protocol waits for new channels until `until`; `count` times by now."""

    uuid: str
    count: int
    until: float


class Observed(Line, frozen=True, tag="observed"):
    """Observe mode granted what the policy denies, on `channel`; once for each request."""

    asked: Request
    channel: str


class FilterStored(Line, frozen=True, tag="filter_stored"):
    """A filter profile is in force now; its bytes are in `filter-<hex>.yaml`.

    `replaces` is the digest of the one before, None where there was none.
    """

    name: str
    digest: str
    replaces: str | None
    subject: str
    role: str = ""


class FilterDestroyed(Line, frozen=True, tag="filter_destroyed"):
    """A filter profile is no more; of a shipped one, the shipped text holds again."""

    name: str
    digest: str
    subject: str
    role: str = ""


class FilterAttached(Line, frozen=True, tag="filter_attached"):
    """A profile is on the vifs of a uuid or a name: on one of them, or (`device` empty) on all."""

    bound: Bound
    key: str
    device: str
    profile: str
    given: dict[str, tuple[str, ...]]
    subject: str
    role: str = ""


class FilterDetached(Line, frozen=True, tag="filter_detached"):
    """A profile is taken off again."""

    bound: Bound
    key: str
    device: str
    profile: str
    subject: str
    role: str = ""


class Filtered(Line, frozen=True, tag="filtered"):
    """The intent to publish a vif's filter record: its path and exact text."""

    path: str
    text: str


class ProfilesTold(Line, frozen=True, tag="profiles_told"):
    """The intent to publish other profiles' texts: the head's exact text."""

    text: str


class Ordered(Line, frozen=True, tag="ordered"):
    """The intent to have dom0's agent do something: the order's kind, what about, its text."""

    seq: int
    id: str
    kind: Kind
    channel: str
    domid: int
    uuid: str
    text: str
    subject: str
    role: str = ""


class OrderEnded(Line, frozen=True, tag="order_ended"):
    """How an order ended, by dom0's agent or for want of its answer."""

    seq: int
    id: str
    ok: bool
    how: str


class Violation(Line, frozen=True, tag="violation"):
    """A domain did what it may not; it changes no authority."""

    domid: int
    uuid: str | None
    channel: str
    rule: str
    detail: str


class Alarm(Line, frozen=True, tag="alarm"):
    """Somebody changed what is the broker's to write, or something needs an operator."""

    subject: str
    detail: str


class CallDenied(Line, frozen=True, tag="call_denied"):
    """Somebody asked for what his role may not, or was not let in; it had no effect."""

    subject: str
    role: str
    verb: str
    detail: str


class Repeated(Line, frozen=True, tag="repeated"):
    """Lines that were counted instead of written, since the last such line."""

    subject: str
    count: int


class Reported(Line, frozen=True, tag="reported"):
    """A backend's agent said what it enforces."""

    channel: str
    text: str


Event = (
    Started
    | Accepted
    | Stopped
    | LabelSet
    | LabelExported
    | LabelRemoved
    | Admitted
    | Released
    | Decided
    | Published
    | Unpublished
    | Vanished
    | Confirmed
    | PolicyLoaded
    | PolicyRefused
    | PolicyProposed
    | PolicyDropped
    | Beat
    | Quarantined
    | QuarantineLifted
    | Sanctioned
    | Damped
    | Observed
    | FilterStored
    | FilterDestroyed
    | FilterAttached
    | FilterDetached
    | Filtered
    | ProfilesTold
    | Ordered
    | OrderEnded
    | Violation
    | Alarm
    | CallDenied
    | Repeated
    | Reported
    | Segment
    | Checkpoint
)

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """An event as JSON in printable ASCII."""
    data = _ENCODER.encode(event)
    if data.isascii() and b"\x7f" not in data:
        return data
    words = json.dumps(msgspec.to_builtins(event), separators=(",", ":"))
    return words.replace("\x7f", "\\u007f").encode("ascii")


def decode_event(data: bytes) -> Event:
    """Read one event.

    Raises:
        msgspec.MsgspecError: it is not JSON, or no event as written here.
    """
    return _DECODER.decode(data)
