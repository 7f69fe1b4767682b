"""Policies that wait for a second person: durable, listed, expiring."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec

from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service import events
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.core.policy import Policy
    from broker.rpc.admin import Caller
    from broker.service.engine import Engine
    from broker.service.state import Proposal
    from broker.service.statedir import StateDir

LIFE: Final = 72 * 3600.0
"""Seconds that a proposal waits, unless told otherwise."""
MOST: Final = 16
"""Proposals that wait at once, and of them MOST_OF_ONE by one person."""
MOST_OF_ONE: Final = 4


class Read(msgspec.Struct, frozen=True):
    """A policy, its exact bytes, and the id of the key that signed them (empty: none)."""

    policy: Policy
    data: bytes
    signer: str = ""


class Proposals:
    """What waits for approval, `life` seconds long; `now` is seconds since 1970."""

    def __init__(
        self,
        engine: Engine,
        statedir: StateDir,
        life: float = LIFE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._life = life
        self._engine = engine
        self._statedir = statedir
        self._now = now

    def propose(
        self, read: Read, source: str, caller: Caller, governs: tuple[str, ...]
    ) -> Proposal:
        """Keep a policy until somebody else approves it.

        Raises:
            RpcError: `conflict`, too many wait; `unavailable`, it cannot be written down.
        """
        policy, data = read.policy, read.data
        waiting = self.waiting()
        for known in waiting.values():
            if (known.digest, known.person) == (policy.digest, caller.person):
                return known
        own = sum(1 for it in waiting.values() if it.person == caller.person)
        if len(waiting) >= MOST or own >= MOST_OF_ONE:
            raise RpcError("conflict", "too many changes wait; see brokerctl policy pending")
        current = self._engine.judge.policy
        now = self._now()
        line = events.PolicyProposed(
            now,
            secrets.token_hex(4),
            policy.name,
            f"{policy.version[0]}.{policy.version[1]}",
            policy.digest,
            None if current is None else current.digest,
            source,
            governs,
            caller.subject,
            caller.role,
            caller.person,
            now + self._life,
            read.signer,
        )
        try:
            self._statedir.keep("proposal", policy.digest, data)
        except OSError as error:
            raise RpcError("unavailable", f"the policy cannot be kept: {error}") from None
        self._commit(line)
        return self._engine.state.proposals[line.id]

    def waiting(self) -> dict[str, Proposal]:
        """What waits now; what has waited too long is dropped."""
        now = self._now()
        for proposal in list(self._engine.state.proposals.values()):
            if now >= proposal.expires and not self._engine.audit.broken:
                self._drop(proposal, "expired", None)
        return {key: it for key, it in self._engine.state.proposals.items() if now < it.expires}

    def find(self, key: str) -> Proposal:
        """The proposal of that id.

        Raises:
            RpcError: `not_found`.
        """
        proposal = self.waiting().get(key)
        if proposal is None:
            raise RpcError(
                "not_found", f"no change {escape(key, 40)} waits; see brokerctl policy pending"
            )
        return proposal

    def text(self, proposal: Proposal) -> bytes:
        """The exact bytes that were proposed.

        Raises:
            RpcError: `unavailable`, they cannot be read.
        """
        try:
            return self._statedir.file_of("proposal", proposal.digest).read_bytes()
        except OSError as error:
            raise RpcError("unavailable", f"the policy cannot be read: {error}") from None

    def reject(self, key: str, caller: Caller) -> Proposal:
        """Drop a change that somebody proposed.

        Raises:
            RpcError: `not_found`, `unavailable`.
        """
        proposal = self.find(key)
        return self._drop(proposal, "rejected", caller)

    def withdraw(self, key: str, caller: Caller) -> Proposal:
        """Drop a change of one's own.

        Raises:
            RpcError: `not_found`, `denied` (it is another's), `unavailable`.
        """
        proposal = self.find(key)
        if proposal.person != caller.person:
            raise RpcError("denied", f"{proposal.subject} proposed it; see brokerctl policy reject")
        return self._drop(proposal, "withdrawn", caller)

    def forget_file(self, digest: str) -> None:
        """Remove a proposal's bytes, once no proposal is of them."""
        if all(it.digest != digest for it in self._engine.state.proposals.values()):
            self._statedir.file_of("proposal", digest).unlink(missing_ok=True)

    def view(self, proposal: Proposal) -> methods.Proposal:
        """One for display."""
        return methods.Proposal(
            id=proposal.id,
            policy=methods.PolicySummary(
                name=proposal.name, version=proposal.version, digest=proposal.digest
            ),
            replaces=proposal.replaces,
            source=proposal.source,
            governs=proposal.governs,
            subject=proposal.subject,
            role=proposal.role,
            proposed=proposal.proposed,
            expires=proposal.expires,
        )

    def _drop(self, proposal: Proposal, why: events.Dropped, caller: Caller | None) -> Proposal:
        subject, role = ("", "") if caller is None else (caller.subject, caller.role)
        self._commit(events.PolicyDropped(self._now(), proposal.id, why, subject, role))
        self.forget_file(proposal.digest)
        return proposal

    def _commit(self, line: events.Event) -> None:
        audit = self._engine.audit
        if not audit.commit([line]):
            raise RpcError("unavailable", f"the audit log cannot be written: {audit.broken}")
