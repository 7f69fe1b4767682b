"""What arguments and answers of several methods have in common."""

from typing import Annotated, Literal

import msgspec

from broker.rpc.table import Arguments

Verdict = Literal["grant", "deny", "pending"]
DomainStatus = Literal["labelled", "unlabelled", "refused"]
Selector = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
DeviceClass = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,32}$(?!\n)")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]


class Nothing(Arguments, frozen=True, kw_only=True):
    """No arguments."""


class PolicySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Which policy: its name, its version (`1.4`), `sha256:<hex>` of its exact bytes."""

    name: str
    version: str
    digest: str


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why: the rule's kind, words, and `file:line:column` of the policy (empty if it has none)."""

    rule: str
    text: str
    where: str
