"""What libxl writes for one device: the same nodes, in its order, with its permissions.

One place for all that set a device up or take it away: the agent on the broker's orders, and the
simulated toolstack. Taken from a trace of real Xen 4.17 (libxl__device_generic_add and, for the
taking away, libxl__device_destroy).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from broker.xenstore import requests
from broker.xenstore.errors import NotFoundError
from broker.xenstore.paths import backend_dir, frontend_dir, libxl_device_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.xenstore.requests import Request
    from broker.xenstore.transaction import Transaction

VIF_SCRIPT: Final = "/etc/xen/scripts/vif-broker"
VBD_SCRIPT: Final = "/etc/xen/scripts/block-broker"
_MTU: Final = "1500"
"""LIBXL_DEVICE_NIC_MTU_DEFAULT."""
_XVD_MAJOR: Final = 202
"""The major number of Xen's virtual disks."""
_EXTENDED: Final = 1 << 28
"""Set in the devid of disks after xvdp (docs/man/xen-vbd-interface.7)."""
_SHORT_DISKS: Final = 16
_PARTITIONS: Final = 16
_EXTENDED_PARTITIONS: Final = 256
_LEADING: Final = {
    "vif": ("frontend-id", "online", "state"),
    "vbd": ("params", "script", "frontend-id", "online", "removable", "bootable", "state"),
}
"""The keys that libxl writes first to a backend's directory, by kind."""
_OWN: Final = frozenset({"frontend", "backend", "frontend-id", "online", "state"})
"""Keys of the toolstack's copy that are no details of the device."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device as a domain's configuration names it.

    `kind` is the frontend's (and the backend's) kind; `details` are the toolstack's keys of the
    backend directory, in libxl's order. `protocol` is a vbd's ring layout as libxl finds it for
    the guest's architecture; None leaves it to the frontend.
    """

    kind: str
    devid: int
    details: dict[str, str]
    backend: int = 0
    protocol: str | None = None

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
        """The toolstack's keys of the frontend directory that the guest may change."""
        if self.kind == "vbd":
            own = {"virtual-device": str(self.devid), "device-type": "disk"}
        else:
            own = {"handle": str(self.devid), "mac": self.details.get("mac", "")}
        keys = {"backend-id": str(self.backend), "state": "1", **own, "trusted": "1"}
        if self.protocol is not None:
            keys["protocol"] = self.protocol
        return keys

    def read_only_keys(self) -> dict[str, str]:
        """Those that it may only read."""
        return {"mtu": _MTU} if self.kind == "vif" else {}

    def backend_keys(self, domid: int) -> dict[str, str]:
        """The toolstack's keys of the backend directory, `frontend` apart, in its order."""
        keys = {"frontend-id": str(domid), "online": "1", "state": "1", **self.details}
        first = {key: keys[key] for key in _LEADING.get(self.kind, ()) if key in keys}
        return {**first, **keys}


def vif(
    devid: int,
    mac: str,
    *,
    bridge: str = "xenbr0",
    ip: str | None = None,
    backend: int = 0,
) -> Device:
    """A network device as `vif=['mac=…,bridge=…']` makes it; `ip` as in xl's configuration."""
    details = {"script": VIF_SCRIPT, "mac": mac}
    if ip is not None:
        details["ip"] = ip
    details |= {"bridge": bridge, "handle": str(devid), "type": "vif", "hotplug-status": ""}
    return Device(kind="vif", devid=devid, details=details, backend=backend)


def vbd(
    devid: int, params: str, *, mode: str = "w", backend: int = 0, protocol: str | None = None
) -> Device:
    """A disk as `disk=['…,target=…']` makes it; `mode` is `r` or `w`."""
    details = {
        "params": params,
        "script": VBD_SCRIPT,
        "removable": "0",
        "bootable": "1",
        "dev": disk_name(devid),
        "type": "phy",
        "mode": mode,
        "device-type": "disk",
        "discard-enable": "1",
        "specification": "xen",
    }
    return Device(kind="vbd", devid=devid, details=details, backend=backend, protocol=protocol)


def disk_name(devid: int) -> str:
    """The name of a virtual disk in its guest: 51712 is xvda, 51729 xvdb1.

    A number that no xvd has stands for itself.
    """
    if devid >= _EXTENDED:
        disk, partition = divmod(devid - _EXTENDED, _EXTENDED_PARTITIONS)
    elif devid >> 8 == _XVD_MAJOR:
        disk, partition = divmod(devid & 0xFF, _PARTITIONS)
    else:
        return str(devid)
    letters = ""
    disk += 1
    while disk:
        disk, letter = divmod(disk - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"xvd{letters}{partition or ''}"


def disk_number(disk: int) -> int:
    """The devid of the whole virtual disk number `disk`: 0 is xvda's, 51712."""
    if disk < _SHORT_DISKS:
        return _XVD_MAJOR << 8 | disk * _PARTITIONS
    return _EXTENDED | disk * _EXTENDED_PARTITIONS


_DETAILS: Final = {
    "vif": tuple(vif(0, "", ip="").details),
    "vbd": tuple(vbd(0, "").details),
}
"""The details of each kind in libxl's order: a store lists them in its own."""


def from_copy(
    kind: str, devid: int, backend: int, copy: Mapping[str, str], protocol: str | None = None
) -> Device:
    """The device that the toolstack's own copy (its keys and values) describes."""
    known = [key for key in _DETAILS.get(kind, ()) if key in copy]
    others = [key for key in copy if key not in _OWN and key not in known]
    details = {key: copy[key] for key in (*known, *others)}
    return Device(kind=kind, devid=devid, details=details, backend=backend, protocol=protocol)


def attach_requests(domid: int, device: Device) -> list[Request]:
    """One device, as libxl__device_generic_add makes it in one transaction."""
    front, back, trusted = (
        device.frontend_dir(domid),
        device.backend_dir(domid),
        device.libxl_dir(domid),
    )
    guest_owns = (f"n{domid}", f"r{device.backend}")
    backend_owns = (f"n{device.backend}", f"r{domid}")
    changes = without(trusted)
    for key, value in (("frontend", front), ("backend", back)):
        changes.append(requests.write(f"{trusted}/{key}", value.encode()))
    changes += [*fresh(front), requests.set_perms(front, guest_owns)]
    changes.append(requests.write(f"{front}/backend", back.encode()))
    for keys, permissions in (
        (device.frontend_keys(), guest_owns),
        (device.read_only_keys(), backend_owns),
    ):
        for key, value in keys.items():
            changes.append(requests.write(f"{front}/{key}", value.encode()))
            changes.append(requests.set_perms(f"{front}/{key}", permissions))
    changes += [*fresh(back), requests.set_perms(back, backend_owns)]
    changes.append(requests.write(f"{back}/frontend", front.encode()))
    keys = device.backend_keys(domid)
    for directory in (back, trusted):
        for key, value in keys.items():
            changes.append(requests.write(f"{directory}/{key}", value.encode()))
    return changes


def detach_requests(domid: int, device: Device) -> list[Request]:
    """Take a device away, not waiting for its ends."""
    places = (device.frontend_dir(domid), device.libxl_dir(domid), device.backend_dir(domid))
    return [request for place in places for request in without(place)]


def without(path: str) -> list[Request]:
    """Remove a node that may be missing, with its parents: RM alone minds a missing parent."""
    return [requests.mkdir(path), requests.rm(path)]


def fresh(path: str) -> list[Request]:
    """An empty node, whatever was there."""
    return [*without(path), requests.mkdir(path)]


async def remove_device(tx: Transaction, *directories: str) -> None:
    """Remove a device's directories, and what is empty of the kind above each.

    Raises:
        StoreError: the store would not have it.
    """
    for directory in directories:
        with suppress(NotFoundError):
            await tx.rm(directory)
            above = directory.rpartition("/")[0]
            if not await tx.directory(above):
                await tx.rm(above)
