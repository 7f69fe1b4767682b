"""A backend's directory in memory, for the gates' tests."""

from __future__ import annotations

from broker.agent.gates.base import GateError


class Nodes:
    """Notes what is written and removed; `over` ends the life."""

    def __init__(self):
        self.done = []
        self.over = False

    async def check(self, device):
        if self.over:
            raise GateError("the device is gone")

    async def write(self, device, items):
        await self.check(device)
        self.done += [f"{name}={value.decode()}" for name, value in items]

    async def remove(self, device, names):
        await self.check(device)
        self.done += [f"-{name}" for name in names]

    async def remove_directory(self, device):
        await self.check(device)
        self.done.append("-")
