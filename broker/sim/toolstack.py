"""What libxl writes to xenstore when `xl` creates, changes and destroys domains.

Nodes, their order and their permissions are those of real Xen 4.17 (the dumps and the trace in
tests/data/real-xen-4.17), as far as the broker and the drivers look at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.xenstore import requests
from broker.xenstore.devices import (
    Device,
    attach_requests,
    detach_requests,
    fresh,
    vbd,
    vif,
    without,
)
from broker.xenstore.paths import LIBXL, VM, domain_dir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.requests import Request

__all__ = [
    "Device",
    "Toolstack",
    "attach_requests",
    "create_requests",
    "destroy_requests",
    "detach_requests",
    "vbd",
    "vif",
]

MEMORY: Final = 98_304
"""A simulated domain's, in KiB."""
_GUEST_DIRS: Final = ("data", "drivers", "feature", "attr", "error")


def create_requests(domid: int, uuid: str, name: str) -> list[Request]:
    """The domain's own nodes, as `xl create` makes them before INTRODUCE, here in one transaction.

    It has one VCPU and `MEMORY`.
    """
    home, vm, libxl = domain_dir(domid), f"{VM}/{uuid}", f"{LIBXL}/{domid}"
    guest_reads, guest_owns = ("n0", f"r{domid}"), (f"n{domid}",)
    changes: list[Request] = []
    for top, permissions in ((home, guest_reads), (vm, guest_reads), (libxl, ("n0",))):
        changes += [*fresh(top), requests.set_perms(top, permissions)]
    changes.append(requests.mkdir(f"{libxl}/device"))
    changes.append(requests.write(f"{home}/vm", vm.encode()))
    changes.append(requests.write(f"{home}/name", name.encode()))
    changes += [requests.mkdir(f"{home}/{directory}") for directory in ("device", "control")]
    for directory in _GUEST_DIRS:
        changes.append(requests.mkdir(f"{home}/{directory}"))
        changes.append(requests.set_perms(f"{home}/{directory}", guest_owns))
    for key, kib in (("static-max", MEMORY), ("target", MEMORY), ("videoram", 0)):
        changes.append(requests.write(f"{home}/memory/{key}", str(kib).encode()))
    changes.append(requests.write(f"{home}/cpu/0/availability", b"online"))
    changes.append(requests.write(f"{vm}/uuid", uuid.encode()))
    changes.append(requests.write(f"{vm}/name", name.encode()))
    changes.append(requests.write(f"{home}/domid", str(domid).encode()))
    return changes


def destroy_requests(domid: int, uuid: str) -> list[Request]:
    """Remove a domain's own nodes, its devices being gone."""
    tops = (f"{VM}/{uuid}", domain_dir(domid), f"{LIBXL}/{domid}")
    return [request for top in tops for request in without(top)]


class Toolstack:
    """libxl's part of a domain's life, over a connection of domid 0.

    `introduce` makes a domain known to the store; where a real guest needs more than the bare
    request (a ring page), the caller brings it.
    """

    def __init__(
        self,
        connection: StoreConnection,
        introduce: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._connection = connection
        self._introduce = introduce

    async def create(self, domid: int, uuid: str, name: str, devices: Sequence[Device]) -> None:
        """Create a domain as `xl create` does: its own nodes, INTRODUCE, then each device."""
        await self._connection.transact(create_requests(domid, uuid, name))
        if self._introduce is None:
            await self._connection.introduce(domid, domid, 1)
        else:
            await self._introduce(domid)
        for device in devices:
            await self.attach(domid, device)

    async def attach(self, domid: int, device: Device) -> None:
        """Add one device, as `xl network-attach` and `xl block-attach` do."""
        await self._connection.transact(attach_requests(domid, device))

    async def detach(self, domid: int, device: Device) -> None:
        """Take a device away."""
        await self._connection.transact(detach_requests(domid, device))

    async def destroy(self, domid: int, uuid: str, devices: Sequence[Device]) -> None:
        """Destroy a domain as `xl destroy` does: its devices, its nodes, then RELEASE."""
        for device in devices:
            await self.detach(domid, device)
        await self._connection.transact(destroy_requests(domid, uuid))
        await self._connection.release(domid)
