"""Labels, the tickets they travel with, and whether a domain may come: `label.*`."""

from typing import Annotated, Literal

import msgspec

from broker.rpc.methods.common import Digest, DomainStatus, Name, Reason, Selector
from broker.rpc.table import Arguments

Ticket = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]


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


class LabelChange(msgspec.Struct, frozen=True, kw_only=True):
    """The label as it is now, and the one before; `changed` is false if it was so already."""

    now: Label
    previous: str | None
    changed: bool


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
