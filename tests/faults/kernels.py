"""The backends' kernel: which devices pass anything, whatever agents and stores do.

It outlives the agent and the store, as a kernel does. `KernelGate` plays the real gates' order
(broker/agent/gates/vif.py, vbd.py): the life is confirmed, the kernel opened, the nodes written.
"""

from __future__ import annotations

from broker.agent.gates.base import GateError, NotReadyError
from broker.agent.gates.simulated import Observed, SimulatedGate


class Opened:
    """One device of one life, as the toolstack made it: `keys` are the toolstack's."""

    def __init__(self, domid, device):
        self.domid = domid
        self.device = device
        self.path = device.backend_dir(domid)
        self.keys = {key: value.encode() for key, value in device.backend_keys(domid).items()}
        self.open = False

    def __str__(self):
        return self.path


class Kernel:
    """All backends' devices, by directory; `on_open` and `on_close` hear what agents do."""

    def __init__(self, on_open, on_close):
        self.devices = {}
        self._on_open = on_open
        self._on_close = on_close

    def make(self, domid, device):
        """The toolstack made a device: a life of its own, closed."""
        made = self.devices[device.backend_dir(domid)] = Opened(domid, device)
        return made

    def drop(self, domid, device):
        """The toolstack took it away: whatever it was, it passes nothing."""
        self.devices.pop(device.backend_dir(domid), None)

    def open(self, process, device):
        """An agent opens this very device."""
        if process.dead:
            raise GateError("the agent is dead")
        if self.devices.get(device.path) is not device:
            raise GateError("the device is gone")
        device.open = True
        self._on_open(process, device)

    def close(self, process, path):
        """An agent closes whatever is there now."""
        found = self.devices.get(path)
        if found is not None and found.open and not process.dead:
            found.open = False
            self._on_close(process, found)


class KernelGate(SimulatedGate):
    """The simulated gate's nodes, and a kernel behind them."""

    def __init__(self, nodes, kernel, process):
        super().__init__(nodes)
        self._kernel = kernel
        self._process = process

    def observe(self, device):
        found = self._kernel.devices.get(device.path)
        return Observed(open=found is not None and found.open, detail="a kernel in a test")

    async def open(self, device):
        found = self._kernel.devices.get(device.path)
        if found is None:
            raise NotReadyError("the kernel does not have it yet")
        await self._nodes.check(device)
        try:
            if device.kind == "vif":
                self._kernel.open(self._process, found)
                await super().open(device)
            else:
                await super().open(device)
                self._kernel.open(self._process, found)
        except BaseException:
            self._kernel.close(self._process, device.path)
            raise

    async def suspend(self, device):
        self._kernel.close(self._process, device.path)
        await super().suspend(device)

    async def revoke(self, device, *, final):
        self._kernel.close(self._process, device.path)
        await super().revoke(device, final=final)

    async def release(self, device):
        self._kernel.close(self._process, device.path)
        await super().release(device)
