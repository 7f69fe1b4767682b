"""A broker made of constants: it answers every method, and remembers who asked what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpc_fake_filters import FakeFilters
from twisted.internet.defer import Deferred

from broker.rpc import methods
from broker.rpc.errors import RpcError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.rpc.admin import Caller

UUID = "6f7c1c6e-0a3f-4d3e-9d2e-0f1c2d3e4f50"
DIGEST = "sha256:" + "ab" * 32
POLICY = methods.PolicySummary(name="corp", version="1.4", digest=DIGEST)
STATUS = methods.Status(
    health="green",
    problems=(),
    version="0.1.0",
    state="enforcing",
    enforcing=True,
    uptime=3725.4,
    store="unix:/run/xenstored/socket",
    store_connected=True,
    policy=POLICY,
    domains=methods.DomainCounts(labelled=2, unlabelled=1),
    channels=methods.ChannelCounts(grant=3, deny=1, pending=1),
    journal_seq=41,
    heartbeat=17,
)
AGENT = methods.Agent(
    backend=0,
    name="Domain-0\x1b",
    age=3.2,
    version="0.1.0",
    policy=DIGEST,
    hears=True,
    open=2,
    channels=3,
    unconfirmed=1,
    confirmed=12,
)
METRICS = "# HELP xpb_health Health.\n# TYPE xpb_health gauge\nxpb_health 0\n"
DOM0 = methods.Domain(
    domid=0,
    name="Domain-0",
    uuid=None,
    label="SystemManagement",
    status="labelled",
    reason="",
    ssidref=65537,
    running=True,
    memory=1_048_000,
    vcpus=4,
)
WEB1 = methods.Domain(
    domid=3,
    name="web1\x1b[2J\x7f\u202e",
    uuid=UUID,
    label=None,
    status="unlabelled",
    reason="no label is stored",
    ssidref=None,
    running=False,
)
LABEL = methods.Label(
    bound_by="name",
    uuid=UUID,
    name="web1",
    label="web_a",
    policy="corp",
    ssidref=131074,
    domids=(3,),
    status="labelled",
    reason="",
    set_by="local:uid=0,pid=1",
    set_at=1.5,
)
UNLABELLED = methods.Label(
    bound_by=None,
    uuid=UUID,
    name="web1",
    label=None,
    policy=None,
    ssidref=None,
    domids=(3,),
    status="unlabelled",
    reason="no label is stored",
)
GRANTED = methods.Channel(
    device_class="vif",
    frontend=3,
    backend=0,
    device="0",
    frontend_name="web1",
    frontend_label="web_a",
    backend_label="SystemManagement",
    resource=None,
    verdict="grant",
    reason="class vif is open to a shared type",
    seq=9,
    nonce_known=True,
    enforced=methods.Reported(state="open", seq=8, reason=""),
)
DENIED = methods.Channel(
    device_class="vbd",
    frontend=3,
    backend=0,
    device="51712",
    frontend_name="web1",
    frontend_label="web_a",
    backend_label="SystemManagement",
    resource="lun_red",
    verdict="deny",
    reason="read-only tier",
    seq=10,
    nonce_known=False,
    enforced=None,
)
CHANGED = methods.PolicyChanged(
    time=0.0,
    subject="ann\x1b[2J",
    role="officer",
    approver="bob",
    approver_role="officer",
    signer="",
    replaces=None,
)
NODE = methods.PictureNode(
    labels=("web_a",), ste=("red",), chinese_wall=(), colours=(), bootstrap=False
)
PICTURE = methods.PolicyPicture(
    title="corp 1.4",
    classes=("vif",),
    nodes=(NODE,),
    edges=(
        methods.PictureEdge(
            device_class="vif", frontend=0, backend=0, both=True, reading=False, resources=()
        ),
    ),
    walls=(),
)
OBSERVED = methods.Observed(
    device_class="vif",
    frontend="web_a",
    backend="SystemManagement",
    resource=None,
    mode="w",
    channel="vif/3/0 -> 0",
    reasons=(methods.Reason(rule="classes.vif", text="no rule allows it", where="p:1:1"),),
)
EXPLANATIONS = {
    channel.device_class: methods.Explanation(
        channel=channel,
        reasons=(methods.Reason(rule="deny", text="read-only tier", where="corp.yaml:31:5"),),
        inputs={"params": "/dev/vg/red-1", "mode": "w"},
        policy=POLICY,
        spec=DIGEST,
        published="deny seq=10",
    )
    for channel in (GRANTED, DENIED)
}
DROPS = methods.NetDrops(
    backend=0,
    backend_name="Domain-0",
    at=1.5,
    drops=(
        methods.NetDrop(sender="web_a", receiver="bank\x1b[2J", packets=12, bytes=840),
        methods.NetDrop(sender=None, receiver="web_a", packets=1, bytes=60),
    ),
    omitted=3,
)
ORDERED = methods.ChannelOrdered(
    device_class="vbd",
    frontend=3,
    backend=0,
    device="51728",
    resource="lun_red",
    seq=9,
    how="set up\x1b[2J",
)
EVENT = methods.Decision(time=0.0, event="decision", previous=None, channel=DENIED)
RECORD = methods.AuditRecord(
    n=17,
    event="label_set",
    line='{"n":17,"event":"label_set","t":1.5,"bound":"name","key":"web1","label":"web_a",'
    f'"policy":"corp","subject":"anna","role":"operator","in_force":"{DIGEST}","hash":"0"}}',
)
PROPOSAL = methods.Proposal(
    id="5f0c9a12",
    policy=POLICY,
    replaces=DIGEST,
    source="corp.yaml\x1b",
    governs=("roles",),
    subject="alice",
    role="officer",
    proposed=0.0,
    expires=3600.0,
)
CHANGE = methods.PolicyChange(
    policy=POLICY,
    previous=POLICY,
    changed=True,
    dry_run=False,
    governs=("roles",),
    second_person=True,
)
TEXT = "policy: corp  # \u00e9\n"


class FakeAdmin(FakeFilters):
    """Answers the constants above; `fail` is raised instead, where it is set."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Caller, object]] = []
        self.fail: Exception | None = None
        self.deny: RpcError | None = None
        self.away: list[str] = []
        self.status_answer = STATUS
        self.channels: tuple[methods.Channel, ...] = (GRANTED, DENIED)
        self.subscribers: list[Callable[[methods.Decision], None]] = []
        self.subscribed: Deferred[None] = Deferred()
        self.unsubscribed: Deferred[None] = Deferred()

    def _called(self, name: str, caller: Caller, arguments: object) -> None:
        self.calls.append((name, caller, arguments))
        if self.fail is not None:
            raise self.fail

    def authorize(self, caller, method, arguments):
        if self.deny is not None:
            raise self.deny

    def turned_away(self, why):
        self.away.append(why)

    async def status(self, caller, arguments):
        self._called("status", caller, arguments)
        return self.status_answer

    async def domain_list(self, caller, arguments):
        self._called("domain.list", caller, arguments)
        return (DOM0, WEB1)

    async def label_set(self, caller, arguments):
        self._called("label.set", caller, arguments)
        if arguments.label == "nosuch":
            raise RpcError("bad_input", "no label nosuch in policy corp 1.4")
        return methods.LabelChange(now=LABEL, previous="db_b", changed=True)

    async def label_get(self, caller, arguments):
        self._called("label.get", caller, arguments)
        return UNLABELLED if arguments.domain == "3" else LABEL

    async def label_rm(self, caller, arguments):
        self._called("label.rm", caller, arguments)
        return methods.LabelChange(now=UNLABELLED, previous="web_a", changed=True)

    async def label_list(self, caller, arguments):
        self._called("label.list", caller, arguments)
        return (LABEL, UNLABELLED)

    async def label_export(self, caller, arguments):
        self._called("label.export", caller, arguments)
        return methods.LabelTicket(ticket="label uuid=-", uuid=UUID, label="web_a", expires=1)

    async def label_import(self, caller, arguments):
        self._called("label.import", caller, arguments)
        return methods.LabelChange(now=LABEL, previous=None, changed=True)

    async def label_check(self, caller, arguments):
        self._called("label.check", caller, arguments)
        return methods.MigrationAnswer(
            verdict="grant", uuid=UUID, label="web_a", uses=(), reasons=()
        )

    async def channel_list(self, caller, arguments):
        self._called("channel.list", caller, arguments)
        return self.channels

    async def channel_explain(self, caller, arguments):
        self._called("channel.explain", caller, arguments)
        return EXPLANATIONS[arguments.device_class]

    async def channel_connect(self, caller, arguments):
        self._called("channel.connect", caller, arguments)
        return ORDERED

    async def channel_disconnect(self, caller, arguments):
        self._called("channel.disconnect", caller, arguments)
        return ORDERED

    async def channel_reset(self, caller, arguments):
        self._called("channel.reset", caller, arguments)
        return ORDERED

    async def channel_watch(self, caller, arguments, send):
        self._called("channel.watch", caller, arguments)
        self.subscribers.append(send)
        self.subscribed.callback(None)
        return lambda: self.unsubscribed.callback(None)

    async def decision_query(self, caller, arguments):
        self._called("decision.query", caller, arguments)
        return methods.DecisionAnswer(
            verdict="deny" if arguments.frames else "grant",
            frontend=3,
            backend=0,
            frontend_label="web_a",
            backend_label=None,
            reasons=(methods.Reason(rule="ste", text="they share red\x1b", where="p:1:2"),),
            policy=POLICY,
        )

    async def policy_picture(self, caller, arguments):
        self._called("policy.picture", caller, arguments)
        return PICTURE

    async def policy_show(self, caller, arguments):
        self._called("policy.show", caller, arguments)
        return methods.PolicyText(
            name="corp", version="1.4", digest=DIGEST, text=TEXT, changed=CHANGED
        )

    async def policy_load(self, caller, arguments):
        self._called("policy.load", caller, arguments)
        if "bad" in arguments.text:
            raise RpcError(
                "bad_input", "1 problem in the policy", (f"{arguments.source}:1:1: bad word",)
            )
        if arguments.replaces not in (None, DIGEST):
            raise RpcError("conflict", f"{DIGEST} is in force")
        return methods.PolicyChange(
            policy=POLICY,
            previous=None,
            changed=True,
            dry_run=arguments.dry_run,
            opens=("vif/4/0 -> 0",),
            closes=("vbd/3/51712 -> 0",),
            unlabels=("5 (old)",),
            warnings=("corp.yaml:9:3: group front_line is not used",),
        )

    async def agent_list(self, caller, arguments):
        self._called("agent.list", caller, arguments)
        return (AGENT, methods.Agent(backend=7, name=None, channels=1))

    async def metrics(self, caller, arguments):
        self._called("metrics", caller, arguments)
        return methods.Metrics(text=METRICS)

    async def net_drops(self, caller, arguments):
        self._called("net.drops", caller, arguments)
        return (DROPS,)

    async def policy_observed(self, caller, arguments):
        self._called("policy.observed", caller, arguments)
        return (OBSERVED,)

    async def policy_pending(self, caller, arguments):
        self._called("policy.pending", caller, arguments)
        return (PROPOSAL,)

    async def policy_review(self, caller, arguments):
        self._called("policy.review", caller, arguments)
        return methods.Review(proposal=PROPOSAL, text=TEXT, change=CHANGE)

    async def policy_approve(self, caller, arguments):
        self._called("policy.approve", caller, arguments)
        return CHANGE

    async def policy_reject(self, caller, arguments):
        self._called("policy.reject", caller, arguments)
        return PROPOSAL

    async def policy_withdraw(self, caller, arguments):
        self._called("policy.withdraw", caller, arguments)
        return PROPOSAL

    async def audit_list(self, caller, arguments):
        self._called("audit.list", caller, arguments)
        before = arguments.before or 18
        return methods.AuditPage(
            records=(RECORD,) if before == 18 else (), oldest=before - 5, last=17, more=before > 8
        )

    async def audit_tail(self, caller, arguments, send):
        self._called("audit.tail", caller, arguments)
        self.subscribers.append(send)
        self.subscribed.callback(None)
        return lambda: self.unsubscribed.callback(None)

    async def audit_checkpoint(self, caller, arguments):
        self._called("audit.checkpoint", caller, arguments)
        return RECORD
