"""What every gate offers, and what a gate is told about a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from broker.xenstore.paths import Channel, backend_dir

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class GateError(Exception):
    """A gate could not be moved, or the kernel does not show what was asked for."""


class NotReadyError(GateError):
    """The kernel does not have the device yet; an event will tell when it has."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One life of one device in its backend domain.

    `kind` is the backend's own; `values` are the nodes of the backend's directory, as read
    together with the life's nonce; `nonce` is empty for a life that is not reported yet.
    """

    channel: Channel
    kind: str
    values: dict[str, bytes]
    nonce: str

    @property
    def path(self) -> str:
        """The backend's directory."""
        channel = self.channel
        return backend_dir(channel.backend, self.kind, channel.frontend, channel.device)


class Observed(msgspec.Struct, frozen=True):
    """What the kernel shows: whether anything passes, and in words."""

    open: bool
    detail: str


class BackendNodes(Protocol):
    """The backend's directory in xenstore, written only while the same life is still there.

    Every function raises `GateError` if the life is over, `StoreError` if the store refuses.
    """

    async def check(self, device: Device) -> None:
        """Raise unless the directory still holds this life."""

    async def write(self, device: Device, items: Sequence[tuple[str, bytes]]) -> None:
        """Write these nodes in this order, all or none."""

    async def remove(self, device: Device, names: Sequence[str]) -> None:
        """Remove these nodes, those there are; all or none."""

    async def remove_directory(self, device: Device) -> None:
        """Remove the directory, and read back that it is gone."""


class Gate(Protocol):
    """One class's gate. All functions raise `GateError` or `StoreError` when they fail.

    Each is idempotent and may be repeated after a failure or a kill at any point.
    """

    def observe(self, device: Device) -> Observed:
        """What the kernel, and the nodes just read, show now."""

    async def open(self, device: Device) -> None:
        """Let it pass; only ever called upon a good grant for this life."""

    async def suspend(self, device: Device) -> None:
        """Let nothing pass, reversibly where the class can; verified before it returns."""

    async def revoke(self, device: Device, *, final: bool) -> None:
        """Let nothing pass and take the connection down; `final` takes the device away."""

    async def release(self, device: Device) -> None:
        """The life is over: close what is left of it, give back what the gate holds for it."""

    def sweep(self, nonces: Collection[str]) -> None:
        """Give back what is held for lives other than these, the open ones: a crash's leavings."""
