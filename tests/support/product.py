"""The whole product on a running store: brokerd and dom0's agent as real processes.

The test plays libxl (broker/sim/toolstack.py), the drivers (broker/sim/drivers.py) and whoever is
hostile. What must hold whatever happens is in `check()`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.internet import reactor, task

from broker.core.record import RecordError, parse_record
from broker.rpc.client import Client, UnreachableError
from broker.rpc.methods import LabelSet, Nothing
from broker.service.specs import load_specs
from broker.sim.drivers import Drivers
from broker.sim.toolstack import Toolstack, create_requests, destroy_requests, vbd, vif
from broker.xenstore import paths, requests
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import NotFoundError, StoreError
from broker.xenstore.transport import connect
from support.audit_log import AuditReader
from support.gate_monitor import GateMonitor

DEADLINE = 60.0
SPECS = load_specs(Path(__file__).parents[2] / "protocol_specs")
"""Seconds a test waits for any one thing before it fails."""
BIN = Path(sys.executable).parent
_ENTRY = {"brokerd": "broker.service.main", "agent": "broker.agent.main"}
_NOT_PRINTABLE = re.compile(rb"[^\x20-\x7e\n\t]")
POLICY = """\
policy: corp
version: "1.0"
ste_types: [system, red, blue, storage_red, storage_blue]
chinese_wall_types: [bank_a, bank_b]
conflict_sets: {rivals: [bank_a, bank_b]}
bootstrap: SystemManagement
labels:
  SystemManagement: {ste: [system, red, blue, storage_red, storage_blue]}
  red: {ste: [red, storage_red]}
  blue: {ste: [blue, storage_blue]}
  jailed: {ste: [red]}
  bank_a: {ste: [red], chinese_wall: [bank_a]}
  bank_b: {ste: [red], chinese_wall: [bank_b]}
resources:
  disks_red: {ste: [storage_red], match: {class: vbd, params: "/dev/vg/red-*"}}
  disks_blue: {ste: [storage_blue], match: {class: vbd, params: "/dev/vg/blue-*"}}
classes:
  vif: {protocol: vif, default: ste}
  vbd: {protocol: vbd, default: deny}
channels:
  - {allow: {class: vbd, frontend: [red, blue], backend: SystemManagement}}
  - {deny: {class: vif, frontend: jailed, reason: "no network in jail"}}
# What a guest writes about itself decides nothing; what follows from it is another test's.
on_violation: {default: report}
"""


async def until(condition, what="the condition", deadline=DEADLINE):
    """What `condition()` returns once it is true; the reactor runs meanwhile.

    `what` may be a function, asked when it failed.
    """
    end = time.monotonic() + deadline
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what() if callable(what) else what}: not in {deadline} s")
        await task.deferLater(reactor, 0.005)
    return result


def mac(domid, devid):
    """A MAC address of Xen's."""
    return f"00:16:3e:00:{domid & 0xFF:02x}:{devid & 0xFF:02x}"


def uuid_of(number):
    return f"00000000-0000-4000-8000-{number:012d}"


class Domain:
    """A domain that runs: `guest` is its way to the store, `devices` by kind and devid."""

    def __init__(self, domid, name, uuid, devices):
        self.domid = domid
        self.name = name
        self.uuid = uuid
        self.devices = list(devices)
        self.guest = None
        self.connection = None


class Product:
    """brokerd and an agent over simulated gates, started and killed at will.

    `broker_store` is brokerd's own address where it is not domain 0; `drivers` whether the
    drivers of all domains play along.
    """

    def __init__(self, daemon, *, policy=POLICY, broker_yaml="", agent_yaml="", drivers=True):
        self.daemon = daemon
        self.directory = Path(tempfile.mkdtemp(prefix="xp-", dir="/tmp"))
        self.state = self.directory / "state"
        self.policy = self.directory / "policy.yaml"
        self.policy.write_text(policy)
        self.socket = self.directory / "rpc"
        self.broker_store = daemon.address
        self.broker_yaml = broker_yaml
        self.agent_yaml = agent_yaml
        self.domains = {}
        self.with_drivers = drivers
        self.audit = AuditReader(self.state)
        self.monitor = GateMonitor(daemon, self.audit)
        self.witness = None
        self.client = None
        self.connection = None
        self._lives = {}
        self._next_domid = 10
        self._fences = 0
        self._seen = {}
        self._processes = {}

    # the programs

    async def start(self, *, agent=True):
        """Domain 0, its drivers, brokerd, the agent; returns when both work."""
        await self.connect()
        self.monitor.start()
        self.spawn("brokerd", "--init")
        if agent:
            await until((self.state / "broker.pub").exists, "the broker's key")
            self.spawn("agent")
            await self.agent_ready()
        await self.enforcing()

    async def connect(self):
        """Domain 0's own connections; again after the store was restarted."""
        self.client = self.daemon.client()
        self.client.write("/local/domain/0/name", "Domain-0")
        self.client.write("/local/domain/0/domid", "0")
        self.connection = await self._drive(0, self.daemon.address)

    def spawn(self, name, *options):
        """Start `brokerd` or `agent`; does not wait for anything."""
        self._configure()
        program = f"import sys; from {_ENTRY[name]} import main; sys.exit(main())"
        words = [sys.executable, "-c", program, "--config", self.directory / f"{name}.yaml"]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*words, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def pid(self, name):
        return self._processes[name].pid

    def signal(self, name, number):
        self._processes[name].send_signal(number)

    def kill(self, name):
        """SIGKILL; returns when it is gone."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def end(self, name):
        """As `kill`, also if it ended by itself."""
        process = self._processes.pop(name)
        if process.poll() is None:
            process.kill()
            process.wait()

    def terminate(self, name):
        """SIGTERM; its exit status."""
        process = self._processes.pop(name)
        process.terminate()
        return process.wait(DEADLINE)

    async def ended(self, name):
        """The exit status of a program that ends by itself."""
        process = self._processes[name]
        await until(lambda: process.poll() is not None, f"the end of {name}")
        return self._processes.pop(name).returncode

    async def restart(self, name):
        """Start again what was killed or stopped, and wait until it works."""
        ready = self.log(name).count("watching for more")
        self.spawn(name)
        await (self.enforcing() if name == "brokerd" else self.agent_ready(ready))

    async def enforcing(self):
        """brokerd answers that it enforces."""

        def enforces():
            assert self._alive("brokerd"), self.log("brokerd")[-2000:]
            try:
                return self.status().enforcing
            except UnreachableError:
                return False

        await until(enforces, lambda: f"enforcing: {self.log('brokerd')[-2000:]}")

    async def agent_ready(self, before=0):
        """The agent has read everything since its start."""

        def ready():
            assert self._alive("agent"), self.log("agent")[-2000:]
            return self.log("agent").count("watching for more") > before

        await until(ready, "the agent's first pass")

    def log(self, name):
        """What a program wrote, as text; `check()` holds it to ASCII."""
        path = self.directory / f"{name}.log"
        return path.read_text("latin-1") if path.exists() else ""

    def rpc(self):
        return Client(str(self.socket), timeout=DEADLINE)

    def status(self):
        return self.rpc().call("status", Nothing())

    def label(self, domain, label):
        """`brokerctl label set`."""
        return self.rpc().call("label.set", LabelSet(domain=f"uuid:{domain.uuid}", label=label))

    def label_name(self, name, label):
        """The same for a name, whether anybody has it or not."""
        return self.rpc().call("label.set", LabelSet(domain=f"name:{name}", label=label))

    def ctl(self, *words, json=False):
        """brokerctl's exit status and output, both streams; held to printable ASCII."""
        words = [*words, "--json"] if json else words
        done = subprocess.run(
            [BIN / "brokerctl", "--socket", self.socket, *words],
            capture_output=True, timeout=DEADLINE, check=False, env={**os.environ, "COLUMNS": "80"},
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert not _NOT_PRINTABLE.search(output), output
        assert b"Traceback" not in output, output
        return done.returncode, output.decode("ascii")

    # libxl

    async def create(self, *devices, label=None, name=None, uuid=None, domid=None, found=()):
        """A domain, labelled by uuid before it starts, as an operator would.

        `found` are nodes that a toolstack adds below `/vm/<uuid>/security`, by name.
        """
        if domid is None:
            domid = self._next_domid = self._next_domid + 1
        domain = Domain(domid, name or f"d{domid}", uuid or uuid_of(domid), devices)
        if label is not None:
            self.label(domain, label)
        if self.daemon.kind != "embedded":
            # The hypervisor's domain is there before its nodes: permissions count from then on.
            (self.daemon.directory / f"dom.{domid}").write_text("r")
        nodes = create_requests(domid, domain.uuid, domain.name)
        for key, value in dict(found).items():
            nodes.append(requests.write(f"{paths.security_dir(domain.uuid)}/{key}", value))
        await self.connection.transact(nodes)
        domain.guest = self.daemon.guest(domid)
        await self.connection.set_perms(paths.domain_dir(domid), ("n0", f"r{domid}"))
        for device in devices:
            await Toolstack(self.connection).attach(domid, device)
        if self.with_drivers:
            domain.connection = await self._drive(domid, domain.guest.address)
        self.domains[domid] = domain
        return domain

    async def attach(self, domain, device):
        await Toolstack(self.connection).attach(domain.domid, device)
        domain.devices.append(device)
        return device

    async def detach(self, domain, device):
        await Toolstack(self.connection).detach(domain.domid, device)
        domain.devices.remove(device)

    async def destroy(self, domain):
        """As `xl destroy`."""
        if domain.connection is not None:
            domain.connection.close()
        toolstack = Toolstack(self.connection)
        for device in domain.devices:
            await toolstack.detach(domain.domid, device)
        await self.connection.transact(destroy_requests(domain.domid, domain.uuid))
        domain.guest.die()
        self.domains.pop(domain.domid, None)

    # looking

    def read(self, path):
        try:
            return self.client.read(path)
        except NotFoundError:
            return None

    def channel(self, domain, device):
        return paths.Channel(device.backend, device.kind, domain.domid, str(device.devid))

    def decision_path(self, domain, device):
        return paths.decision_path(self.channel(domain, device))

    def text(self, domain, device):
        return self.read(self.decision_path(domain, device)) or b""

    def record(self, domain, device):
        """The record in the decision node, None if there is none that reads."""
        try:
            return parse_record(self.text(domain, device))
        except RecordError:
            return None

    def report(self, domain, device):
        """The agent's line."""
        path = f"{paths.report_dir(self.channel(domain, device))}/enforced"
        return (self.read(path) or b"").decode("ascii")

    def life(self, domain, device):
        return self.read(f"{device.backend_dir(domain.domid)}/xpb-life")

    def is_open(self, domain, device):
        """What a driver would see."""
        path = device.backend_dir(domain.domid)
        if device.kind == "vif":
            return self.read(f"{path}/hotplug-status") == b"connected"
        return self.read(f"{path}/physical-device") is not None

    def shown(self, domain, device):
        """All of it in words, for a failure."""
        return (
            f"{self.text(domain, device)!r}, {self.report(domain, device)!r}, "
            f"open={self.is_open(domain, device)}, life={self.life(domain, device)!r}, "
            f"{self.log('brokerd')[-1500:]} {self.log('agent')[-1500:]}"
        )

    async def comes_to(self, domain, device, verdict, reason=""):
        """Wait until record, agent and gate all say `verdict`; the record."""

        def as_told():
            record = self.record(domain, device)
            if record is None or record.verdict != verdict or reason not in record.reason:
                return None
            done = f"seq={record.seq} " in self.report(domain, device)
            return record if done and self.is_open(domain, device) == (verdict == "grant") else None

        return await until(as_told, lambda: f"{verdict} {reason!r}: {self.shown(domain, device)}")

    async def fence(self):
        """Returns once broker and agent have dealt with all that was written before."""
        nic = await self.attach(self.witness, vif(9, mac(self.witness.domid, 9)))
        await self.comes_to(self.witness, nic, "grant")
        await self.detach(self.witness, nic)
        await until(lambda: not self.text(self.witness, nic), "the end of the fence")

    async def agent_saw(self):
        """Returns once the agent has dealt with all that was written before, broker or none."""
        self._fences += 1
        back = f"/local/domain/0/backend/vif/9999/{self._fences}"
        self.client.write(f"{back}/frontend", f"/local/domain/9999/device/vif/{self._fences}")
        await until(lambda: self.read(f"{back}/xpb-life"), "the agent's look at a new device")
        report = f"{paths.REPORTS}/0/vif/9999/{self._fences}/enforced"
        await until(lambda: self.read(report), "the agent's report on it")
        self.client.rm(back)

    # what must hold

    async def settle_witness(self):
        """A domain that nothing disturbs: what is open of it must stay so to the end."""
        domid = self._next_domid = self._next_domid + 1
        devices = [vif(0, mac(domid, 0)), vbd(51712, "/dev/vg/red-w")]
        self.witness = await self.create(*devices, label="red", domid=domid, name="witness")
        for device in devices:
            await self.comes_to(self.witness, device, "grant")
            self._lives[device.devid] = self.life(self.witness, device)

    def check(self):
        """Nothing opened or was published that should not, the witness was left alone, all that
        is published is audited, and every log is printable ASCII without a traceback."""
        with self.monitor.lock:
            self.audit.refresh()
            problems = [*self.audit.problems, *self.monitor.problems]
            problems += self._unaudited()
            self.audit.problems.clear()
            self.monitor.problems.clear()
        problems += self._witness_disturbed()
        for name in self._processes:
            if not self._alive(name):
                problems.append(f"{name} ended: {self.log(name)[-1500:]}")
        for name in ("brokerd.log", "agent.log", "state/audit.jsonl"):
            problems += self._unclean(name)
        assert not problems, "\n".join(problems)

    def _unclean(self, name):
        """What a file got since the last look that is not printable ASCII, or a traceback."""
        path = self.directory / name
        data = path.read_bytes() if path.exists() else b""
        seen = self._seen.get(name, 0)
        new = data[seen if seen <= len(data) else 0 :]
        self._seen[name] = len(data)
        found = _NOT_PRINTABLE.search(new)
        if found:
            yield f"{name} has {new[max(0, found.start() - 80) : found.end() + 20]!r}"
        if b"Traceback" in new:
            at = new.index(b"Traceback")
            yield f"{name}: {new[max(0, at - 300) : at + 1500].decode('latin-1')}"

    def expect_new_lives(self):
        """The agent lost its nonces: the witness has new ones, and stays open with those."""
        for device in self.witness.devices:
            if device.devid in self._lives:
                self._lives[device.devid] = self.life(self.witness, device)

    def _unaudited(self):
        """Records in their nodes, and numbers said to be published, that the audit lacks."""
        seqs = {it.record.seq for it in self.audit.by_text.values()}
        for line in self.audit.lines:
            if line["event"] == "published":
                for seq in set(line["seqs"]) - seqs:
                    yield f"seq {seq} was published and is not in the audit"
        for path in list(self.audit.last):
            text = self.read(path)
            if text and text not in self.audit.by_text:
                self.audit.refresh()  # it may have been decided since
            if text and text not in self.audit.by_text:
                yield f"{path} holds what was never audited: {text}"

    def _witness_disturbed(self):
        if self.witness is None:
            return
        for device in self.witness.devices:
            if device.devid not in self._lives:
                continue
            path = device.backend_dir(self.witness.domid)
            if not self.is_open(self.witness, device) or self.monitor.closings(path):
                yield f"{path} closed: {self.shown(self.witness, device)}"
            if self.life(self.witness, device) != self._lives[device.devid]:
                yield f"{path} has another life"

    async def clear(self):
        """Destroy every domain but the witness."""
        for domain in [it for it in self.domains.values() if it is not self.witness]:
            await self.destroy(domain)

    def close(self):
        """End everything that was started here."""
        if self.monitor.is_alive():
            self.monitor.stop()
        for domain in self.domains.values():
            if domain.connection is not None:
                domain.connection.close()
        if self.connection is not None:
            self.connection.close()
            self.client.close()
        self.end_all()
        shutil.rmtree(self.directory)

    def end_all(self):
        """Kill what runs of the product."""
        for name in list(self._processes):
            self.kill(name)

    def _alive(self, name):
        return self._processes[name].poll() is None

    def _configure(self):
        (self.directory / "brokerd.yaml").write_text(
            f"store: {self.broker_store}\nstate: {self.state}\npolicy: {self.policy}\n"
            f"rpc: {{socket: {self.socket}}}\n{self.broker_yaml}"
        )
        (self.directory / "agent.yaml").write_text(
            f"store: {self.daemon.address}\ndomid: 0\nstate: {self.directory}/agent\n"
            f"broker_key: {self.state}/broker.pub\n{self.agent_yaml or 'gates: simulated'}\n"
        )

    async def _drive(self, domid, address):
        if not self.with_drivers:
            connection = StoreConnection(lambda path, token: None, reactor)
            return await connect(reactor, address, connection)

        def on_event(path, token):
            drivers.on_event(path, token)

        connection = await connect(reactor, address, StoreConnection(on_event, reactor))
        drivers = Drivers(domid, connection, SPECS)
        with contextlib.suppress(StoreError):
            await drivers.start()
        return connection
