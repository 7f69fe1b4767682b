"""What administrators ask of the broker: one function a method of the RPC's table."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import msgspec

from broker import VERSION
from broker.audit.query import Query
from broker.rpc import methods
from broker.service import questions
from broker.service.agents import listed
from broker.service.audit_access import AuditAccess
from broker.service.authority import Authority
from broker.service.channel_admin import ChannelCalls
from broker.service.connecting import Connecting
from broker.service.drops import reported_drops
from broker.service.filter_admin import FilterCalls
from broker.service.labels import Labels
from broker.service.picturing import PolicyViews
from broker.service.policy_checks import summary
from broker.service.sizes import read_sizes
from broker.service.targets import Targets, selector_of
from broker.service.views import ChannelViews
from broker.text.escape import escape
from broker.xenstore.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.rpc.admin import Caller
    from broker.rpc.stream import Sender
    from broker.rpc.table import Arguments, Method
    from broker.service.engine import Engine
    from broker.service.exposing import Exposing
    from broker.service.health import Health
    from broker.service.heartbeat import Heartbeat
    from broker.service.orders import Orders
    from broker.service.policies import Policies
    from broker.service.tickets import Tickets


class BrokerAdmin(ChannelCalls, FilterCalls):
    """The broker, as the RPC's server sees it (`broker.rpc.admin.Admin`)."""

    tickets: Tickets
    health: Health
    exposing: Exposing

    def __init__(
        self,
        engine: Engine,
        policies: Policies,
        heartbeat: Heartbeat,
        orders: Orders,
        store: str,
    ) -> None:
        self._engine = engine
        self._policies = policies
        self._heartbeat = heartbeat
        self._store = store
        self.labels = Labels(engine)
        self._views = ChannelViews(engine)
        self._policy_views = PolicyViews(engine, policies)
        self._connecting = Connecting(engine, self.labels, orders)
        self._targets = Targets(engine, self.labels)
        self._authority = Authority(engine, self._targets)
        self._audit = AuditAccess(engine.audit)
        self._since = time.monotonic()

    def authorize(self, caller: Caller, method: Method, arguments: Arguments | None) -> None:
        """Let a call pass, or refuse it, by the roles of the policy in force."""
        self._authority.authorize(caller, method, arguments)

    def turned_away(self, untrusted_why: str) -> None:
        """Somebody was refused before it was known what he asks for."""
        self._engine.audit.call_denied(None, "", escape(untrusted_why))

    async def status(self, caller: Caller, arguments: methods.Nothing) -> methods.Status:
        """How the broker is."""
        del caller, arguments
        engine = self._engine
        findings = self.health.findings()
        problems = tuple(str(it) for it in findings if it.level == "red")
        warnings = tuple(str(it) for it in findings if it.level == "amber")
        words = [standing.word for domid, standing in engine.judge.standings.items()]
        verdicts = [
            entry.decision.verdict
            for device in engine.mirror.devices()
            if (entry := engine.state.ledger.get(device.path)) is not None
        ]
        policy = engine.judge.policy
        last = engine.audit.last_error
        return methods.Status(
            health="red" if problems else "amber" if warnings else "green",
            findings=tuple(findings),
            problems=problems,
            warnings=warnings,
            version=VERSION,
            state=engine.phase,
            enforcing=engine.phase == "enforcing" and not engine.audit.broken,
            uptime=time.monotonic() - self._since,
            store=self._store,
            store_connected=engine.connection is not None,
            policy=None if policy is None else summary(policy),
            domains=methods.DomainCounts(
                labelled=words.count("labelled"),
                unlabelled=words.count("unlabelled"),
                refused=words.count("refused"),
            ),
            channels=methods.ChannelCounts(
                grant=verdicts.count("grant"),
                deny=verdicts.count("deny"),
                pending=verdicts.count("pending"),
            ),
            journal_seq=engine.audit.lines,
            heartbeat=self._heartbeat.published,
            last_error=None if last is None else last[1],
            last_error_time=None if last is None else last[0],
        )

    async def domain_list(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Domain, ...]:
        """The live domains that the caller may see, by domid."""
        del arguments
        seen = self._authority.sees(caller, "domain.list")
        found = {
            domid: self.labels.domain(domain)
            for domid, domain in sorted(self._engine.mirror.domains.items())
            if seen(self._targets.of_domain(domain))
        }
        if self._engine.connection is not None:
            with contextlib.suppress(ConnectionLostError):  # their sizes are not known, then
                sizes = await read_sizes(self._engine.connection, list(found))
                for domid, size in sizes.items():
                    found[domid] = msgspec.structs.replace(
                        found[domid], memory=size.memory, vcpus=size.vcpus
                    )
        return tuple(found.values())

    async def label_set(self, caller: Caller, arguments: methods.LabelSet) -> methods.LabelChange:
        """Store a label, audited first, and judge what depends on it anew."""
        return self.labels.assign(
            selector_of(arguments.domain),
            arguments.label,
            caller.subject,
            caller.role,
            under=arguments.policy,
        )

    async def label_get(self, caller: Caller, arguments: methods.DomainSelector) -> methods.Label:
        """A domain's label."""
        del caller
        return self.labels.get(selector_of(arguments.domain))

    async def label_rm(
        self, caller: Caller, arguments: methods.DomainSelector
    ) -> methods.LabelChange:
        """Forget a stored label, audited first; what depended on it is denied."""
        return self.labels.remove(selector_of(arguments.domain), caller.subject, caller.role)

    async def label_list(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Label, ...]:
        """Every stored label that the caller may see."""
        del arguments
        seen = self._authority.sees(caller, "label.list")
        return tuple(it for it in self.labels.all() if seen(self._targets.of_label(it)))

    async def label_export(
        self, caller: Caller, arguments: methods.LabelExport
    ) -> methods.LabelTicket:
        """A signed ticket of a domain's label, audited first."""
        return self.tickets.export(arguments, caller)

    async def label_import(
        self, caller: Caller, arguments: methods.LabelImport
    ) -> methods.LabelChange:
        """Store the label of a ticket, audited first."""
        return self.tickets.take(arguments.ticket, caller)

    async def label_check(
        self, caller: Caller, arguments: methods.MigrationQuery
    ) -> methods.MigrationAnswer:
        """Whether a domain would be admitted here."""
        del caller
        return self.tickets.check(arguments)

    async def decision_query(
        self, caller: Caller, arguments: methods.DecisionQuery
    ) -> methods.DecisionAnswer:
        """What would be decided about two domains."""
        del caller
        return questions.answer(self._engine, self.labels, arguments)

    async def policy_show(self, caller: Caller, arguments: methods.Nothing) -> methods.PolicyText:
        """The policy in force."""
        del caller, arguments
        return self._policy_views.text()

    async def policy_picture(
        self, caller: Caller, arguments: methods.Nothing
    ) -> methods.PolicyPicture:
        """Who may talk to whom by the policy in force."""
        del caller, arguments
        return await self._policy_views.picture()

    async def policy_load(
        self, caller: Caller, arguments: methods.PolicyLoad
    ) -> methods.PolicyChange:
        """Check a policy, and unless it is a dry run put it in force or have it wait."""
        change = self._policies.load(
            arguments.text.encode("utf-8"),
            escape(arguments.source),
            self._authority.requester(caller),
            replaces=arguments.replaces,
            dry_run=arguments.dry_run,
            revoke=arguments.revoke,
        )
        if change.changed and not change.dry_run and change.proposal is None:
            await self._engine.announce()
        return change

    async def policy_observed(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Observed, ...]:
        """What observe mode granted since the policy in force was loaded."""
        del caller, arguments
        return self._engine.observing.seen()

    async def policy_pending(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Proposal, ...]:
        """The policies that wait for a second person."""
        del caller, arguments
        proposals = self._policies.proposals
        return tuple(proposals.view(it) for it in proposals.waiting().values())

    async def policy_review(
        self, caller: Caller, arguments: methods.ProposalSelector
    ) -> methods.Review:
        """A policy that waits, and what it would change."""
        del caller
        return self._policies.review(arguments.id)

    async def policy_approve(
        self, caller: Caller, arguments: methods.Approval
    ) -> methods.PolicyChange:
        """Put a policy in force that somebody else proposed."""
        requester = self._authority.requester(caller)
        change = self._policies.approve(arguments.id, requester, revoke=arguments.revoke)
        await self._engine.announce()
        return change

    async def policy_reject(
        self, caller: Caller, arguments: methods.ProposalSelector
    ) -> methods.Proposal:
        """Drop a policy that waits."""
        proposals = self._policies.proposals
        return proposals.view(proposals.reject(arguments.id, caller))

    async def policy_withdraw(
        self, caller: Caller, arguments: methods.ProposalSelector
    ) -> methods.Proposal:
        """Drop a policy of the caller's own that waits."""
        proposals = self._policies.proposals
        return proposals.view(proposals.withdraw(arguments.id, caller))

    async def audit_list(self, caller: Caller, arguments: methods.AuditSearch) -> methods.AuditPage:
        """The latest records of the audit log that match."""
        del caller
        return await self._audit.page(self._query(arguments), arguments.last, arguments.before)

    async def audit_tail(
        self, caller: Caller, arguments: methods.AuditFollow, send: Sender
    ) -> Callable[[], None]:
        """Send records of the audit log as they are written."""
        del caller
        return self._audit.follow(self._query(arguments), arguments.since, send)

    async def audit_checkpoint(
        self, caller: Caller, arguments: methods.Nothing
    ) -> methods.AuditRecord:
        """Sign a checkpoint of the audit log."""
        del arguments
        return self._audit.checkpoint(caller.subject, caller.role)

    async def agent_list(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Agent, ...]:
        """The backends' agents."""
        del caller, arguments
        return listed(self._engine)

    async def metrics(self, caller: Caller, arguments: methods.Nothing) -> methods.Metrics:
        """What is counted and timed."""
        del caller, arguments
        return methods.Metrics(text=self.exposing.text())

    async def net_drops(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.NetDrops, ...]:
        """What each backend domain's agent reports of refused packets."""
        del caller, arguments
        return reported_drops(self._engine.mirror)

    def _query(self, wanted: methods.AuditFilter) -> Query:
        """What is wanted; a domain that runs is meant by all that it is called."""
        domids: set[int] = set()
        names: set[str] = set()
        if wanted.domain is not None:
            selector = selector_of(wanted.domain)
            if selector.domid is not None:
                domids.add(selector.domid)
            else:
                names.add(selector.value)
            for domain in self.labels.live(selector):
                domids.add(domain.domid)
                names.update(it for it in (domain.uuid, domain.name) if it)
        return Query(
            events=frozenset([] if wanted.event is None else [wanted.event]),
            domids=frozenset(domids),
            names=frozenset(names),
            subject=wanted.subject or "",
            verdict=wanted.verdict or "",
        )
