"""The policy in force: loaded by one function, whoever asks, and kept by its digest.

The same holds for a signal, the first start and the RPC: check everything, write it down, then
let it take effect. What does not load leaves the one in force as it is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
from twisted.logger import Logger

from broker.core.governance import has_governing_approver
from broker.pki.dsse import BundleError, is_bundle, open_bundle
from broker.policy.load import load_policy
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service import events
from broker.service.policy_checks import (
    conflict_with,
    governed_changes_of,
    observe_warnings,
    renames_from,
    rollback,
    summary,
    ungoverned,
    unknown_verbs,
    version_of,
)
from broker.service.proposals import LIFE, Proposals, Read
from broker.service.statedir import RefusedError
from broker.text.escape import escape
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from broker.core.policy import Policy
    from broker.rpc.admin import Caller
    from broker.service.authority import Requester
    from broker.service.engine import Engine
    from broker.service.judge import Judged
    from broker.service.state import Proposal
    from broker.service.statedir import StateDir

MOST_PROBLEMS: Final = 50
"""Problems of a refused policy that are audited; the caller is told all of them."""


class Policies:
    """Loads policies into the engine, and keeps the bytes of the one in force."""

    log = Logger()

    def __init__(
        self,
        engine: Engine,
        statedir: StateDir,
        signers: Mapping[str, Ed25519PublicKey] | None = None,
        *,
        approval_life: float = LIFE,
    ) -> None:
        self.data = b""
        self._signers = signers or {}
        self._engine = engine
        self._statedir = statedir
        self.proposals = Proposals(engine, statedir, approval_life)

    def restore(self) -> bool:
        """Put the policy back in force that the state names; whether there is one.

        Raises:
            RefusedError: its file is missing or not what it was.
        """
        digest = self._engine.state.policy_digest
        if digest is None:
            return False
        path = self._statedir.file_of("policy", digest)
        try:
            data = path.read_bytes()
            policy = load_policy(data, str(path))
        except (OSError, ProblemsError) as error:
            raise RefusedError(
                f"the policy in force cannot be read: {error}; restore {path}"
            ) from None
        if policy.digest != digest:
            raise RefusedError(f"{path} is not the policy in force any more; restore it")
        self._engine.judge.policy = policy
        self.data = data
        return True

    def load(
        self,
        data: bytes,
        source: str,
        who: Requester,
        *,
        replaces: str | None = None,
        dry_run: bool = False,
        revoke: bool = False,
    ) -> methods.PolicyChange:
        """Check a policy and put it in force, or have it wait for a second person.

        With `dry_run` it says what that would do; only with `revoke` may anything close by it.

        Raises:
            RpcError: `bad_input` with every problem; `conflict` if `replaces`, or the policy's
                own `from`, is not what is in force, if something would close, or too much
                waits; `denied` if it changes
                what is governed and `who` does not govern; `unavailable` if it cannot be
                written down.
        """
        try:
            read = self._read(data, source)
            policy = read.policy
            change = self._judge(read, who, replaces, dry_run=dry_run)
        except RpcError as error:
            if not dry_run:
                problems = error.problems or (error.message,)
                self._refused(source, problems, who.caller)
            raise
        if dry_run or not change.changed:
            return change
        if change.second_person:
            proposal = self.proposals.propose(read, source, who.caller, change.governs)
            self.log.info(
                "policy {name} {version} ({digest}) waits for a second person as {id}, "
                "proposed by {subject}",
                name=policy.name,
                version=version_of(policy),
                digest=policy.digest,
                id=proposal.id,
                subject=who.caller.subject,
            )
            return msgspec.structs.replace(change, proposal=proposal.id)
        if not revoke:
            self._refuse_closing(change, source, who.caller)
        self._enforce(read, who.caller)
        return change

    def review(self, key: str) -> methods.Review:
        """A policy that waits, and what it would change now.

        Raises:
            RpcError: `not_found`, `conflict`, `unavailable`.
        """
        proposal = self.proposals.find(key)
        read = self._proposed(proposal)
        change = self._change(read.policy, renames_from(read.policy, self._current), dry_run=True)
        return methods.Review(
            proposal=self.proposals.view(proposal),
            text=read.data.decode("utf-8"),
            change=msgspec.structs.replace(change, governs=proposal.governs, second_person=True),
        )

    def approve(self, key: str, who: Requester, *, revoke: bool = False) -> methods.PolicyChange:
        """Put a policy in force that somebody else proposed; `revoke` as in `load`.

        Raises:
            RpcError: `denied`, `not_found`, `conflict`, `unavailable`.
        """
        proposal = self.proposals.find(key)
        if proposal.person == who.caller.person:
            raise RpcError("denied", "nobody approves his own change; somebody else has to")
        read = self._proposed(proposal)
        policy = read.policy
        governs = governed_changes_of(self._current, policy)
        if governs and not who.governs:
            raise RpcError("denied", ungoverned(governs))
        change = self._change(policy, renames_from(policy, self._current), dry_run=False)
        if not revoke:
            self._refuse_closing(change, proposal.source, who.caller)
        self._enforce(read, who.caller, proposal)
        return msgspec.structs.replace(change, governs=governs)

    @property
    def _current(self) -> Policy | None:
        return self._engine.judge.policy

    def _read(self, untrusted_data: bytes, source: str) -> Read:
        """A policy as it was handed in: where signers are configured, signed by one of them."""
        data, signer = untrusted_data, ""
        if self._signers:
            try:
                opened = open_bundle(untrusted_data, self._signers)
            except BundleError as error:
                raise RpcError("bad_input", f"{source}: {error}") from None
            data, signer = opened.payload, opened.signer
        elif is_bundle(untrusted_data):
            raise RpcError(
                "bad_input", f"{source} is signed, but no policy_signers are configured here"
            )
        return Read(self._parse(data, source), data, signer)

    def _parse(self, data: bytes, source: str) -> Policy:
        try:
            policy = load_policy(data, source)
        except ProblemsError as error:
            problems = tuple(str(problem) for problem in error.problems)
            raise RpcError("bad_input", f"{source} is not a good policy", problems) from None
        filters = self._engine.filters
        misfits = tuple(filters.problems(filters.profiles, policy, {}))
        if misfits:
            raise RpcError("bad_input", f"{source} asks for filters that are not so here", misfits)
        return policy

    def _judge(
        self, read: Read, who: Requester, replaces: str | None, *, dry_run: bool
    ) -> methods.PolicyChange:
        """Whether `who` may put the policy in force now, alone or not, and what it changes."""
        policy, current = read.policy, self._current
        conflict = conflict_with(policy, current, replaces)
        if not conflict and read.signer and (current is None or current.digest != policy.digest):
            conflict = rollback(policy, self._engine.state.versions.get(policy.name))
        if conflict:
            raise RpcError("conflict", conflict)
        change = self._change(policy, renames_from(policy, current), dry_run=dry_run)
        governs = governed_changes_of(current, policy)
        if governs and not who.governs:
            raise RpcError("denied", ungoverned(governs))
        second = bool(change.changed) and not who.alone
        if governs and current is not None:
            # Before there is anybody who could be the second person, root is alone.
            second = not who.is_root or has_governing_approver(current.definition)
        return msgspec.structs.replace(
            change,
            governs=governs,
            second_person=second,
            warnings=(*unknown_verbs(policy), *observe_warnings(policy)),
        )

    def _proposed(self, proposal: Proposal) -> Read:
        """A policy that waits, checked again: its bytes, and that it replaces what is in force."""
        data = self.proposals.text(proposal)
        policy = self._parse(data, proposal.source)
        if policy.digest != proposal.digest:
            raise RpcError("unavailable", f"the policy kept for {proposal.id} was changed")
        conflict = conflict_with(policy, self._current, proposal.replaces)
        if conflict:
            raise RpcError("conflict", conflict)
        return Read(policy, data, proposal.signer)

    def _enforce(self, read: Read, caller: Caller, proposal: Proposal | None = None) -> None:
        """Write it down, then let it take effect."""
        policy, data = read.policy, read.data
        engine, current = self._engine, self._current
        by, approver = caller, None
        subject, role = by.subject, by.role
        if proposal is not None:
            subject, role, approver = proposal.subject, proposal.role, caller
        line = events.PolicyLoaded(
            time.time(),
            policy.name,
            version_of(policy),
            policy.digest,
            None if current is None else current.digest,
            subject,
            renames_from(policy, current),
            role,
            "" if approver is None else approver.subject,
            "" if approver is None else approver.role,
            "" if proposal is None else proposal.id,
            read.signer,
        )
        try:
            self._statedir.keep("policy", policy.digest, data)
        except OSError as error:
            raise RpcError("unavailable", f"the policy cannot be kept: {error}") from None
        waited = list(engine.state.proposals.values())
        if not engine.audit.commit([line]):
            raise RpcError("unavailable", f"the audit log cannot be written: {engine.audit.broken}")
        engine.judge.policy = policy
        self.data = data
        self.log.info(
            "policy {name} {version} ({digest}) is in force, loaded by {subject}{approved}",
            name=policy.name,
            version=version_of(policy),
            digest=policy.digest,
            subject=subject,
            approved="" if approver is None else f", approved by {approver.subject}",
        )
        for it in waited:
            self.proposals.forget_file(it.digest)
        engine.policy_changed()

    def _refuse_closing(self, change: methods.PolicyChange, source: str, caller: Caller) -> None:
        """A policy that takes away what is granted has to be meant to.

        Raises:
            RpcError: `conflict`, with a line for each channel and domain.
        """
        lost = (
            *(f"would close {channel}" for channel in change.closes),
            *(f"would refuse domain {domain}" for domain in change.refuses),
            *(f"would leave domain {domain} without a label" for domain in change.unlabels),
        )
        if lost:
            self._refused(source, lost, caller)
            message = (
                f"{source} takes away what is granted; if that is meant, load it with --revoke"
            )
            raise RpcError("conflict", message, lost[:MOST_PROBLEMS])

    def _refused(self, source: str, problems: tuple[str, ...], caller: Caller) -> None:
        line = events.PolicyRefused(
            time.time(), source, problems[:MOST_PROBLEMS], caller.subject, caller.role
        )
        self._engine.audit.note(line)

    def _change(
        self, policy: Policy, renames: dict[str, str], *, dry_run: bool
    ) -> methods.PolicyChange:
        """What changes when `policy` takes the place of the one in force.

        Raises:
            RpcError: `unavailable` while the store is being read anew.
        """
        engine = self._engine
        current = engine.judge.policy
        changed = current is None or current.digest != policy.digest
        standings = engine.judge.standings_under(policy, renames)
        opens: list[str] = []
        closes: list[str] = []
        for device in engine.mirror.devices() if changed else ():
            if device.channel is None:
                continue
            entry = engine.state.ledger.get(device.path)
            before = entry is not None and entry.decision.verdict == "grant"
            after = _grants(engine.judge.judge_by(policy, standings, device))
            if after and not before:
                opens.append(str(device))
            # What closes in any case (a sanction, its party has gone) is not this policy's doing.
            elif (
                before
                and not after
                and _grants(engine.judge.judge_by(current, engine.judge.standings, device))
            ):
                closes.append(str(device))
        unlabels: list[str] = []
        refuses: list[str] = []
        for domid, standing in engine.judge.standings.items():
            new = standings.get(domid)
            if new is None:
                # What closes cannot be told before the whole store is read again.
                said = f"domain {domid} is not known now: the store is being read; try again"
                raise RpcError("unavailable", said)
            if standing.label is not None and new.label is None:
                unlabels.append(self._domain(domid))
            elif standing.good and not new.good:
                refuses.append(f"{self._domain(domid)}: {new.reason}")
        return methods.PolicyChange(
            policy=summary(policy),
            previous=None if current is None else summary(current),
            changed=changed,
            dry_run=dry_run,
            opens=tuple(opens),
            closes=tuple(closes),
            unlabels=tuple(unlabels),
            refuses=tuple(refuses),
        )

    def _domain(self, domid: int) -> str:
        """A domain as people name it: its domid, and its name where that is known."""
        domain = self._engine.mirror.domains.get(domid)
        name = None if domain is None else domain.name
        return str(domid) if name is None else f"{domid} ({escape(name, 60)})"


def _grants(judged: Judged) -> bool:
    return judged.decision.verdict == "grant"
