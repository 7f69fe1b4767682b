"""Labels that move with their domains: signed here, checked there, and asked for before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.core.channels import hindrance
from broker.core.record import RecordError
from broker.core.ticket import Ticket, Use, parse_use, sign_ticket, verify_ticket
from broker.core.verdict import Reason
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.rpc.selector import Selector
from broker.service import events
from broker.service.filters import VIF
from broker.service.policy_checks import version_of
from broker.service.targets import selector_of
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from broker.core.policy import Policy
    from broker.rpc.admin import Caller
    from broker.service.engine import Engine
    from broker.service.labels import Labels
    from broker.service.mirror import Domain

_HOUR = 3600


class Tickets:
    """Signs tickets with the broker's key, and takes those that one of `signers` signed."""

    def __init__(
        self,
        engine: Engine,
        labels: Labels,
        key: Ed25519PrivateKey,
        signers: Sequence[Ed25519PublicKey],
    ) -> None:
        self._engine = engine
        self._labels = labels
        self._key = key
        self._signers = signers

    def export(self, asked: methods.LabelExport, caller: Caller) -> methods.LabelTicket:
        """A ticket for a labelled domain that runs.

        Raises:
            RpcError: `not_found`, `denied`, `bad_input`, `unavailable`.
        """
        policy = self._policy()
        live = self._labels.live(selector_of(asked.domain))
        if len(live) != 1:
            raise RpcError("not_found", f"{len(live)} domains {escape(asked.domain)} run, not one")
        (domain,) = live
        standing = self._engine.judge.standing(domain.domid)
        if not standing.good or standing.label is None or domain.uuid is None or not domain.domid:
            raise RpcError("denied", f"domain {domain.domid} has no label to vouch for")
        ticket = Ticket(
            uuid=domain.uuid,
            label=standing.label,
            policy=policy.name,
            version=version_of(policy),
            digest=policy.digest,
            expires=int(time.time()) + asked.hours * _HOUR,
            uses=tuple(self._uses(domain)),
            filters=self._filters(domain),
        )
        try:
            text = sign_ticket(ticket, self._key).decode("ascii")
        except RecordError as error:
            raise RpcError("bad_input", str(error)) from None
        line = events.LabelExported(
            time.time(), ticket.uuid, ticket.label, ticket.expires, caller.subject, caller.role
        )
        if not self._engine.audit.commit([line]):
            raise RpcError(
                "unavailable", f"the audit log cannot be written: {self._engine.audit.broken}"
            )
        return methods.LabelTicket(
            ticket=text, uuid=ticket.uuid, label=ticket.label, expires=ticket.expires
        )

    def take(self, untrusted_text: str, caller: Caller) -> methods.LabelChange:
        """Store the label of a good ticket; one that is stored already stays as it is.

        Raises:
            RpcError: `bad_input`, `denied`, `conflict`, `unavailable`.
        """
        policy = self._policy()
        ticket, problem = self._read(untrusted_text)
        problem = problem or _mismatch(policy, ticket)
        if problem:
            raise RpcError("denied", problem)
        stored = self._engine.state.labels.get(("uuid", ticket.uuid))
        if stored is not None and stored.label != ticket.label:
            raise RpcError(
                "conflict",
                f"{ticket.uuid} has label {stored.label} here, not {ticket.label}; if the ticket "
                f"is right: brokerctl label rm uuid:{ticket.uuid}",
            )
        selector = Selector("uuid", ticket.uuid)
        return self._labels.assign(
            selector, ticket.label, caller.subject, caller.role, under=ticket.digest
        )

    def check(self, asked: methods.MigrationQuery) -> methods.MigrationAnswer:
        """Whether the domain would be admitted here, with all its channels.

        Raises:
            RpcError: `bad_input`, `not_found`, `unavailable`.
        """
        policy = self._policy()
        try:
            uses = [parse_use(use) for use in asked.uses]
        except RecordError as error:
            raise RpcError("bad_input", str(error)) from None
        against: list[Reason] = []
        if (asked.ticket is None) == (asked.uuid is None):
            raise RpcError("bad_input", "either a ticket or a uuid")
        if asked.ticket is not None:
            ticket, problem = self._read(asked.ticket)
            problems = [it for it in (problem, _mismatch(policy, ticket)) if it]
            against += [Reason("ticket", it) for it in problems]
            uuid, label = ticket.uuid, ticket.label
            against += self._against_filters(ticket)
            uses += ticket.uses
        else:
            uuid = asked.uuid or ""
            found = self._engine.state.label_of(uuid, None)
            if found is None:
                raise RpcError("not_found", f"no label is stored for {escape(uuid)}")
            label = found
        against += self._against(policy, uuid, label)
        for use in dict.fromkeys(uses):
            against += self._against_use(policy, label, use)
        return methods.MigrationAnswer(
            verdict="deny" if against else "grant",
            uuid=uuid,
            label=label,
            uses=tuple(str(use) for use in dict.fromkeys(uses)),
            reasons=tuple(
                methods.Reason(rule=it.rule, text=it.text, where=it.where) for it in against
            ),
        )

    def _policy(self) -> Policy:
        policy = self._engine.judge.policy
        if policy is None:
            raise RpcError("unavailable", "no policy is in force; load one first")
        return policy

    def _read(self, untrusted_text: str) -> tuple[Ticket, str]:
        """A ticket, and why it counts for nothing here (empty: it counts)."""
        data = untrusted_text.strip().encode("utf-8")
        try:
            ticket = verify_ticket(data, self._signers)
            if ticket is None:
                raise RpcError("denied", "the ticket is signed by none of label_signers")
        except RecordError as error:
            raise RpcError("bad_input", f"no ticket: {error}") from None
        late = self._engine.judge.now >= ticket.expires
        return ticket, "the ticket has expired; export another" if late else ""

    def _uses(self, domain: Domain) -> Iterator[Use]:
        """The granted channels of a domain, each kind once."""
        found: dict[Use, None] = {}
        for device in domain.devices.values():
            entry = self._engine.state.ledger.get(device.path)
            if entry is not None and entry.decision.verdict == "grant":
                backend = entry.decision.labels[1]
                if backend is not None:
                    resource = entry.decision.resource
                    found[Use(device.device_class, resource, device.mode, backend)] = None
        yield from found

    def _filters(self, domain: Domain) -> tuple[str, ...]:
        """The filter profiles of a domain's vifs."""
        filters = self._engine.filters
        names = [
            attached.profile
            for device in domain.devices.values()
            if device.device_class == VIF
            for attached in filters.attached(device)
        ]
        known = filters.profiles.library.profiles
        return filters.named(name for name in names if name in known)

    def _against_filters(self, ticket: Ticket) -> Iterator[Reason]:
        """Filter profiles that its vifs have there, and would not have here as they are there."""
        filters = self._engine.filters
        here = filters.attached_by(ticket.label, ticket.uuid)
        for named in ticket.filters:
            name = named.partition("/")[0]
            if name not in filters.profiles.library.profiles:
                yield Reason("filter", f"there is no filter profile {name} here")
            elif filters.named([name]) != (named,):
                yield Reason("filter", f"filter profile {name}, or what it includes, is another")
            elif name not in here:
                said = f"brokerctl filter attach uuid:{ticket.uuid} {name}"
                yield Reason("filter", f"filter profile {name} would not be on its vifs: {said}")

    def _against(self, policy: Policy, uuid: str, label: str) -> Iterator[Reason]:
        """What stands against the domain itself."""
        judge = self._engine.judge
        for domain in self._engine.mirror.of_uuid(uuid):
            yield Reason("uuid", f"{uuid} runs here already, as domain {domain.domid}")
        if uuid in self._engine.state.quarantine:
            yield Reason("quarantine", f"quarantined: {self._engine.state.quarantine[uuid]}")
        stored = self._engine.state.label_of(uuid, None)
        if stored not in (None, label):
            yield Reason("label", f"{uuid} has label {stored} here, not {label}")
        running = [
            it.label for domid, it in judge.standings.items() if domid and it.good and it.label
        ]
        verdict = policy.admit(running, label)
        if not verdict.granted:
            yield from verdict.reasons

    def _against_use(self, policy: Policy, label: str, use: Use) -> Iterator[Reason]:
        """What stands against one of its channels."""
        judge = self._engine.judge
        standings = judge.standings.items()
        backends = [(domid, it) for domid, it in standings if it.good and it.label == use.backend]
        if not backends:
            yield Reason("backend", f"{use}: no domain of label {use.backend} runs here")
            return
        # The domain itself is judged apart: here it stands as its backend does.
        _, problem = hindrance(policy, judge.specs, use.device_class, (backends[0], backends[0]))
        if problem:
            yield Reason("class", f"{use}: {problem}")
            return
        verdict = policy.explain(use.device_class, label, use.backend, use.resource, use.mode)
        if not verdict.granted:
            for it in verdict.reasons:
                yield Reason(it.rule, f"{use}: {it.text}", it.where)


def _mismatch(policy: Policy, ticket: Ticket) -> str:
    """Why a ticket is not of the policy in force (empty: it is)."""
    if ticket.digest != policy.digest:
        said = f"{ticket.policy} {ticket.version} ({ticket.digest})"
        return f"the ticket is of policy {said}, but {policy.digest} is in force"
    if not policy.has_label(ticket.label):
        return f"policy {policy.name} has no label {escape(ticket.label, 60)}"
    return ""
