"""A backend's directory, read as one life of one device, and written only while that life lasts.

The life's evidence is a node of the agent's own inside the directory: libxl removes and re-creates
the directory for each device it attaches, and whatever was added to it goes with it. So a disk
swapped on the same devid, same path and same domid, is seen even when both changes arrive as one
event, and a nonce can never be handed on to the next device.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from broker.agent.gates.base import Device, GateError
from broker.agent.ungated import unclosed
from broker.core.record import INPUT_KEYS, inputs_digest
from broker.xenstore.errors import NotFoundError, StoreError
from broker.xenstore.paths import (
    LIBXL,
    Channel,
    backend_dir,
    domain_dir,
    frontend_dir,
    is_device,
    libxl_device_dir,
    parse_domid,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transaction import Transaction

MARKER: Final = "xpb-life"
"""The agent's node inside a backend's directory: the nonce of the life it was written in."""
_PLAIN_KINDS: Final = frozenset({"vif", "vbd"})
"""Kinds of backend whose frontends are of the same kind."""


class Slot(msgspec.Struct, frozen=True, order=True):
    """A place where a device may be: backend kind, frontend domid, devid, in the own domain."""

    kind: str
    frontend: int
    device: str

    def __str__(self) -> str:
        """`vif/3/0`."""
        return f"{self.kind}/{self.frontend}/{self.device}"

    @classmethod
    def parse(cls, text: str) -> Slot:
        """The slot of such a text."""
        kind, frontend, device = text.split("/")
        return cls(kind, int(frontend), device)


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a slot.

    `device` has the marker's nonce, empty if there is no marker of ours. `inputs` is the digest
    of the backend's own directory; `agreed` is the same if the toolstack's copy says the same
    (always, where that copy cannot be read: in a driver domain), else None. `uuid` is the
    frontend's, where it can be read. `elsewhere` is whether the toolstack's copy names another
    backend: this directory is a leftover then. `unclosed` says what of it no gate closes.
    """

    device: Device
    inputs: str
    agreed: str | None
    uuid: str | None
    elsewhere: bool
    unclosed: str


class BackendDirs:
    """Backend directories of domain `domid`, over whatever connection there is.

    Every function raises `StoreError`; `ConnectionLostError` also while there is no connection.
    """

    def __init__(self, domid: int, connection: Callable[[], StoreConnection]) -> None:
        self._domid = domid
        self._connection = connection

    def path(self, slot: Slot) -> str:
        """The slot's directory."""
        return backend_dir(self._domid, slot.kind, slot.frontend, slot.device)

    async def kinds(self) -> list[str]:
        """Every kind of backend that has a directory now."""
        top = f"{domain_dir(self._domid)}/backend"
        return [kind for _, kind in await _names(self._connection(), [top])]

    async def slots(self, kinds: Sequence[str]) -> list[Slot]:
        """Every slot of these kinds that has a directory now."""
        top = f"{domain_dir(self._domid)}/backend"
        connection = self._connection()
        found: list[Slot] = []
        for kind in kinds:
            domids = await _names(connection, [f"{top}/{kind}"])
            paths = [f"{top}/{kind}/{name}" for _, name in domids if parse_domid(name) is not None]
            for path, name in await _names(connection, paths):
                if is_device(kind, name):
                    found.append(Slot(kind, int(path.rpartition("/")[2]), name))
        return found

    async def look(self, slots: Sequence[Slot]) -> dict[Slot, Sight]:
        """What is in these slots; those without a device are left out.

        A directory's marker is read after all else in it. As it never comes back once gone,
        finding it means that all that was read belongs to its life.
        """
        connection = self._connection()
        listings = await connection.directory_many([self.path(slot) for slot in slots])
        wanted: list[tuple[Slot, list[str]]] = []
        for slot, names in zip(slots, listings, strict=True):
            if isinstance(names, list):
                wanted.append((slot, [name for name in names if name != MARKER]))
            elif not isinstance(names, NotFoundError):
                raise names
        classes = await self._classes([slot for slot, _ in wanted])
        paths: list[str] = []
        for slot, names in wanted:
            paths += [f"{self.path(slot)}/{name}" for name in names]
            paths += self._toolstack_paths(slot, classes[slot])
            paths.append(f"{self.path(slot)}/{MARKER}")
        answers = iter(await connection.read_many(paths))
        sights: dict[Slot, Sight] = {}
        for slot, names in wanted:
            values = {name: next(answers) for name in names}
            toolstack = [next(answers) for _ in self._toolstack_paths(slot, classes[slot])]
            sight = self._sight(slot, classes[slot], values, toolstack, next(answers))
            if sight is not None:
                sights[slot] = sight
        return sights

    async def _classes(self, slots: Sequence[Slot]) -> dict[Slot, str]:
        """Each slot's frontend's kind: as the backend's, but for the likes of qdisk (a vbd).

        For those it is the one that the directory's `frontend` names, if that is about this
        domid and devid.
        """
        classes = {slot: slot.kind for slot in slots}
        others = [slot for slot in slots if slot.kind not in _PLAIN_KINDS]
        if not others:
            return classes
        paths = [f"{self.path(slot)}/frontend" for slot in others]
        for slot, value in zip(others, await self._connection().read_many(paths), strict=True):
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else ""
            named = "".join(text.split("/")[5:6])
            if is_device(named, slot.device) and text == frontend_dir(
                slot.frontend, named, slot.device
            ):
                classes[slot] = named
        return classes

    async def begin(self, slot: Slot) -> Sight | None:
        """Begin a life in this slot: draw a nonce, mark the directory with it, read it all."""
        nonce = secrets.token_hex(16)
        path = self.path(slot)

        async def mark(transaction: Transaction) -> bool:
            try:
                await transaction.read(f"{path}/frontend")
            except NotFoundError:
                return False
            await transaction.write(f"{path}/{MARKER}", nonce.encode("ascii"))
            return True

        if not await self._connection().transaction(mark):
            return None
        sight = (await self.look([slot])).get(slot)
        return sight if sight is not None and sight.device.nonce == nonce else None

    async def check(self, device: Device) -> None:
        """Raise `GateError` unless the directory still holds this life."""
        await _same_life(self._connection(), device, 0)

    async def write(self, device: Device, items: Sequence[tuple[str, bytes]]) -> None:
        """Write these nodes in this order, all or none, in this life and with its inputs only."""
        inputs = [f"{device.path}/{key}" for key in INPUT_KEYS]
        judged = [device.values.get(key) for key in INPUT_KEYS]

        async def body(transaction: Transaction) -> None:
            await _same_life(self._connection(), device, transaction.id)
            answers = await transaction.read_many(inputs)
            if [it if isinstance(it, bytes) else None for it in answers] != judged:
                raise GateError("the device's inputs changed")
            for name, value in items:
                await transaction.write(f"{device.path}/{name}", value)

        await self._connection().transaction(body)

    async def remove(self, device: Device, names: Sequence[str]) -> None:
        """Remove these nodes, those there are, in this life only."""
        paths = [f"{device.path}/{name}" for name in names]

        async def body(transaction: Transaction) -> None:
            connection = self._connection()
            await _same_life(connection, device, transaction.id)
            # What is not there is no error. In one go: a live channel waits to be closed.
            for refused in await connection.rm_many(paths, transaction.id):
                if refused is not None:
                    raise refused

        await self._connection().transaction(body)

    async def remove_directory(self, device: Device) -> None:
        """Remove the directory of this life, and read back that it is gone."""

        async def body(transaction: Transaction) -> None:
            await _same_life(self._connection(), device, transaction.id)
            await transaction.rm(device.path)

        await self._connection().transaction(body)
        try:
            await _same_life(self._connection(), device, 0)
        except GateError:
            return
        raise GateError(f"{device.path} is still there")

    def _toolstack_paths(self, slot: Slot, device_class: str) -> list[str]:
        """What only domain 0 can read: the frontend's uuid and type, the toolstack's copy."""
        if self._domid != 0:
            return []
        copy = libxl_device_dir(slot.frontend, device_class, slot.device)
        return [
            f"{domain_dir(slot.frontend)}/vm",
            f"{LIBXL}/{slot.frontend}/type",
            f"{copy}/backend",
            *(f"{copy}/{key}" for key in INPUT_KEYS),
        ]

    def _sight(
        self,
        slot: Slot,
        device_class: str,
        answers: dict[str, bytes | StoreError],
        toolstack: list[bytes | StoreError],
        marker: bytes | StoreError,
    ) -> Sight | None:
        values = {name: value for name, value in answers.items() if isinstance(value, bytes)}
        frontend = frontend_dir(slot.frontend, device_class, slot.device)
        if "frontend" not in values:
            return None
        # Domid and devid are the path's; a directory that claims another frontend is of no use.
        honest = values["frontend"] == frontend.encode("ascii")
        inputs = inputs_digest(values)
        agreed: str | None = inputs if honest else None
        uuid, hvm, elsewhere = None, False, False
        if toolstack:
            vm, kind, backend, *copies = toolstack
            copied = dict(zip(INPUT_KEYS, copies, strict=True))
            copy = {key: value for key, value in copied.items() if isinstance(value, bytes)}
            named = backend == self.path(slot).encode("ascii")
            elsewhere = isinstance(backend, bytes) and not named
            if not named or inputs_digest(copy) != inputs:
                agreed = None
            uuid, hvm = _uuid(vm), kind == b"hvm"
        nonce = marker.decode("ascii", "replace") if isinstance(marker, bytes) else ""
        channel = Channel(self._domid, device_class, slot.frontend, slot.device)
        return Sight(
            device=Device(channel=channel, kind=slot.kind, values=values, nonce=nonce),
            inputs=inputs,
            agreed=agreed,
            uuid=uuid,
            elsewhere=elsewhere,
            unclosed=unclosed(slot.kind, slot.device, values, hvm=hvm),
        )


async def _names(connection: StoreConnection, paths: list[str]) -> list[tuple[str, str]]:
    """Each child of each path, with its parent; a path that is not there has none."""
    found: list[tuple[str, str]] = []
    for path, names in zip(paths, await connection.directory_many(paths), strict=True):
        if isinstance(names, list):
            found += [(path, name) for name in names]
        elif not isinstance(names, NotFoundError):
            raise names
    return found


async def _same_life(connection: StoreConnection, device: Device, transaction: int) -> None:
    try:
        marker = await connection.read(f"{device.path}/{MARKER}", transaction)
    except NotFoundError:
        marker = b""
    if not device.nonce or marker != device.nonce.encode("ascii"):
        raise GateError("the device is gone, or another took its place")


def _uuid(vm: bytes | StoreError) -> str | None:
    if not isinstance(vm, bytes) or not vm.startswith(b"/vm/"):
        return None
    return vm[4:].decode("ascii", "replace")
