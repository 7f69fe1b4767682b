"""Domains, as the methods `domain.*` tell them."""

from typing import Literal

import msgspec

from broker.rpc.methods.common import DomainStatus, Selector
from broker.rpc.table import Arguments


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A live domain; `running` is false once it is dying (its domid still counts).

    `bound_by` is what its label is stored for, `set_by` who gave it, under the policy `policy`;
    `granted` and `denied` count its own channels by what is published (pending is not granted).
    `memory` (KiB) and `vcpus` (those online) are as libxl wrote them, None where it did not or the
    store does not say; what only the hypervisor knows (time used, blocked or running) is not here.
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
    memory: int | None = None
    vcpus: int | None = None


class DomainSelector(Arguments, frozen=True, kw_only=True):
    """One domain: a domid, a uuid or a name."""

    domain: Selector
