"""The audit log: `audit.*`."""

from typing import Annotated

import msgspec

from broker.rpc.methods.common import Name, Selector, Verdict
from broker.rpc.table import Arguments


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
