"""The policy in force, its replacement, and those that wait: `policy.*`."""

from typing import Annotated, Literal

import msgspec

from broker.rpc.methods.common import Digest, PolicySummary, Reason
from broker.rpc.table import Arguments


class PolicyChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Who put a policy in force at `time`, in the place of the one with the digest `replaces`.

    `approver` is the second person and `signer` the id of the key that signed it, each empty where
    there was none.
    """

    time: float
    subject: str
    role: str
    approver: str
    approver_role: str
    signer: str
    replaces: str | None


class PolicyText(msgspec.Struct, frozen=True, kw_only=True):
    """The policy in force, byte for byte, and how it came to be."""

    name: str
    version: str
    digest: str
    text: str
    changed: PolicyChanged | None = None


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
