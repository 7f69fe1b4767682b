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
