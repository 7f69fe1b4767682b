"""A second look at what a guest seems to have made of its copy of a device.

The toolstack writes the guest's copy and its own at once, but the broker reads one after the other:
a device that was attached anew in between is nobody's fault, and its event is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.service.mirror import HIDDEN
from broker.xenstore import paths
from broker.xenstore.errors import DeniedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.service.mirror import Device
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.errors import StoreError

Copies = tuple[bytes | None, bytes | None]
"""A guest's `backend` and `backend-id`."""


def copies_of(backend: bytes | StoreError, number: bytes | StoreError) -> Copies:
    """What was read of a guest's copy; hidden where the broker may not read it."""
    return _guest_value(backend), _guest_value(number)


async def make_sure(store: StoreConnection, suspects: Mapping[Device, Copies]) -> None:
    """Read the copies again, between two looks at the toolstack's; what is unclear stays as before.

    `suspects` are the devices with the copies they had before.

    Raises:
        StoreError: the connection is lost.
    """
    if not suspects:
        return
    wanted: list[str] = []
    for device in suspects:
        place = (device.domid, device.device_class, device.device)
        truth, home = paths.libxl_device_dir(*place), paths.frontend_dir(*place)
        wanted += [f"{truth}/backend", f"{home}/backend", f"{home}/backend-id", f"{truth}/backend"]
    answers = iter(await store.read_many(wanted))
    for device, before in suspects.items():
        first, backend, number, last = (next(answers) for _ in range(4))
        clear = first == last == device.keys.get("backend")
        device.set_copies(copies_of(backend, number) if clear else before)


def _guest_value(answer: bytes | StoreError) -> bytes | None:
    if isinstance(answer, bytes):
        return answer
    return HIDDEN if isinstance(answer, DeniedError) else None
