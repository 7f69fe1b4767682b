"""Filter profiles, whose vifs they are on, and what becomes of a frame: `filter.*`."""

from typing import Annotated, Literal

import msgspec

from broker.rpc.methods.channels import Device
from broker.rpc.methods.common import Digest, Selector
from broker.rpc.table import Arguments

ProfileName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,47}$(?!\n)")]
ProfileText = Annotated[str, msgspec.Meta(min_length=1, max_length=65536)]
Source = Annotated[str, msgspec.Meta(max_length=4096)]
VariableName = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{0,31}$(?!\n)")]
VariableValue = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.:/-]{1,80}$(?!\n)")]
Given = Annotated[
    dict[VariableName, Annotated[tuple[VariableValue, ...], msgspec.Meta(max_length=64)]],
    msgspec.Meta(max_length=16),
]
Direction = Literal["from-guest", "to-guest"]
State = Literal["new", "established", "related", "invalid", "untracked"]


class FilterProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile: `shipped` as it came, or stored here; `users` are what has it on vifs.

    `variables` are those that it and what it includes declare, as in its file: `IP: ipv4`.
    """

    name: str
    description: str
    digest: str
    shipped: bool
    variables: tuple[str, ...]
    users: tuple[str, ...]


class FilterSelector(Arguments, frozen=True, kw_only=True):
    """One profile."""

    profile: ProfileName


class FilterText(msgspec.Struct, frozen=True, kw_only=True):
    """A profile's exact text."""

    name: str
    digest: str
    shipped: bool
    text: str


class FilterCreate(Arguments, frozen=True, kw_only=True):
    """Store a new profile: `text` is the file, `source` its name in messages."""

    text: ProfileText
    source: Source = "profile.yaml"


class FilterUpdate(Arguments, frozen=True, kw_only=True):
    """Put another text in a profile's place, if `replaces` is what is in force (compare and swap).

    With `dry_run` nothing is changed.
    """

    text: ProfileText
    replaces: Digest | None = None
    source: Source = "profile.yaml"
    dry_run: bool = False


class FilterChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force now (or, of a dry run, would be); `vifs` have the profile.

    `digest` is None where the profile is no more, `replaced` where there was none before.
    """

    name: str
    digest: str | None
    replaced: str | None
    changed: bool
    vifs: int


class FilterDestroy(Arguments, frozen=True, kw_only=True):
    """Forget a stored profile that nothing uses; of a shipped one the shipped text holds again."""

    profile: ProfileName
    replaces: Digest | None = None


class FilterAttach(Arguments, frozen=True, kw_only=True):
    """Put a profile on the vifs of a domain: on vif `device` alone, or on all.

    By domid or uuid it is stored for the uuid, by name for the name. `given` are its variables.
    """

    domain: Selector
    profile: ProfileName
    device: Device | None = None
    given: Given = msgspec.field(default_factory=dict)


class FilterDetach(Arguments, frozen=True, kw_only=True):
    """Take a profile off again, from where it was put with the same `domain` and `device`."""

    domain: Selector
    profile: ProfileName
    device: Device | None = None


class FilterAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A profile on a domain's vifs, by an administrator: stored for a uuid or a name."""

    bound_by: Literal["uuid", "name"]
    key: str
    device: str | None
    name: str
    given: dict[str, tuple[str, ...]]
    set_by: str
    set_at: float


class FilterAttached(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment as it is now; `changed` is false if it was so already."""

    now: FilterAttachment | None
    changed: bool
    vifs: int


class FilterVif(Arguments, frozen=True, kw_only=True):
    """One vif of a running domain."""

    domain: Selector
    device: Device = "0"


class VifFilters(msgspec.Struct, frozen=True, kw_only=True):
    """What a vif has: profiles with where each comes from, variables, and what is to be learned.

    `problem` says why it cannot have them (and is closed); empty if it can.
    """

    vif: str
    profiles: tuple[str, ...]
    from_where: tuple[str, ...]
    variables: dict[str, tuple[str, ...]]
    learned: tuple[str, ...]
    problem: str


class FilteredVif(VifFilters, frozen=True, kw_only=True):
    """A vif that has filter profiles, and which it is."""

    frontend: int
    frontend_name: str | None
    device: str
    backend: int


class FilterRuleCount(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule (`profile/number`, `profile/default`) decided on all vifs of one backend."""

    rule: str
    packets: int
    bytes: int


class LearnedAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An IPv4 address that a vif got by DHCP, and may send from until then."""

    frontend: int
    frontend_name: str | None
    device: str
    address: str
    until: float


class FilterCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend domain's agent reports of filter profiles: its own word, as of `at`.

    A profile's counts begin anew when it changes. The largest come first; `omitted_rules` and
    `omitted_learned` did not fit.
    """

    backend: int
    backend_name: str | None
    at: float
    rules: tuple[FilterRuleCount, ...]
    learned: tuple[LearnedAddress, ...]
    omitted_rules: int
    omitted_learned: int


class FilterTest(FilterVif, frozen=True, kw_only=True):
    """What becomes of `frame` (hex digits of all its bytes) by the profiles of a vif.

    `state` is its connection's, as the vif would know it; where it is not said, all that such a
    frame can have are tried. `learned` are IPv4 addresses that the vif is taken to have learned.
    """

    frame: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{2}){0,9216}$(?!\n)")]
    direction: Direction = "from-guest"
    state: State | None = None
    learned: Annotated[tuple[VariableValue, ...], msgspec.Meta(max_length=64)] = ()


class FilterStateOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a frame in one state of its connection, and who spoke."""

    state: State
    verdict: Literal["accept", "drop"]
    rule: str
    where: str
    reason: str


class FilterOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict, and who spoke: `profile/number` (empty: nobody) at `file:line:column`.

    `unreadable`: dropped because the frame claims a header that cannot be read. `frame` says in
    words what it is. `depends`: on whether the vif knows the frame's connection, which nobody said;
    `by_state` has what becomes of it then.
    """

    verdict: Literal["accept", "drop", "depends"]
    rule: str
    where: str
    reason: str
    unreadable: bool
    frame: str
    by_state: tuple[FilterStateOutcome, ...] = ()
