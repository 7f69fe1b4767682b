"""From the mirror and the durable state to standings and decisions: glue to the pure core."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from os import urandom
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.channels import Decision, Facts, Standing, decide, parse_nonce
from broker.core.domains import UNLABELLED, Life, standings
from broker.core.filter_record import FILTERED, as_filtered, is_filtered
from broker.core.observation import OBSERVED, is_observed
from broker.core.plan import Entry
from broker.core.record import Record, RecordError, sign_record
from broker.service import events
from broker.service.filters import VIF
from broker.service.state import Admission
from broker.text.escape import escape
from broker.xenstore import paths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from broker.core.channels import Memo
    from broker.core.policy import Policy
    from broker.service.filters import Filters
    from broker.service.mirror import Device, Domain, Mirror
    from broker.service.state import State

_UNKNOWN: Final = Standing(None, UNLABELLED, "the broker does not know it")


class Judged(msgspec.Struct, frozen=True):
    """One device judged: the decision, and where its reported nonce was used before, if so."""

    decision: Decision
    spent: str


class Judge:
    """Holds the policy, the descriptions, every domain's standing, and which grants wait."""

    def __init__(self, mirror: Mirror, state: State, *, adopt: bool) -> None:
        self.policy: Policy | None = None
        self.specs: Mapping[str, str] = {}
        self.standings: dict[int, Standing] = {}
        self._mirror = mirror
        self._state = state
        self.adopts = adopt
        self.waiting: dict[Device, None] = {}
        self.filters: Filters | None = None
        self.clock = time.time
        self._memo_policy: Policy | None = None
        self._memo: Memo = {}
        self._latest = 0.0
        self.observed = False
        """Whether anything was granted by observe mode alone."""

    @property
    def now(self) -> float:
        """POSIX seconds, never less than before: a clock set back does not bring back the past."""
        self._latest = max(self._latest, self.clock())
        return self._latest

    @property
    def observing(self) -> bool:
        """Whether observe mode opens anything now."""
        return self.policy is not None and self.policy.observing(self.now)

    def adoptions(self, now: float) -> list[events.Event]:
        """The labels found on domains that never had one, where configuration adopts them."""
        policy = self.policy
        if not self.adopts or policy is None:
            return []
        found: list[events.Event] = []
        for domain in self._mirror.domains.values():
            uuid = domain.uuid
            if domain.domid == 0 or uuid is None or uuid in self._state.once_labelled:
                continue
            if self._state.label_of(uuid, domain.name) is None:
                label, problem = _found_label(domain, policy)
                domain.refused_label = problem or domain.refused_label
                if label is not None and not problem:
                    found.append(
                        events.LabelSet(now, "uuid", uuid, label, policy.name, "adopted from /vm")
                    )
        return found

    def admissions(self, now: float) -> list[events.Event]:
        """Domains to be admitted: new ones by domid, and those with another label than before."""
        state = self._state
        result: list[events.Event] = []
        for domid in sorted(self._mirror.domains):
            domain = self._mirror.domains[domid]
            if domid == 0:
                continue
            label = state.label_of(domain.uuid, domain.name)
            if state.admissions.get(domid) != Admission(domain.uuid, label):
                result.append(events.Admitted(now, domid, domain.uuid, label))
        return result

    def restand(self) -> list[int]:
        """Judge all domains anew, in the order of admission; the domids whose standing changed."""
        before = self.standings
        self.standings = self.standings_under(self.policy, {})
        domids = before.keys() | self.standings.keys()
        return [it for it in domids if before.get(it) != self.standings.get(it)]

    def standings_under(
        self, policy: Policy | None, renames: Mapping[str, str]
    ) -> dict[int, Standing]:
        """How the live domains would stand under a policy that renames labels."""
        state = self._state
        lives = [Life(0, None, None)]
        for domid, admission in state.admissions.items():
            domain = self._mirror.domains.get(domid)
            if domain is None:
                continue
            uuid, label = admission.uuid, admission.label
            problem = domain.problem
            if not problem and label is None and uuid not in state.once_labelled:
                problem = domain.refused_label
            quarantine = state.quarantine.get(uuid, "") if uuid is not None else ""
            new_label = None if label is None else renames.get(label, label)
            lives.append(Life(domid, uuid, new_label, problem, quarantine))
        return standings(policy, lives)

    def standing(self, domid: int) -> Standing:
        """How a domain stands; one that is not known does not stand well."""
        return self.standings.get(domid, _UNKNOWN)

    def protects(self, domid: int) -> bool:
        """Whether the policy spares a domain whatever goes beyond one channel."""
        return self.policy is not None and self.standing(domid).label in self.policy.protected

    def judge(self, device: Device) -> Judged:
        """Decide one device, on the last known nonce where the reported one will not do.

        A grant that is news waits for the closing of what it must not meet.
        """
        judged = self.judge_by(self.policy, self.standings, device)
        self.waiting.pop(device, None)
        decision = judged.decision
        refusal = self._unfiltered(device, decision)
        if refusal:
            self.waiting[device] = None
            decision = msgspec.structs.replace(decision, verdict="deny", reason=refusal)
            return Judged(decision, judged.spent)
        if self._has_profiles(device, decision):
            reason = as_filtered(decision.reason)
            decision = msgspec.structs.replace(decision, reason=reason)
            judged = Judged(decision, judged.spent)
        self.observed |= is_observed(decision.reason)
        reason = self._withholds(device, decision)
        if not reason:
            return judged
        self.waiting[device] = None
        pending = msgspec.structs.replace(decision, verdict="pending", reason=reason)
        return Judged(self._withheld(device, pending), judged.spent)

    def _withholds(self, device: Device, decision: Decision) -> str:
        """Why a grant has to wait (empty: it need not, or it is none)."""
        if decision.verdict != "grant":
            return ""
        stranger = self._stranger(device)
        held_up = self._state.revocations or self._state.damping
        if stranger or not held_up or self.policy is None:
            return stranger
        entry = self._state.ledger.get(device.path)
        if entry is not None and _same_grant(entry.decision, decision):
            return ""
        path = self._state.revocations.awaited(device.path, decision, self.policy.walled_off)
        if path:
            parsed = paths.parse_channel(paths.DECISIONS, path)
            return f"waits until {path if parsed is None else parsed[0]} is known to be closed"
        return self._damped(device, decision)

    def _stranger(self, device: Device) -> str:
        """Why a grant has to wait to be known whose it is (empty: it need not).

        A domid is used again: until its new domain is admitted, its standing is the former one's.
        """
        for domid in (device.domid, device.backend):
            domain = self._mirror.domains.get(domid or 0)
            admission = self._state.admissions.get(domid or 0)
            known = domain is not None and admission is not None and domain.uuid == admission.uuid
            if domid and not known:
                return f"waits until it is known who domain {domid} is now"
        return ""

    def _withheld(self, device: Device, pending: Decision) -> Decision:
        """What withholds a channel: a denial, while one before is not known to be carried out.

        What is pending closes nothing. An agent that never saw the denial, because this came in
        its place, would leave open what was taken back, and whoever waits would wait for ever.
        """
        if device.path not in self._state.revocations:
            return pending
        return msgspec.structs.replace(pending, verdict="deny")

    def _unfiltered(self, device: Device, decision: Decision) -> str:
        """Why a vif that would be granted has to stay closed for want of its filters."""
        if self.filters is None or device.device_class != VIF:
            return ""
        if decision.verdict == "grant":
            return self.filters.refusal(device)
        self.filters.release(device)
        return ""

    def _has_profiles(self, device: Device, decision: Decision) -> bool:
        """Whether this is the grant of a vif with filter profiles, which then says so."""
        if self.filters is None or device.device_class != VIF or decision.verdict != "grant":
            return False
        return bool(self.filters.wanted(device).profiles)

    def judge_by(
        self, policy: Policy | None, standing: Mapping[int, Standing], device: Device
    ) -> Judged:
        """Decide one device under another policy, for a dry run."""
        domain = self._mirror.domains.get(device.domid)
        uuid = None if domain is None else domain.uuid
        untrusted_nonce, spent = self._nonce(device, uuid)
        backend = -1 if device.backend is None else device.backend
        facts = Facts(
            device.domid,
            backend,
            device.device_class,
            uuid,
            device.inputs,
            device.inputs_digest,
            device.problem or self._sanctioned(device, untrusted_nonce),
            (standing.get(device.domid, _UNKNOWN), standing.get(backend, _UNKNOWN)),
            untrusted_nonce,
            spent if untrusted_nonce is device.untrusted_nonce else "",
        )
        return Judged(decide(policy, self.specs, facts, self._memo_of(policy), self.now), spent)

    def _sanctioned(self, device: Device, untrusted_nonce: bytes | None) -> str:
        """Why this life of the channel is closed by a sanction; empty if it is not."""
        sanction = self._state.sanctions.get(device.path)
        if sanction is None:
            return ""
        return sanction.words if sanction.holds(parse_nonce(untrusted_nonce)) else ""

    def _damped(self, device: Device, decision: Decision) -> str:
        """Until when a new channel waits because its domain, or its backend's, breaks protocols."""
        backend = self._mirror.domains.get(-1 if device.backend is None else device.backend)
        uuids = (decision.uuid, None if backend is None else backend.uuid)
        for uuid in uuids:
            pause = None if uuid is None else self._state.damping.get(uuid)
            if pause is not None and pause.until > self.clock():
                until = datetime.fromtimestamp(pause.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                whose = "its domain" if uuid == decision.uuid else "its backend's domain"
                return f"waits until {until}: {whose} broke protocols, {pause.count} times lately"
        return ""

    def _memo_of(self, policy: Policy | None) -> Memo:
        if policy is not self._memo_policy:
            self._memo_policy, self._memo = policy, {}
        return self._memo

    def _nonce(self, device: Device, uuid: str | None) -> tuple[bytes | None, str]:
        """The nonce to decide on, and where the reported one was used before.

        A report that is missing, malformed or replayed is no news about a life that is known:
        it neither opens nor closes anything. A nonce is not spent on a domain whose uuid is
        still unknown: it would count as used before once the uuid is there.
        """
        if uuid is None:
            return None, ""
        nonce = parse_nonce(device.untrusted_nonce)
        spent = "" if nonce is None else self._state.spent_on(nonce, device.path, uuid)
        if nonce is not None and not spent:
            return device.untrusted_nonce, ""
        entry = self._state.ledger.get(device.path)
        if entry is not None and entry.decision.nonce is not None and entry.decision.uuid == uuid:
            return entry.decision.nonce.encode("ascii"), spent
        return device.untrusted_nonce, spent


def _same_grant(before: Decision, now: Decision) -> bool:
    """Whether a channel is granted as it was: what is open, and undisturbed, stays."""
    return (
        before.verdict == "grant"
        and msgspec.structs.replace(before, policy=now.policy, spec=now.spec, reason=now.reason)
        == now
    )


def make_entry(device: Device, decision: Decision, seq: int, key: Ed25519PrivateKey) -> Entry:
    """Name, number and sign a decision.

    Raises:
        RecordError: it does not fit into a node, or not with the word that makes it observed, or
            filtered.
    """
    record = Record(
        verdict=decision.verdict,
        seq=seq,
        id=_new_id(),
        frontend=device.domid,
        backend=-1 if device.backend is None else device.backend,
        device_class=device.device_class,
        device=device.device,
        uuid=decision.uuid,
        nonce=decision.nonce,
        inputs=decision.inputs,
        labels=decision.labels,
        resource=decision.resource,
        policy=decision.policy,
        spec=decision.spec,
        reason=decision.reason,
    )
    text = sign_record(record, key)
    if is_observed(decision.reason) and f" reason={OBSERVED}".encode("ascii") not in text:
        raise RecordError("no room to say that it is granted by observe mode alone")
    if is_filtered(decision.reason) and FILTERED.encode("ascii") not in text.rpartition(b" ")[0]:
        raise RecordError("no room to say that its frames are held to profiles")
    return Entry(seq, text, decision)


def _new_id() -> str:
    """A random UUID (version 4), in text."""
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _found_label(domain: Domain, policy: Policy) -> tuple[str | None, str]:
    """The label a toolstack left in `/vm`, and why it is not adopted."""
    untrusted_label = domain.security.get("acm_label/labelname") or b""
    untrusted_policy = domain.security.get("acm_label/policyname") or b""
    if not untrusted_label:
        return None, ""
    shown = escape(untrusted_label, 80)
    if untrusted_policy != policy.name.encode("utf-8"):
        found = escape(untrusted_policy, 80)
        return None, f"label {shown} was found, of policy {found} instead of {policy.name}"
    try:
        label = untrusted_label.decode("ascii")
    except UnicodeDecodeError:
        return None, f"a label that is not ASCII was found: {shown}"
    if not policy.has_label(label):
        return None, f"label {shown} was found, which policy {policy.name} does not have"
    return label, ""
