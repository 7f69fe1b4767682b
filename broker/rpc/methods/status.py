"""How the broker is."""

from typing import Literal

import msgspec

from broker.rpc.methods.common import PolicySummary


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


FindingKind = Literal[
    "store_lost",
    "reconciling",
    "no_policy",
    "observe_mode",
    "policy_waiting",
    "policy_unenforced",
    "audit_broken",
    "audit_unrotated",
    "alarm",
    "heartbeat_stopped",
    "unpublished",
    "revocation_unconfirmed",
    "unconfirmed",
    "not_closed",
    "gate_failed",
    "quarantined",
    "agent_missing",
    "agent_stale",
    "agent_deaf",
    "certificate_expired",
    "certificate_expiring",
    "certificate_unread",
    "denylist_unread",
    "unconfined",
]
"""What can be wrong; docs/service.md explains each."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong (red), or that somebody should look at (amber), and what to do."""

    kind: FindingKind
    level: Literal["red", "amber"]
    text: str
    action: str

    def __str__(self) -> str:
        """Both, in one sentence."""
        return f"{self.text}: {self.action}"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the broker is.

    `health` is red with a red one among the `findings`, which are what is wrong, the worst first,
    each with what to do; amber with an amber one; else green. `problems` are the red ones in
    words, `warnings` the amber ones: what will be wrong, such as a certificate that expires soon.
    `enforcing` is true once everything was reconciled and decisions are published, and false
    while the store is gone. `journal_seq` is the last durable audit record's number,
    `heartbeat` the last counter published (0: none yet).
    """

    health: Literal["green", "amber", "red"]
    findings: tuple[Finding, ...] = ()
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
