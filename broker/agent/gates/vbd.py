"""The vbd gate: blkback does nothing until `physical-device` is written, and that comes last.

The disk is resolved and opened once (disk_path.py); what is handed to blkback is that very
object: a block device's number, or a loop device attached to the opened file. A read-only grant
never opens for writing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from twisted.internet import task

from broker.agent.gates import loopdev
from broker.agent.gates.base import GateError, Observed
from broker.agent.gates.disk_path import open_disk
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.internet.interfaces import IReactorTime

    from broker.agent.gates.base import BackendNodes, Device
    from broker.agent.gates.blkback import Blkback
    from broker.xenstore.paths import Channel

_GATE_NODES: Final = ("physical-device", "hotplug-status", "physical-device-path", "node")
_MODES: Final = {b"r": (False, False), b"w": (True, False), b"w!": (True, True)}
"""The field's own values, as (writable, may be shared while written)."""
_VERIFY_SECONDS: Final = 5.0
_VERIFY_STEP: Final = 0.05


class VbdGate:
    """Opens and closes blkback's devices."""

    def __init__(
        self, nodes: BackendNodes, blkback: Blkback, clock: IReactorTime, dev: bytes = b"/dev"
    ) -> None:
        self._nodes = nodes
        self._blkback = blkback
        self._clock = clock
        self._dev = dev
        self._used: dict[Channel, tuple[tuple[str, int, int], bytes]] = {}
        """Which disk each open device has, and in which mode: the stock script's sharing check."""

    def observe(self, device: Device) -> Observed:
        """Open is `physical-device` present, or blkback serving a disk whatever the nodes say."""
        untrusted_number = device.values.get("physical-device")
        if untrusted_number is not None:
            self._note_use(device, untrusted_number)
            return Observed(open=True, detail=f"physical-device {escape(untrusted_number)}")
        self._used.pop(device.channel, None)
        if self._blkback.serving(device.channel.frontend, device.channel.device):
            return Observed(open=True, detail="served by blkback without physical-device")
        return Observed(open=False, detail="no physical-device")

    async def open(self, device: Device) -> None:
        """Open the disk, attach a loop if it is a file, and hand it to blkback."""
        channel = device.channel
        untrusted_mode = device.values.get("mode", b"")
        if untrusted_mode not in _MODES:
            raise GateError(f"mode {escape(untrusted_mode)!r} is not r, w or w!")
        writable, shared = _MODES[untrusted_mode]
        params = device.values.get("params", b"")
        with open_disk(params, writable=writable, dev=self._dev) as disk:
            self._check_sharing(channel, disk.identity, writable=writable, shared=shared)
            # Taken before anything is awaited: another may be opened beside this one.
            self._used[channel] = (disk.identity, untrusted_mode)
            try:
                if disk.device is None:
                    loop = loopdev.attach(disk.fd, device.nonce, writable=writable)
                    path, number = loop.path.encode(), loop.number
                    loop_nodes = [("node", path)]
                else:
                    path, number, loop_nodes = params, disk.device, []
                await self._hand_over(device, path, number, loop_nodes)
            except BaseException:
                self._used.pop(channel, None)
                self._detach(device)
                raise

    async def _hand_over(
        self,
        device: Device,
        path: bytes,
        number: tuple[int, int],
        loop_nodes: list[tuple[str, bytes]],
    ) -> None:
        channel = device.channel
        unbound = self._blkback.exists(channel.frontend, channel.device) and not (
            self._blkback.bound(channel.frontend, channel.device)
        )
        if unbound:
            # Revoked before. Bound while there is no physical-device, it waits for one.
            try:
                self._blkback.bind(channel.frontend, channel.device)
            except OSError as error:
                raise GateError(f"blkback does not take it back: {error}") from error
        await self._nodes.write(
            device,
            [
                *loop_nodes,
                ("physical-device-path", path),
                ("physical-device", b"%x:%x" % number),
                ("hotplug-status", b"connected"),
            ],
        )

    async def suspend(self, device: Device) -> None:
        """A disk cannot be withheld from a live guest and given back: it is revoked."""
        await self.revoke(device, final=False)

    async def revoke(self, device: Device, *, final: bool) -> None:
        """Nodes, driver, loop; each seen to be gone; for good, then the directory."""
        channel = device.channel
        await self._nodes.remove(device, _GATE_NODES)
        if self._blkback.bound(channel.frontend, channel.device):
            try:
                self._blkback.unbind(channel.frontend, channel.device)
            except OSError as error:
                raise GateError(f"blkback does not let go: {error}") from error
        await self._until_gone(device)
        self._detach(device)
        self._used.pop(channel, None)
        if final:
            await self._nodes.remove_directory(device)

    async def release(self, device: Device) -> None:
        """Detach the life's loop device, which no script will do any more."""
        self._used.pop(device.channel, None)
        self._detach(device)

    def sweep(self, nonces: Collection[str]) -> None:
        """Detach loop devices of lives that are over; one in use goes when its use ends."""
        for loop in loopdev.tagged():
            if loop.tag not in nonces and not loop.autoclear:
                with contextlib.suppress(GateError):
                    loopdev.detach(loop)

    async def _until_gone(self, device: Device) -> None:
        channel = device.channel
        name = device.values.get("dev", b"").decode("ascii", "replace")
        deadline = self._clock.seconds() + _VERIFY_SECONDS
        while True:
            threads = self._blkback.threads(channel.frontend, name) if name else []
            if not threads and not self._blkback.bound(channel.frontend, channel.device):
                return
            if self._clock.seconds() >= deadline:
                left = ", ".join(threads) or "its driver"
                raise GateError(f"not closed after {_VERIFY_SECONDS:.0f} s: {left} is still there")
            await task.deferLater(self._clock, _VERIFY_STEP)

    def _detach(self, device: Device) -> None:
        """Detach the loops of this life, and the one in `node` if its script is bypassed."""
        for loop in loopdev.tagged(device.nonce):
            loopdev.detach(loop)
        untrusted_node = device.values.get("node", b"").decode("ascii", "replace")
        if untrusted_node.startswith("/dev/loop"):
            named = loopdev.at(untrusted_node)
            if named is not None and named.tag in {"", device.nonce}:
                loopdev.detach(named)

    def _note_use(self, device: Device, untrusted_number: bytes) -> None:
        """Remember which disk a device has that was opened before the agent came."""
        if device.channel in self._used:
            return
        major, colon, minor = untrusted_number.decode("ascii", "replace").partition(":")
        try:
            number = (int(major, 16), int(minor, 16))
        except ValueError:
            return
        if not colon:
            return
        node = device.values.get("node", b"").decode("ascii", "replace")
        loop = loopdev.at(node) if node.startswith("/dev/loop") else None
        own = loop is not None and loop.number == number
        identity = loop.identity if loop is not None and own else ("block", *number)
        self._used[device.channel] = (identity, device.values.get("mode", b""))

    def _check_sharing(
        self, channel: Channel, identity: tuple[str, int, int], *, writable: bool, shared: bool
    ) -> None:
        """A disk that one guest may write is nobody else's, unless `w!` says so."""
        if shared:
            return
        for other, (its_identity, its_mode) in self._used.items():
            if other == channel or its_identity != identity:
                continue
            if writable or its_mode != b"r":
                raise GateError(f"the disk is in use by {other}")
