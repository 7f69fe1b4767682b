"""The durable state: a fold over the audit log's events, and nothing else.

Every change is an event that is on the disk before `apply` sees it, so that a restart, a crash
included, finds the same state again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from broker.core.channels import decision_of
from broker.core.definition import Action  # noqa: TC001 - msgspec reads the annotations
from broker.core.plan import Entry
from broker.core.record import RecordError, parse_record
from broker.core.revocations import Unconfirmed, taken_back
from broker.core.sanctions import Damping
from broker.service import events
from broker.service.filter_state import FilterState
from broker.xenstore import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_SPENT_NONCES: Final = 32_768
"""Nonces remembered as used; the oldest is forgotten first."""
MAX_DAMPED: Final = 32_768
"""Uuids remembered as having broken a protocol; the longest ago is forgotten first."""
MAX_OBSERVED: Final = 1000
"""Requests remembered that observe mode granted; what comes after is not."""
MAX_ONCE_LABELLED: Final = 32_768
"""Uuids remembered as once labelled, so that none is adopted twice."""


class Assignment(msgspec.Struct, frozen=True):
    """A stored label: which, under which policy's name it was given, by whom, when."""

    label: str
    policy: str | None
    subject: str
    t: float


class Admission(msgspec.Struct, frozen=True):
    """A domain's admission: its uuid and the label it was admitted with."""

    uuid: str | None
    label: str | None


class Proposal(msgspec.Struct, frozen=True):
    """A policy that waits for a second person, as `events.PolicyProposed` says."""

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
    proposed: float
    expires: float
    signer: str = ""


class Sanction(msgspec.Struct, frozen=True):
    """Why a channel is closed in one life (of any, where `nonce` is None)."""

    nonce: str | None
    action: Action
    reason: str

    def holds(self, nonce: str | None) -> bool:
        """Whether it is about the life of that nonce (None: not known, so it may be)."""
        return self.nonce is None or nonce in (None, self.nonce)

    @property
    def words(self) -> str:
        """A denial's reason; the agent takes the device away where it begins with the action."""
        first = "closed" if self.action == "close" else self.action
        return f"{first}: {self.reason}"


class State:
    """What the journal says. Mappings that have an order have the journal's."""

    def __init__(self) -> None:
        self.labels: dict[tuple[events.Bound, str], Assignment] = {}
        self.once_labelled: dict[str, None] = {}
        self.admissions: dict[int, Admission] = {}
        self.ledger: dict[str, Entry] = {}
        self.spent: dict[str, str] = {}
        self.quarantine: dict[str, str] = {}
        self.revocations = Unconfirmed()
        self.sanctions: dict[str, Sanction] = {}
        self.observed: dict[events.Request, str] = {}
        self.damping: dict[str, Damping] = {}
        self.policy_digest: str | None = None
        self.loaded: events.PolicyLoaded | None = None
        self.proposals: dict[str, Proposal] = {}
        self.versions: dict[str, tuple[int, int]] = {}
        self.seq = 0
        self.order_seq = 0
        self.beat = 0
        self.started = False
        self.filters = FilterState()
        self._effects: dict[type, Callable[[Any], None]] = {
            events.Decided: self._apply_decided,
            events.Admitted: self._apply_admitted,
            events.Released: self._apply_released,
            events.Vanished: self._apply_vanished,
            events.Confirmed: self._apply_confirmed,
            events.Sanctioned: self._apply_sanctioned,
            events.Damped: self._apply_damped,
            events.Observed: self._apply_observed,
            events.LabelSet: self._relabel,
            events.LabelRemoved: self._relabel,
            events.PolicyLoaded: self._apply_policy,
            events.PolicyProposed: self._apply_proposed,
            events.PolicyDropped: self._apply_dropped,
            events.Ordered: self._apply_ordered,
            events.Beat: self._apply_beat,
            events.Accepted: self._apply_accepted,
            events.Quarantined: self._apply_quarantined,
            events.QuarantineLifted: self._apply_lifted,
            events.Started: self._apply_started,
            **self.filters.effects,
        }

    def apply(self, event: events.Event) -> None:
        """Take one event in; kinds without an effect on the state are passed over.

        Raises:
            ValueError: the event cannot follow what came before: the journal is corrupt.
        """
        effect = self._effects.get(type(event))
        if effect is not None:
            effect(event)

    def _apply_decided(self, event: events.Decided) -> None:
        self.decided(event.path, event.text.encode("ascii"))

    def _apply_admitted(self, event: events.Admitted) -> None:
        # The order of the mapping is the order of admission.
        self.admissions.pop(event.domid, None)
        self.admissions[event.domid] = Admission(event.uuid, event.label)

    def _apply_released(self, event: events.Released) -> None:
        self.admissions.pop(event.domid, None)

    def _apply_vanished(self, event: events.Vanished) -> None:
        self.ledger.pop(event.path, None)
        self.revocations.drop(event.path)
        self.sanctions.pop(event.path, None)
        self.filters.vanished(event.path)

    def _apply_sanctioned(self, event: events.Sanctioned) -> None:
        self.sanctions[event.path] = Sanction(event.nonce, event.action, event.reason)

    def _apply_observed(self, event: events.Observed) -> None:
        if len(self.observed) < MAX_OBSERVED:
            self.observed.setdefault(event.asked, event.channel)

    def _apply_damped(self, event: events.Damped) -> None:
        self.damping.pop(event.uuid, None)
        self.damping[event.uuid] = Damping(event.count, event.until)
        if len(self.damping) > MAX_DAMPED:
            del self.damping[next(iter(self.damping))]

    def _apply_confirmed(self, event: events.Confirmed) -> None:
        revocation = self.revocations.get(event.path)
        if revocation is not None and revocation.seq <= event.seq:
            self.revocations.drop(event.path)

    def _apply_policy(self, event: events.PolicyLoaded) -> None:
        self.policy_digest = event.digest
        self.loaded = event
        major, _, minor = event.version.partition(".")
        version = (int(major), int(minor))
        self.versions[event.name] = max(version, self.versions.get(event.name, version))
        self.proposals.clear()
        self.observed.clear()
        self._rename(event.renames)

    def _apply_proposed(self, event: events.PolicyProposed) -> None:
        self.proposals[event.id] = Proposal(
            id=event.id,
            name=event.name,
            version=event.version,
            digest=event.digest,
            replaces=event.replaces,
            source=event.source,
            governs=event.governs,
            subject=event.subject,
            role=event.role,
            person=event.person,
            proposed=event.t,
            expires=event.expires,
            signer=event.signer,
        )

    def _apply_dropped(self, event: events.PolicyDropped) -> None:
        self.proposals.pop(event.id, None)

    def _apply_ordered(self, event: events.Ordered) -> None:
        self.order_seq = max(self.order_seq, event.seq)

    def _apply_beat(self, event: events.Beat) -> None:
        self.beat = max(self.beat, event.upto)

    def _apply_accepted(self, event: events.Accepted) -> None:
        # Every channel is decided anew under a number above the accepted one: agents refuse
        # records that are older than what they have seen.
        self.ledger.clear()
        self.spent.clear()
        self.revocations.clear()
        self.seq = max(self.seq, event.seq)
        self.filters.raise_to(event.seq)
        self.beat = max(self.beat, event.beat)

    def _apply_quarantined(self, event: events.Quarantined) -> None:
        self.quarantine[event.uuid] = event.reason

    def _apply_lifted(self, event: events.QuarantineLifted) -> None:
        self.quarantine.pop(event.uuid, None)

    def _apply_started(self, _: events.Started) -> None:
        self.started = True

    def decided(self, path: str, text: bytes, entry: Entry | None = None) -> None:
        """Take a decision in; `entry` spares parsing what was just made.

        Raises:
            ValueError: the text is no record of this path, or its number was used before.
        """
        if entry is None:
            entry = _entry(path, text)
        if entry.seq <= self.seq:
            raise ValueError(f"{path}: seq {entry.seq} follows {self.seq}")
        self.seq = entry.seq
        before = self.ledger.get(path)
        self.ledger[path] = entry
        self._revoked(path, before, entry)
        nonce = entry.decision.nonce
        if nonce is not None and self.spent.get(nonce) != path:
            self.spent[nonce] = path
            if len(self.spent) > MAX_SPENT_NONCES:
                del self.spent[next(iter(self.spent))]

    def _revoked(self, path: str, before: Entry | None, entry: Entry) -> None:
        """Note a grant taken back; granted again, it is the agent's to close before it opens."""
        if entry.decision.verdict == "grant":
            self.revocations.drop(path)
            return
        former = None if before is None else before.decision
        revocation = taken_back(former, entry.decision, entry.seq)
        if revocation is not None:
            self.revocations.add(path, revocation)

    def restore(self, ledger: Mapping[str, str]) -> None:
        """Take the last decisions of all paths from a snapshot.

        Raises:
            ValueError: one of them is no record of its path.
        """
        self.ledger = {path: _entry(path, text.encode("ascii")) for path, text in ledger.items()}

    def label_of(self, uuid: str | None, name: str | None) -> str | None:
        """The label assigned to a domain: by its uuid, else by its name."""
        if uuid is not None and (by_uuid := self.labels.get(("uuid", uuid))) is not None:
            return by_uuid.label
        if name is not None and (by_name := self.labels.get(("name", name))) is not None:
            return by_name.label
        return None

    def spent_on(self, nonce: str, path: str, uuid: str | None) -> str:
        """Where a nonce was used before, in words; empty if it may serve `uuid` on `path` now."""
        used = self.spent.get(nonce)
        if used is None:
            return ""
        if used != path:
            return f"on {used}"
        entry = self.ledger.get(path)
        if entry is None or (entry.decision.nonce, entry.decision.uuid) != (nonce, uuid):
            return "in an earlier life of this device"
        return ""

    def _rename(self, renames: Mapping[str, str]) -> None:
        """Labels keep their domains, and domains their place, under a new name."""
        for key, assignment in self.labels.items():
            new = renames.get(assignment.label)
            if new is not None:
                self.labels[key] = msgspec.structs.replace(assignment, label=new)
        for domid, admission in self.admissions.items():
            new = renames.get(admission.label or "")
            if new is not None:
                self.admissions[domid] = Admission(admission.uuid, new)

    def _relabel(self, event: events.LabelSet | events.LabelRemoved) -> None:
        key = (event.bound, event.key)
        if isinstance(event, events.LabelSet):
            self.labels[key] = Assignment(event.label, event.policy, event.subject, event.t)
        else:
            self.labels.pop(key, None)
        if event.bound == "uuid":
            self.once_labelled[event.key] = None
            if len(self.once_labelled) > MAX_ONCE_LABELLED:
                del self.once_labelled[next(iter(self.once_labelled))]


def _entry(path: str, text: bytes) -> Entry:
    try:
        record = parse_record(text)
    except RecordError as error:
        raise ValueError(f"{path}: {error}") from None
    channel = paths.Channel(record.backend, record.device_class, record.frontend, record.device)
    if paths.decision_path(channel) != path:
        raise ValueError(f"{path} holds the record of {channel}")
    return Entry(record.seq, text, decision_of(record))
