r"""What the methods take and answer; the table of them is in `catalogue`.

Text in results is valid Unicode, as it was read (bytes that are no UTF-8 stand as `\xNN`);
whoever shows it on a terminal escapes it. Times are seconds since 1970, UTC. A `domain` argument
is a selector (`broker.rpc.selector`): a domid, a uuid or a name.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from broker.rpc.table import Arguments

Verdict = Literal["grant", "deny", "pending"]
DomainStatus = Literal["labelled", "unlabelled", "refused"]
Selector = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Device = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,9})$(?!\n)")]
DeviceClass = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,32}$(?!\n)")]
Ticket = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]


class Nothing(Arguments, frozen=True, kw_only=True):
    """No arguments."""


# status


class PolicySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Which policy: its name, its version (`1.4`), `sha256:<hex>` of its exact bytes."""

    name: str
    version: str
    digest: str


class DomainCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Live domains, by what the broker made of them."""

    labelled: int = 0
    unlabelled: int = 0
    refused: int = 0


class ChannelCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Channels, by the verdict published."""

    grant: int = 0
    deny: int = 0
    pending: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the broker is.

    `health` is green iff `problems` is empty; each problem says what is wrong and what to do.
    `warnings` are of what will be wrong, such as a certificate that expires soon.
    `enforcing` is true once everything was reconciled and decisions are published, and false
    while the store is gone. `journal_seq` is the last durable audit record's number,
    `heartbeat` the last counter published (0: none yet).
    """

    health: Literal["green", "red"]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    version: str
    state: Literal["starting", "reconciling", "enforcing", "stopped"]
    enforcing: bool
    uptime: float
    store: str
    store_connected: bool
    policy: PolicySummary | None
    domains: DomainCounts
    channels: ChannelCounts
    journal_seq: int
    heartbeat: int
    last_error: str | None = None
    last_error_time: float | None = None


# domain, label


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A live domain; `running` is false once it is dying (its domid still counts).

    `bound_by` is what its label is stored for, `set_by` who gave it, under the policy `policy`;
    `granted` and `denied` count its own channels by what is published (pending is not granted).
    """

    domid: int
    name: str | None
    uuid: str | None
    label: str | None
    status: DomainStatus
    reason: str
    ssidref: int | None
    running: bool
    bound_by: Literal["uuid", "name"] | None = None
    set_by: str | None = None
    policy: str | None = None
    granted: int = 0
    denied: int = 0


class DomainSelector(Arguments, frozen=True, kw_only=True):
    """One domain: a domid, a uuid or a name."""

    domain: Selector


class LabelSet(Arguments, frozen=True, kw_only=True):
    """Give `domain` the label `label`. By domid or uuid it is stored for the uuid.

    By name it is stored for the name, and holds for every uuid that comes under that name. With
    `policy`, only if that digest is in force.
    """

    domain: Selector
    label: Name
    policy: Digest | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored about one domain's label, and what became of it.

    `bound_by` says what the label is stored for; None where none is stored (`label` is None
    then). `policy` is the name of the policy it was given under. `ssidref` is the label's local
    reference under the policy in force, None if that one does not know the label. `domids` are
    the live domains it stands for. `set_by` is the subject who gave it.
    """

    bound_by: Literal["uuid", "name"] | None
    uuid: str | None
    name: str | None
    label: str | None
    policy: str | None
    ssidref: int | None
    domids: tuple[int, ...]
    status: DomainStatus
    reason: str
    set_by: str | None = None
    set_at: float | None = None


class LabelExport(Arguments, frozen=True, kw_only=True):
    """A ticket for the label of a running domain, good for `hours`."""

    domain: Selector
    hours: Annotated[int, msgspec.Meta(ge=1, le=168)] = 24


class LabelTicket(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket: one line, signed by the broker; `expires` in seconds since 1970."""

    ticket: str
    uuid: str
    label: str
    expires: int


class LabelImport(Arguments, frozen=True, kw_only=True):
    """A ticket of a broker whose key is one of `label_signers` here."""

    ticket: Ticket


class MigrationQuery(Arguments, frozen=True, kw_only=True):
    """A domain that is to come: its ticket, or the uuid that its label is stored for here.

    `uses` are channels it will have, besides those of the ticket: class, resource (or `-`), mode
    and the backend's label, as `vbd/lun_red/w/SystemManagement`.
    """

    ticket: Ticket | None = None
    uuid: Annotated[str, msgspec.Meta(max_length=36)] | None = None
    uses: Annotated[tuple[Name, ...], msgspec.Meta(max_length=100)] = ()


class MigrationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the domain would be admitted with all these channels, and what stands against it."""

    verdict: Literal["grant", "deny"]
    uuid: str
    label: str
    uses: tuple[str, ...]
    reasons: tuple[Reason, ...]


class LabelChange(msgspec.Struct, frozen=True, kw_only=True):
    """The label as it is now, and the one before; `changed` is false if it was so already."""

    now: Label
    previous: str | None
    changed: bool


# channel


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend's agent says it enforced: the record's `seq` it acted on, and why."""

    state: Literal["open", "closed", "suspended", "failed"]
    seq: int | None
    reason: str


class Channel(msgspec.Struct, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """One channel and the decision published about it.

    `nonce_known` is whether the backend's agent has reported this life of the device. `seq` is
    None while nothing has been published. `enforced` is None until the agent reports.
    """

    device_class: str
    frontend: int
    backend: int
    device: str
    frontend_name: str | None
    frontend_label: str | None
    backend_label: str | None
    resource: str | None
    verdict: Verdict
    reason: str
    seq: int | None
    nonce_known: bool
    enforced: Reported | None


class ChannelFilter(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """Which channels; what is left out matches all. `domain` is either end."""

    domain: Selector | None = None
    device_class: DeviceClass | None = None
    verdict: Verdict | None = None


class ChannelSelector(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """One channel, as its frontend's device; `backend` where two would answer."""

    device_class: DeviceClass
    frontend: Selector
    device: Device
    backend: int | None = None


class ChannelConnect(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """Give the running `domain` a device from `backend`, until it is shut down or rebooted.

    `class` is that of `resource` where that is left out. A vbd's disk is `params`, an absolute
    path that is the resource's; a vif is on `bridge`. Where the resource stands for one value
    alone, that may be left out. `mode` is a disk's. `devid` is the device's number, the next that
    is free if left out; `mac` is drawn. `ip` is for a routed vif.
    """

    domain: Selector
    resource: Name | None = None
    device_class: DeviceClass | None = None
    backend: Selector = "0"
    devid: Annotated[int, msgspec.Meta(ge=0, le=0x1FFFFFFF)] | None = None
    params: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]{1,500}$(?!\n)")] | None = None
    mode: Literal["r", "w"] = "w"
    bridge: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,15}$(?!\n)")] | None = None
    mac: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$(?!\n)")] | None = None
    ip: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F.:/ ]{2,200}$(?!\n)")] | None = None


class ChannelDisconnect(ChannelSelector, frozen=True, kw_only=True):
    """Take a channel's device away; with `force` its guest is not asked to let go first."""

    force: bool = False


class ChannelOrdered(msgspec.Struct, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """What dom0's agent did about a channel, in words, and the number of its order.

    A device that was set up opens once its backend's agent has the grant: `channel.explain`.
    """

    device_class: str
    frontend: int
    backend: int
    device: str
    resource: str | None
    seq: int
    how: str


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why: the rule's kind, words, and `file:line:column` of the policy (empty if it has none)."""

    rule: str
    text: str
    where: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a channel's verdict is what it is, by the evaluator that enforces.

    A reason of the rule `broker` is the broker's own (a party unlabelled, no nonce reported);
    what the policy says comes after it, and would count without it. `inputs` are the
    toolstack's values it was decided on. `published` is the record's text as
    it is in xenstore now, None where there is none. `changes` are, where the policy denies, the
    smallest changes to it that would grant: each entry is one way, with all that it takes.
    """

    channel: Channel
    reasons: tuple[Reason, ...]
    inputs: dict[str, str]
    policy: PolicySummary | None
    spec: str | None
    published: str | None
    changes: tuple[tuple[str, ...], ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One event of `channel.watch`: a decision published, or an agent's report on one.

    `previous` is the verdict before, None if there was none. A channel that is gone has
    `event` `gone`, and is told as it was last.
    """

    time: float
    event: Literal["decision", "report", "gone"]
    previous: Verdict | None
    channel: Channel


# decision


class DecisionQuery(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """A question about two live domains, whether or not there is a channel between them.

    With `frames`, whether frames may pass between their vifs; else whether a channel of `class`
    may be, with `resource` where the class involves one, for `mode` reading or also writing.
    """

    frontend: Selector
    backend: Selector
    device_class: DeviceClass = "vif"
    resource: Name | None = None
    mode: Literal["r", "w"] = "w"
    frames: bool = False


class DecisionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker would decide, by the evaluator that decides, and why."""

    verdict: Literal["grant", "deny"]
    frontend: int
    backend: int
    frontend_label: str | None
    backend_label: str | None
    reasons: tuple[Reason, ...]
    policy: PolicySummary | None


# policy


class PolicyText(msgspec.Struct, frozen=True, kw_only=True):
    """The policy in force, byte for byte."""

    name: str
    version: str
    digest: str
    text: str


class PolicyLoad(Arguments, frozen=True, kw_only=True):
    """Put a policy in force. `source` is the file's name, for messages only.

    With `replaces`, only if that digest is in force. With `dry_run`, nothing is changed and the
    summary says what would be. Without `revoke` it is refused if a channel that is granted would
    close, or a domain lose its standing.
    """

    text: Annotated[str, msgspec.Meta(min_length=1)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] = "policy.yaml"
    replaces: Digest | None = None
    dry_run: bool = False
    revoke: bool = False


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What loading a policy did, or with `dry_run` would do.

    `opens` and `closes` are the channels whose verdict goes to and from `grant`, written
    `vif/3/0 -> 0`; `unlabels` are the live domains whose label the new policy does not know, and
    `refuses` those that it lets run no more (the Chinese Wall, host authorization).
    `governs` are the keys it changes that a governor alone may change. `second_person` is whether
    somebody else has to approve it; it waits as `proposal` then, and nothing has changed yet.
    """

    policy: PolicySummary
    previous: PolicySummary | None
    changed: bool
    dry_run: bool
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    unlabels: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    governs: tuple[str, ...] = ()
    second_person: bool = False
    proposal: str | None = None


class Observed(msgspec.Struct, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """A request that observe mode granted, and why it would be denied.

    Since the policy in force was loaded; `channel` is the one that asked first.
    """

    device_class: str
    frontend: str
    backend: str
    resource: str | None
    mode: Literal["r", "w"]
    channel: str
    reasons: tuple[Reason, ...]


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that waits for a second person, until `expires`.

    It can replace the policy `replaces` alone. `subject` in `role` proposed it, and may not
    approve it.
    """

    id: str
    policy: PolicySummary
    replaces: Digest | None
    source: str
    governs: tuple[str, ...]
    subject: str
    role: str
    proposed: float
    expires: float


class ProposalSelector(Arguments, frozen=True, kw_only=True):
    """A policy that waits, by its id."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}$(?!\n)")]


class Approval(ProposalSelector, frozen=True, kw_only=True):
    """A policy that waits, to be put in force; `revoke` as in policy.load."""

    revoke: bool = False


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that waits: its exact text, and what it would change."""

    proposal: Proposal
    text: str
    change: PolicyChange


# net


class NetDrop(msgspec.Struct, frozen=True, kw_only=True):
    """Packets refused from one label to another; None is an interface without a label."""

    sender: str | None
    receiver: str | None
    packets: int
    bytes: int


class NetDrops(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend domain's agent reports of packets refused between the vifs it bridges.

    The counts go on until that host's tables are made anew; the largest come first, and `omitted`
    pairs did not fit. It is that domain's own word, of the time `at` by its own clock.
    """

    backend: int
    backend_name: str | None
    at: float
    drops: tuple[NetDrop, ...]
    omitted: int


# audit


class AuditFilter(Arguments, frozen=True, kw_only=True):
    """Which records of the audit log; what is left out matches all.

    `event` is a kind of record. `domain` is a domain that the record names, by whatever it is
    called now; of records that name a domid, those of all domains that ever had it. `subject`
    is what the name of whoever acted begins with. `verdict` is a decision's.
    """

    event: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}$(?!\n)")] | None = None
    domain: Selector | None = None
    subject: Name | None = None
    verdict: Verdict | None = None


class AuditSearch(AuditFilter, frozen=True, kw_only=True):
    """The `last` records that match, of those before the record number `before`."""

    last: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    before: Annotated[int, msgspec.Meta(ge=1)] | None = None


class AuditFollow(AuditFilter, frozen=True, kw_only=True):
    """The records after the number `since`, then those that come; without it only those."""

    since: Annotated[int, msgspec.Meta(ge=0)] | None = None


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the audit log: its number, its kind, and its line, byte for byte."""

    n: int
    event: str
    line: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records, the oldest first.

    All between `oldest` and `last` were looked through; `more` is whether there are older ones:
    ask again with `before` that one. `unread` lines were no records (`brokerctl audit verify`).
    """

    records: tuple[AuditRecord, ...]
    oldest: int
    last: int
    more: bool
    unread: int = 0
