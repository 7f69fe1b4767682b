r"""What the methods take and answer; the table of them is in `catalogue`.

Text in results is valid Unicode, as it was read (bytes that are no UTF-8 stand as `\xNN`);
whoever shows it on a terminal escapes it. Times are seconds since 1970, UTC. A `domain` argument
is a selector (`broker.rpc.selector`): a domid, a uuid or a name.
"""

from broker.rpc.methods.agents import Agent, Metrics
from broker.rpc.methods.audit import AuditFilter, AuditFollow, AuditPage, AuditRecord, AuditSearch
from broker.rpc.methods.channels import (
    Channel,
    ChannelConnect,
    ChannelDisconnect,
    ChannelFilter,
    ChannelOrdered,
    ChannelSelector,
    Decision,
    Device,
    Explanation,
    Reported,
)
from broker.rpc.methods.common import (
    DeviceClass,
    Digest,
    DomainStatus,
    Name,
    Nothing,
    PolicySummary,
    Reason,
    Selector,
    Verdict,
)
from broker.rpc.methods.decisions import DecisionAnswer, DecisionQuery
from broker.rpc.methods.domains import Domain, DomainSelector
from broker.rpc.methods.labels import (
    Label,
    LabelChange,
    LabelExport,
    LabelImport,
    LabelSet,
    LabelTicket,
    MigrationAnswer,
    MigrationQuery,
    Ticket,
)
from broker.rpc.methods.net import NetDrop, NetDrops
from broker.rpc.methods.pictures import PictureEdge, PictureNode, PictureWall, PolicyPicture
from broker.rpc.methods.policies import (
    Approval,
    Observed,
    PolicyChange,
    PolicyChanged,
    PolicyLoad,
    PolicyText,
    Proposal,
    ProposalSelector,
    Review,
)
from broker.rpc.methods.status import ChannelCounts, DomainCounts, Finding, FindingKind, Status

__all__ = [
    "Agent",
    "Approval",
    "AuditFilter",
    "AuditFollow",
    "AuditPage",
    "AuditRecord",
    "AuditSearch",
    "Channel",
    "ChannelConnect",
    "ChannelCounts",
    "ChannelDisconnect",
    "ChannelFilter",
    "ChannelOrdered",
    "ChannelSelector",
    "Decision",
    "DecisionAnswer",
    "DecisionQuery",
    "Device",
    "DeviceClass",
    "Digest",
    "Domain",
    "DomainCounts",
    "DomainSelector",
    "DomainStatus",
    "Explanation",
    "Finding",
    "FindingKind",
    "Label",
    "LabelChange",
    "LabelExport",
    "LabelImport",
    "LabelSet",
    "LabelTicket",
    "Metrics",
    "MigrationAnswer",
    "MigrationQuery",
    "Name",
    "NetDrop",
    "NetDrops",
    "Nothing",
    "Observed",
    "PictureEdge",
    "PictureNode",
    "PictureWall",
    "PolicyChange",
    "PolicyChanged",
    "PolicyLoad",
    "PolicyPicture",
    "PolicySummary",
    "PolicyText",
    "Proposal",
    "ProposalSelector",
    "Reason",
    "Reported",
    "Review",
    "Selector",
    "Status",
    "Ticket",
    "Verdict",
]
