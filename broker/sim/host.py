"""A host in one directory: an embedded store, brokerd and broker-agent as real processes.

The processes are the product's own programs; only the hypervisor, the toolstack and the drivers
are simulated, over the same store, each domain on a connection with its own domid.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from twisted.internet import task

from broker.core.record import Record, parse_record
from broker.rpc.client import Client
from broker.service.specs import load_specs
from broker.sim.drivers import Drivers
from broker.sim.toolstack import Device, Toolstack
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import NotFoundError
from broker.xenstore.paths import Channel, decision_path, report_dir
from broker.xenstore.transport import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from broker.xenstore.transport import Reactor

PATIENCE: Final = 10.0
"""Seconds to wait for any one thing."""
_ENTRY: Final = {
    "store": "broker.xenstore.store.main",
    "brokerd": "broker.service.main",
    "agent": "broker.agent.main",
}


class HostError(Exception):
    """Something did not come about in time, or a process ended by itself."""


class Domain:
    """A simulated domain: its identity, its devices, and its drivers' connection."""

    def __init__(self, domid: int, name: str, uuid: str, devices: Sequence[Device]) -> None:
        self.domid = domid
        self.name = name
        self.uuid = uuid
        self.devices = list(devices)
        self.label: str | None = None
        self.connection: StoreConnection | None = None


class SimulatedHost:
    """The processes, the toolstack and the domains; `directory` must be short (sockets).

    `rpc` is what more to say under that key of broker.yaml.
    """

    def __init__(
        self, reactor: Reactor, directory: Path, *, policy: Path, specs: Path, rpc: str = ""
    ) -> None:
        self.directory = directory
        self.rpc_socket = directory / "run" / "broker.sock"
        self._store_socket = directory / "xenstored"
        self._guest_sockets = directory / "guests"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._reactor = reactor
        self.specs = load_specs(specs)
        self._domids = 0
        self._connection: StoreConnection | None = None
        (directory / "broker.yaml").write_text(
            f"store: unix:{self._store_socket}\nstate: {directory}/state\n"
            f"policy: {policy}\nspecs: {specs}\nrpc:\n  socket: {self.rpc_socket}\n{rpc}"
        )
        (directory / "agent.yaml").write_text(
            f"store: unix:{self._store_socket}\ndomid: 0\ngates: simulated\n"
            f"state: {directory}/agent\nbroker_key: {directory}/state/broker.pub\n"
            "helper:\n  broker_domid: 0\n"
        )

    async def start(self) -> None:
        """Start the three programs and dom0's drivers; returns once decisions are made."""
        self._start("store", "--socket", self._store_socket, "--guest-sockets", self._guest_sockets)
        await self.until(lambda: _listens(self._store_socket), "the store to listen")
        self._connection = await self._connect(self._store_socket)
        await self._connection.write("/local/domain/0/name", b"Domain-0")
        await self._connection.write("/local/domain/0/domid", b"0")
        await self._drive(0, self._store_socket)
        await self.start_brokerd("--init")
        await self.start_agent()

    async def start_brokerd(self, *options: str) -> None:
        """Start brokerd; returns once it enforces."""
        self._start("brokerd", "--config", self.directory / "broker.yaml", *options)

        async def enforcing() -> bool:
            return await self.read("/broker/v1/state") == b"enforcing" and _listens(self.rpc_socket)

        await self.until_true(enforcing, "brokerd to enforce")

    async def start_agent(self) -> None:
        """Start dom0's agent, over simulated gates."""
        self._start("agent", "--config", self.directory / "agent.yaml")

    def kill(self, name: str) -> None:
        """SIGKILL one of the programs."""
        self._processes.pop(name).kill()

    async def stop(self) -> None:
        """End every process that was started here."""
        if self._connection is not None:
            self._connection.close()
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def rpc(self) -> Client:
        """A client of brokerd's RPC."""
        return Client(str(self.rpc_socket))

    async def create(self, name: str, uuid: str, devices: Sequence[Device]) -> Domain:
        """Create and boot a domain: its nodes, its devices, its frontends."""
        self._domids += 1
        domain = Domain(self._domids, name, uuid, devices)
        await self.toolstack.create(domain.domid, uuid, name, devices)
        guest_socket = self._guest_sockets / f"{domain.domid}.sock"
        await self.until(guest_socket.exists, f"the connection of domain {domain.domid}")
        domain.connection = await self._drive(domain.domid, guest_socket)
        return domain

    async def destroy(self, domain: Domain) -> None:
        """Destroy a domain, as `xl destroy` does."""
        if domain.connection is not None:
            domain.connection.close()
        await self.toolstack.destroy(domain.domid, domain.uuid, domain.devices)

    @property
    def toolstack(self) -> Toolstack:
        """The toolstack, on domid 0's connection."""
        return Toolstack(self._dom0())

    async def read(self, path: str) -> bytes | None:
        """A node's value as domid 0 reads it, or None."""
        try:
            return await self._dom0().read(path)
        except NotFoundError:
            return None

    async def write(self, path: str, value: bytes) -> None:
        """Write a node as domid 0."""
        await self._dom0().write(path, value)

    async def record(self, domain: Domain, device: Device) -> Record | None:
        """The published decision on one of a domain's devices."""
        text = await self.read(decision_path(_channel(domain, device)))
        return parse_record(text) if text else None

    async def enforced(self, domain: Domain, device: Device) -> str:
        """What the agent reports: its first word, and that of the record it acted on."""
        text = await self.read(f"{report_dir(_channel(domain, device))}/enforced")
        return (text or b"").decode("ascii")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition.

        Raises:
            HostError: it did not come about within `PATIENCE`, or a program ended.
        """

        async def asynchronous() -> bool:
            return condition()

        await self.until_true(asynchronous, what)

    async def until_true(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """As `until`, for a condition that asks the store."""
        deadline = time.monotonic() + PATIENCE
        while not await condition():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise HostError(f"{name} ended by itself: {self._log_tail(name)}")
            if time.monotonic() > deadline:
                raise HostError(f"waited {PATIENCE:.0f} s for {what}")
            await task.deferLater(self._reactor, 0.01)

    def _dom0(self) -> StoreConnection:
        if self._connection is None:
            raise HostError("the host is not started")
        return self._connection

    async def _connect(
        self, path: Path, on_event: Callable[[str, str], None] = lambda _path, _token: None
    ) -> StoreConnection:
        connection = StoreConnection(on_event, self._reactor)
        await connect(self._reactor, f"unix:{path}", connection)
        return connection

    async def _drive(self, domid: int, path: Path) -> StoreConnection:
        def on_event(event_path: str, token: str) -> None:
            drivers.on_event(event_path, token)

        connection = await self._connect(path, on_event)
        drivers = Drivers(domid, connection, self.specs)
        await drivers.start()
        return connection

    def _start(self, name: str, *arguments: str | Path) -> None:
        program = f"import sys; from {_ENTRY[name]} import main; sys.exit(main())"
        words = [sys.executable, "-c", program, *(str(argument) for argument in arguments)]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own programs
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _log_tail(self, name: str) -> str:
        lines = (self.directory / f"{name}.log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:])


def _channel(domain: Domain, device: Device) -> Channel:
    return Channel(device.backend, device.kind, domain.domid, str(device.devid))


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True
