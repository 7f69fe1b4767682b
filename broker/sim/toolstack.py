"""What libxl writes to xenstore when `xl` creates, changes and destroys domains.

Nodes, their order and their permissions are those of real Xen 4.17 (the dumps and the trace in
tests/data/real-xen-4.17), as far as the broker and the drivers look at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.xenstore import requests
from broker.xenstore.paths import (
    LIBXL,
    VM,
    backend_dir,
    domain_dir,
    frontend_dir,
    libxl_device_dir,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.requests import Request

_GUEST_DIRS: Final = ("data", "drivers", "feature", "attr", "error")


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device as a domain's configuration names it.

    `kind` is the frontend's; `details` are the toolstack's keys of the backend directory,
    in libxl's order.
    """

    kind: str
    devid: int
    details: dict[str, str]
    backend: int = 0

    def frontend_dir(self, domid: int) -> str:
        """Where the frontend of `domid` finds it."""
        return frontend_dir(domid, self.kind, str(self.devid))

    def backend_dir(self, domid: int) -> str:
        """Where the backend of `domid`'s device finds it."""
        return backend_dir(self.backend, self.kind, domid, str(self.devid))

    def libxl_dir(self, domid: int) -> str:
        """The toolstack's own copy."""
        return libxl_device_dir(domid, self.kind, str(self.devid))

    def frontend_keys(self) -> dict[str, str]:
        """The toolstack's keys of the frontend directory."""
        if self.kind == "vbd":
            own = {"virtual-device": str(self.devid), "device-type": "disk"}
        else:
            own = {"handle": str(self.devid), "mac": self.details.get("mac", "")}
        return {"backend-id": str(self.backend), "state": "1", **own, "trusted": "1"}


def vif(devid: int, mac: str, *, bridge: str = "xenbr0", backend: int = 0) -> Device:
    """A network device as `vif=['mac=…,bridge=…']` makes it."""
    details = {
        "script": "/etc/xen/scripts/vif-broker",
        "mac": mac,
        "bridge": bridge,
        "handle": str(devid),
        "type": "vif",
        "hotplug-status": "",
    }
    return Device(kind="vif", devid=devid, details=details, backend=backend)


def vbd(devid: int, params: str, *, mode: str = "w", backend: int = 0) -> Device:
    """A disk as `disk=['…,target=…']` makes it; `mode` is `r` or `w`."""
    details = {
        "params": params,
        "script": "/etc/xen/scripts/block-broker",
        "removable": "0",
        "bootable": "1",
        "dev": "xvda",
        "type": "phy",
        "mode": mode,
        "device-type": "disk",
        "discard-enable": "1",
        "specification": "xen",
    }
    return Device(kind="vbd", devid=devid, details=details, backend=backend)


def create_requests(domid: int, uuid: str, name: str) -> list[Request]:
    """The domain's own nodes, as `xl create` makes them in one transaction before INTRODUCE."""
    home, vm, libxl = domain_dir(domid), f"{VM}/{uuid}", f"{LIBXL}/{domid}"
    guest_reads, guest_owns = ("n0", f"r{domid}"), (f"n{domid}",)
    changes: list[Request] = []
    for top, permissions in ((home, guest_reads), (vm, guest_reads), (libxl, ("n0",))):
        changes += [*_fresh(top), requests.set_perms(top, permissions)]
    changes.append(requests.mkdir(f"{libxl}/device"))
    changes.append(requests.write(f"{home}/vm", vm.encode()))
    changes.append(requests.write(f"{home}/name", name.encode()))
    changes += [requests.mkdir(f"{home}/{directory}") for directory in ("device", "control")]
    for directory in _GUEST_DIRS:
        changes.append(requests.mkdir(f"{home}/{directory}"))
        changes.append(requests.set_perms(f"{home}/{directory}", guest_owns))
    changes.append(requests.write(f"{vm}/uuid", uuid.encode()))
    changes.append(requests.write(f"{vm}/name", name.encode()))
    changes.append(requests.write(f"{home}/domid", str(domid).encode()))
    return changes


def attach_requests(domid: int, device: Device) -> list[Request]:
    """One device, as libxl__device_generic_add makes it in one transaction."""
    front, back, trusted = (
        device.frontend_dir(domid),
        device.backend_dir(domid),
        device.libxl_dir(domid),
    )
    guest_owns = (f"n{domid}", f"r{device.backend}")
    backend_owns = (f"n{device.backend}", f"r{domid}")
    changes = _fresh(trusted)
    for key, value in (("frontend", front), ("backend", back)):
        changes.append(requests.write(f"{trusted}/{key}", value.encode()))
    for directory, permissions in ((front, guest_owns), (back, backend_owns)):
        changes += [*_fresh(directory), requests.set_perms(directory, permissions)]
    for key, value in (("backend", back), *device.frontend_keys().items()):
        changes.append(requests.write(f"{front}/{key}", value.encode()))
        changes.append(requests.set_perms(f"{front}/{key}", guest_owns))
    shared = {"frontend-id": str(domid), "online": "1", "state": "1"}
    changes.append(requests.write(f"{back}/frontend", front.encode()))
    for key, value in (*shared.items(), *device.details.items()):
        changes.append(requests.write(f"{back}/{key}", value.encode()))
        changes.append(requests.write(f"{trusted}/{key}", value.encode()))
    return changes


def detach_requests(domid: int, device: Device) -> list[Request]:
    """Take a device away, not waiting for its ends."""
    places = (device.frontend_dir(domid), device.libxl_dir(domid), device.backend_dir(domid))
    return [request for place in places for request in _without(place)]


def destroy_requests(domid: int, uuid: str) -> list[Request]:
    """Remove a domain's own nodes, its devices being gone."""
    tops = (f"{VM}/{uuid}", domain_dir(domid), f"{LIBXL}/{domid}")
    return [request for top in tops for request in _without(top)]


def _without(path: str) -> list[Request]:
    """Remove a node that may be missing, with its parents: RM alone minds a missing parent."""
    return [requests.mkdir(path), requests.rm(path)]


def _fresh(path: str) -> list[Request]:
    return [*_without(path), requests.mkdir(path)]


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
