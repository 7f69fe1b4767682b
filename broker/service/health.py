"""What is wrong with the broker, with whom it depends on, or soon will be; and what to do.

Each finding has a kind, so that it can be counted and alerted on; a finding goes when its cause
does. Red: what was decided may not hold, or nothing new can be. Amber: it holds, but somebody has
to look.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from broker.core.agent_report import BOOTSTRAP, MISSING
from broker.core.revocations import parse_report
from broker.rpc.methods import Finding
from broker.service import agents
from broker.service.heartbeat import INTERVAL
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.rpc.methods import FindingKind
    from broker.rpc.tls_files import Notice
    from broker.service.engine import Engine
    from broker.service.heartbeat import Heartbeat
    from broker.service.policies import Policies

AGENT_SILENT: Final = 35.0
"""Seconds after which an agent that reports every ten is thought gone."""
AGREE: Final = 30.0
"""Seconds that an agent may follow another policy than the one in force, or hear no heartbeat."""
UNMET: Final = 60.0
"""Seconds that a device may wait for an agent that reports anything of it at all."""
SILENCE: Final = 3 * INTERVAL
"""Seconds without a heartbeat, while there should be one every `INTERVAL`."""
ALARMED: Final = 3600.0
"""Seconds that an alarm is shown for."""
_SHOWN: Final = 3
"""Channels named one by one; of more, how many there are."""


class Health:
    """Looks at one broker; `tick` is called now and then, `findings` whenever somebody asks."""

    def __init__(
        self,
        engine: Engine,
        heartbeat: Heartbeat,
        policies: Policies,
        store: str,
        *,
        patience: float,
    ) -> None:
        self.unheld: tuple[str, ...] = ()
        """What the kernel, or the configuration, does not hold brokerd itself with."""
        self.notices: Callable[[], tuple[Notice, ...]] = tuple
        self.clock: Callable[[], float] = time.monotonic
        self._engine = engine
        self._heartbeat = heartbeat
        self._policies = policies
        self._store = store
        self._patience = patience
        self._differs: dict[int, float] = {}
        self._deaf: dict[int, float] = {}
        self._enforcing_since: float | None = None

    def tick(self) -> None:
        """Note since when agents follow another policy, or hear nothing."""
        now, engine = self.clock(), self._engine
        if engine.phase != "enforcing":
            self._enforcing_since = None
        elif self._enforcing_since is None:
            self._enforcing_since = now
        policy = engine.judge.policy
        differs: dict[int, float] = {}
        deaf: dict[int, float] = {}
        for backend, agent in agents.heard(engine, now).items():
            said = agent.report.policy
            if policy is not None and said not in (None, policy.digest):
                differs[backend] = self._differs.get(backend, now)
            if not agent.report.beat:
                deaf[backend] = self._deaf.get(backend, now)
        self._differs, self._deaf = differs, deaf

    def findings(self) -> list[Finding]:
        """What is wrong now, the worst first."""
        self.tick()
        found = [
            *self._of_store(),
            *self._of_policy(),
            *self._of_audit(),
            *self._of_heartbeat(),
            *self._of_decisions(),
            *self._of_agents(),
            *self._of_certificates(),
            *self._of_itself(),
        ]
        return sorted(found, key=lambda it: it.level != "red")

    def _of_store(self) -> Iterator[Finding]:
        engine = self._engine
        if engine.connection is None:
            yield _red(
                "store_lost",
                f"no store at {self._store}, so every gate stays as it is",
                "start xenstored, or correct `store` in broker.yaml",
            )
        elif engine.phase != "enforcing":
            yield _red("reconciling", "not everything is reconciled yet", "wait")

    def _of_policy(self) -> Iterator[Finding]:
        engine = self._engine
        if engine.judge.policy is None:
            yield _red(
                "no_policy",
                "no policy is in force, so everything is denied",
                "brokerctl policy load FILE",
            )
        for text in engine.observing.problems():
            yield _red(
                "observe_mode",
                text,
                "brokerctl policy observed shows them; load a policy whose mode is enforce",
            )
        for it in self._policies.proposals.waiting().values():
            yield _amber(
                "policy_waiting",
                f"policy {it.name} {it.version} waits for a second person",
                f"brokerctl policy review {it.id}",
            )

    def _of_audit(self) -> Iterator[Finding]:
        audit = self._engine.audit
        if audit.broken:
            yield _red(
                "audit_broken",
                f"the audit log cannot be written, so nothing is granted: {audit.broken}",
                "make room, or repair the disk; it is tried again every two seconds",
            )
        if audit.unrotated:
            yield _red(
                "audit_unrotated",
                f"the audit log cannot be rotated: {audit.unrotated}",
                "make room, or repair the disk",
            )
        now = audit.clock.seconds()
        recent = [it for it in audit.alarms if now - it[0] < ALARMED]
        if recent:
            when, subject, detail = recent[-1]
            yield _amber(
                "alarm",
                f"{_count(len(recent), 'alarm')} in the last hour, the latest "
                f"{now - when:.0f} s ago: {subject}: {detail}",
                "brokerctl audit tail --event alarm",
            )

    def _of_heartbeat(self) -> Iterator[Finding]:
        since = self._enforcing_since
        if since is None or self._engine.audit.broken:
            return  # said above
        silent = self.clock() - max(since, self._heartbeat.last or 0.0)
        if silent > SILENCE:
            yield _red(
                "heartbeat_stopped",
                f"no heartbeat was written for {silent:.0f} s, so agents open nothing new",
                "see the broker's log: the store refuses the node, or answers nothing",
            )

    def _of_decisions(self) -> Iterator[Finding]:
        engine = self._engine
        if engine.decider.unpublished:
            count = _count(engine.decider.unpublished, "decision")
            yield _red(
                "unpublished",
                f"{count} not published yet",
                "is dom0's helper running? journalctl -u broker-agent in dom0",
            )
        for channel, seconds in engine.revoking.overdue():
            yield _red(
                "revocation_unconfirmed",
                f"{channel} was revoked {seconds:.0f} s ago, and its backend has not confirmed",
                f"is broker-agent running in domain {channel.backend}?",
            )
        for uuid, reason in engine.state.quarantine.items():
            if engine.mirror.of_uuid(uuid):
                yield _red(
                    "quarantined", f"{uuid} is quarantined: {reason}", "label it anew to lift it"
                )
        yield from self._unconfirmed()
        yield from self._opposed()

    def _unconfirmed(self) -> Iterator[Finding]:
        late = [it for it, _ in self._engine.confirming.late(self._patience) if it.met]
        revoked = self._engine.state.revocations
        late = [it for it in late if it.device.path not in revoked]
        if late:
            shown = _named([str(it.device) for it in late])
            where = ", ".join(sorted({str(it.device.backend) for it in late}))
            yield _red(
                "unconfirmed",
                f"{_count(len(late), 'decision')} not confirmed within "
                f"{self._patience:g} s: {shown}",
                f"is broker-agent running in domain {where}?",
            )
        unmet = [it for it, _ in self._engine.confirming.late(UNMET) if not it.met]
        for backend in sorted({it.device.backend for it in unmet if it.device.backend is not None}):
            shown = _named([str(it.device) for it in unmet if it.device.backend == backend])
            yield _red(
                "agent_missing",
                f"no agent in domain {backend} reports on {shown}",
                f"start broker-agent in domain {backend}",
            )

    def _opposed(self) -> Iterator[Finding]:
        """Gates that are not as decided, by their agents' own words."""
        failed: list[str] = []
        for device in self._engine.mirror.devices():
            report = parse_report(device.untrusted_enforced)
            if report is None or report.state in ("closed", "suspended"):
                continue
            if report.state == "open" and report.reason == BOOTSTRAP:
                continue
            entry = self._engine.state.ledger.get(device.path)
            if entry is None or report.seq is None or report.seq < entry.seq:
                continue  # not confirmed; that is said where it is late
            if entry.decision.verdict == "grant":
                if report.state == "failed":
                    failed.append(f"{device} ({escape(report.reason, 100)})")
            else:
                yield _red(
                    "not_closed",
                    f"{device} is denied, and its agent reports it "
                    f"{report.state}: {escape(report.reason, 100)}",
                    f"destroy the domain, or look at domain {device.backend}",
                )
        if failed:
            yield _amber(
                "gate_failed",
                f"granted, but could not be opened: {_named(failed)}",
                "see the log of the backend's broker-agent",
            )

    def _of_agents(self) -> Iterator[Finding]:
        now, engine = self.clock(), self._engine
        for backend, agent in agents.heard(engine, now).items():
            if not engine.mirror.backends.get(backend):
                continue  # it has nothing to enforce
            if agent.age > AGENT_SILENT:
                yield _red(
                    "agent_stale",
                    f"the agent in domain {backend} was heard {agent.age:.0f} s ago last",
                    f"is broker-agent running in domain {backend}?",
                )
                continue
            if now - self._deaf.get(backend, now) > AGREE:
                yield _red(
                    "agent_deaf",
                    f"the agent in domain {backend} hears no heartbeat, and opens nothing",
                    "has it this broker's public key (broker.pub)?",
                )
            if now - self._differs.get(backend, now) > AGREE and self._has_vifs(backend):
                said = agent.report.policy or ""
                follows = "has no file of" if said == MISSING else f"follows {said[:19]}, not"
                yield _red(
                    "policy_unenforced",
                    f"the agent in domain {backend} {follows} the policy in force",
                    "copy the policy's file into its `policies` directory",
                )

    def _has_vifs(self, backend: int) -> bool:
        devices = self._engine.mirror.backends.get(backend, {})
        return any(device.device_class == "vif" for device in devices)

    def _of_certificates(self) -> Iterator[Finding]:
        for notice in self.notices():
            make = _red if notice.urgent else _amber
            yield make(notice.kind, notice.text, notice.action)

    def _of_itself(self) -> Iterator[Finding]:
        if self.unheld:
            yield _amber(
                "unconfined",
                f"brokerd runs without {' and '.join(self.unheld)}",
                "see `confine` in broker.yaml, and what the kernel was built and started with",
            )


def _red(kind: FindingKind, text: str, action: str) -> Finding:
    return Finding(kind=kind, level="red", text=text, action=action)


def _amber(kind: FindingKind, text: str, action: str) -> Finding:
    return Finding(kind=kind, level="amber", text=text, action=action)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _named(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
