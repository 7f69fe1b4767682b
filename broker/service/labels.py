"""Labels as administrators see and change them: stored by uuid or by name, audited first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from twisted.logger import Logger

from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service import events
from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.core.channels import Standing
    from broker.rpc.selector import Selector
    from broker.service.engine import Engine
    from broker.service.mirror import Domain

    Key = tuple[events.Bound, str]


class Labels:
    """The label store's administration."""

    log = Logger()

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.state

    def live(self, selector: Selector) -> list[Domain]:
        """The live domains that a selector means."""
        mirror = self._engine.mirror
        if selector.domid is not None:
            domain = mirror.domains.get(selector.domid)
            return [] if domain is None else [domain]
        if selector.kind == "uuid":
            return mirror.of_uuid(selector.value)
        return [it for it in mirror.domains.values() if it.name == selector.value]

    def domain(self, domain: Domain) -> methods.Domain:
        """One domain for display."""
        standing = self._engine.judge.standing(domain.domid)
        key = next((key for key in _keys(domain) if key in self._state.labels), None)
        stored = None if key is None else self._state.labels[key]
        ledger = self._state.ledger
        entries = [ledger[it.path] for it in domain.devices.values() if it.path in ledger]
        granted = sum(entry.decision.verdict == "grant" for entry in entries)
        return methods.Domain(
            domid=domain.domid,
            name=domain.name,
            uuid=domain.uuid,
            label=standing.label,
            status=cast("methods.DomainStatus", standing.word),
            reason=standing.reason,
            ssidref=self._ssidref(standing.label),
            running=not domain.dying,
            bound_by=None if key is None else key[0],
            set_by=None if stored is None else stored.subject,
            policy=None if stored is None else stored.policy,
            granted=granted,
            denied=len(entries) - granted,
        )

    def assign(
        self,
        selector: Selector,
        label: str,
        subject: str,
        role: str = "",
        *,
        under: str | None = None,
    ) -> methods.LabelChange:
        """Store a label, and lift the quarantine of the domains it is for.

        With `under`, only if the policy of that digest is in force.

        Raises:
            RpcError: `bad_input`, `not_found`, `denied`, `conflict` or `unavailable`.
        """
        policy = self._engine.judge.policy
        if policy is None:
            raise RpcError("unavailable", "no policy is in force; load one first")
        if under not in (None, policy.digest):
            raise RpcError("conflict", f"not {under} but {policy.digest} is in force")
        if not policy.has_label(label):
            raise RpcError(
                "bad_input", f"policy {policy.name} has no label {escape(label)}; see policy show"
            )
        key = self.key(selector)
        before = self._state.labels.get(key)
        held = [it.uuid for it in self.live(selector) if it.uuid in self._state.quarantine]
        changed = before is None or before.label != label
        now = time.time()
        lines: list[events.Event] = []
        if changed:
            lines.append(events.LabelSet(now, *key, label, policy.name, subject, role))
        lines += [events.QuarantineLifted(now, uuid, subject, role) for uuid in held if uuid]
        self._commit(lines)
        return methods.LabelChange(
            now=self._label(key),
            previous=None if before is None else before.label,
            changed=bool(lines),
        )

    def remove(self, selector: Selector, subject: str, role: str = "") -> methods.LabelChange:
        """Forget a stored label.

        Raises:
            RpcError: `not_found`, `denied` or `unavailable`, as in the table.
        """
        key = self.key(selector)
        before = self._state.labels.get(key)
        if before is None:
            raise RpcError("not_found", self._not_stored(selector, key))
        self._commit([events.LabelRemoved(time.time(), *key, subject, role)])
        return methods.LabelChange(now=self._label(key), previous=before.label, changed=True)

    def _not_stored(self, selector: Selector, key: Key) -> str:
        """That nothing is stored for `key`; and for what else, where the domain has a label."""
        said = f"no label is stored for {key[0]} {escape(key[1])}"
        for domain in self.live(selector):
            for bound, value in _keys(domain):
                if (bound, value) in self._state.labels:
                    shown = escape(value)
                    return f"{said}; that domain's is: brokerctl label rm {bound}:{shown}"
        return said

    def get(self, selector: Selector) -> methods.Label:
        """A domain's label, or what is stored for a domain that does not run.

        Raises:
            RpcError: `not_found`.
        """
        for domain in self.live(selector):
            return self._label_of(domain)
        if selector.kind != "domid":
            key = self.key(selector)
            if key in self._state.labels:
                return self._label(key)
        raise RpcError("not_found", f"{escape(selector.value)} neither runs nor has a stored label")

    def all(self) -> tuple[methods.Label, ...]:
        """Every stored label."""
        return tuple(self._label(key) for key in self._state.labels)

    def _say(self, line: events.Event) -> None:
        if isinstance(line, events.LabelSet | events.LabelRemoved):
            label = f"label {line.label}" if isinstance(line, events.LabelSet) else "no label"
            self.log.info(
                "{bound} {key} has {label} now, by {subject}",
                bound=line.bound,
                key=escape(line.key),
                label=label,
                subject=line.subject,
            )

    def _commit(self, lines: list[events.Event]) -> None:
        if not self._engine.audit.commit(lines):
            raise RpcError(
                "unavailable", f"the audit log cannot be written: {self._engine.audit.broken}"
            )
        for line in lines:
            self._say(line)
        if lines:
            self._engine.relabelled()

    def key(self, selector: Selector) -> Key:
        """What a label or a filter is stored for: a name if that was given, else the uuid.

        Raises:
            RpcError: `denied` (domain 0), `not_found`.
        """
        domains = self.live(selector)
        if selector.domid == 0 or any(domain.domid == 0 for domain in domains):
            raise RpcError("denied", "domain 0 has the policy's bootstrap label, always")
        if selector.kind == "name":
            return "name", selector.value
        if selector.kind == "uuid":
            return "uuid", selector.value
        if not domains:
            raise RpcError("not_found", f"no domain {selector.value} runs")
        uuid = domains[0].uuid
        if uuid is None:
            raise RpcError("not_found", f"domain {selector.value}: {domains[0].problem}")
        return "uuid", uuid

    def _label_of(self, domain: Domain) -> methods.Label:
        for key in _keys(domain):
            if key in self._state.labels:
                return self._label(key)
        standing = self._engine.judge.standing(domain.domid)
        return methods.Label(
            bound_by=None,
            uuid=domain.uuid,
            name=domain.name,
            label=standing.label,
            policy=None,
            ssidref=self._ssidref(standing.label),
            domids=(domain.domid,),
            status=cast("methods.DomainStatus", standing.word),
            reason=standing.reason,
        )

    def _label(self, key: Key) -> methods.Label:
        """One stored label (or, just removed, none) and the live domains it stands for."""
        stored = self._state.labels.get(key)
        bound, value = key
        domains = [
            domain
            for domain in self._engine.mirror.domains.values()
            if (domain.uuid if bound == "uuid" else domain.name) == value
            and (bound == "uuid" or ("uuid", domain.uuid) not in self._state.labels)
        ]
        standing: Standing | None = None
        if domains:
            standing = self._engine.judge.standing(domains[0].domid)
        label = None if stored is None else stored.label
        known = self._ssidref(label) is not None
        return methods.Label(
            bound_by=None if stored is None else bound,
            uuid=value if bound == "uuid" else None,
            name=value if bound == "name" else None,
            label=label,
            policy=None if stored is None else stored.policy,
            ssidref=self._ssidref(label),
            domids=tuple(sorted(domain.domid for domain in domains)),
            status=cast(
                "methods.DomainStatus",
                standing.word if standing else "labelled" if known else "unlabelled",
            ),
            reason=standing.reason if standing else "no domain it stands for is running",
            set_by=None if stored is None else stored.subject,
            set_at=None if stored is None else stored.t,
        )

    def _ssidref(self, label: str | None) -> int | None:
        policy = self._engine.judge.policy
        if policy is None or label is None or not policy.has_label(label):
            return None
        return policy.ssidref(label)


def _keys(domain: Domain) -> list[Key]:
    """What a domain's label may be stored for; what comes first wins."""
    keys: list[Key] = []
    if domain.uuid is not None:
        keys.append(("uuid", domain.uuid))
    if domain.name is not None:
        keys.append(("name", domain.name))
    return keys
