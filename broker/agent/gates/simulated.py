"""A gate with no kernel behind it: for the demo, for load, and where only xenstore is at hand.

What the kernel would show is read from the backend's own nodes, so it outlives a restart as a
kernel's state does. Each move is noted in `moves`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from broker.agent.gates.base import Observed

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.agent.gates.base import BackendNodes, Device

_MOVES_KEPT: Final = 10_000


class Move(msgspec.Struct, frozen=True):
    """One thing a simulated gate did: `open`, `suspend`, `revoke`, `remove` or `release`."""

    what: str
    path: str


class SimulatedGate:
    """Plays the gate of vif and of vbd by writing what the real ones write."""

    def __init__(self, nodes: BackendNodes) -> None:
        self._nodes = nodes
        self.moves: deque[Move] = deque(maxlen=_MOVES_KEPT)

    def observe(self, device: Device) -> Observed:
        """Open is what a driver would take for open."""
        if device.kind == "vif":
            is_open = device.values.get("hotplug-status") == b"connected"
        else:
            is_open = "physical-device" in device.values
        return Observed(open=is_open, detail="simulated")

    async def open(self, device: Device) -> None:
        """Write what tells the driver to go on."""
        items = [("hotplug-status", b"connected")]
        if device.kind != "vif":
            items.insert(0, ("physical-device", b"7:0"))
        await self._nodes.write(device, items)
        self._note("open", device)

    async def suspend(self, device: Device) -> None:
        """Take that back."""
        await self._nodes.remove(device, ["physical-device", "hotplug-status"])
        self._note("suspend", device)

    async def revoke(self, device: Device, *, final: bool) -> None:
        """Take that back, and for good the directory too."""
        await self._nodes.remove(device, ["physical-device", "hotplug-status"])
        if final:
            await self._nodes.remove_directory(device)
        self._note("remove" if final else "revoke", device)

    async def release(self, device: Device) -> None:
        """Nothing is held."""
        self._note("release", device)

    def sweep(self, nonces: Collection[str]) -> None:
        """Nothing is held."""

    def _note(self, what: str, device: Device) -> None:
        self.moves.append(Move(what, device.path))
