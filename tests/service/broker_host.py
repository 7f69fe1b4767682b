"""A host for the broker's tests: what libxl and the agents write, and the broker run in process."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.internet import reactor, task

from broker.core.record import parse_record, verify_record
from broker.rpc import methods
from broker.rpc.selector import Selector
from broker.service.authority import local_root
from broker.service.config import Settings
from broker.service.main import Brokerd
from broker.xenstore import paths
from broker.xenstore.errors import NotFoundError

DEADLINE = 45.0
SPECS = Path(__file__).parents[2] / "protocol_specs"
POLICY = """\
policy: corp
version: "1.0"
ste_types: [system, red, blue, storage_red]
chinese_wall_types: [bank_a, bank_b]
conflict_sets: {rivals: [bank_a, bank_b]}
bootstrap: SystemManagement
labels:
  SystemManagement: {ste: [system, red, blue, storage_red]}
  web_a: {ste: [red, storage_red], chinese_wall: [bank_a]}
  web_b: {ste: [red, storage_red], chinese_wall: [bank_b]}
  plain: {ste: [red]}
  lonely: {ste: [blue]}
  driver: {ste: [red]}
resources:
  lun_red: {ste: [storage_red], match: {class: vbd, params: "/dev/vg/red-*"}}
classes:
  vif: {protocol: vif, default: ste}
  vbd: {protocol: vbd, default: deny}
  vkbd: {protocol: nowhere, default: ste}
channels:
  - {allow: {class: vbd, frontend: [web_a, web_b], backend: SystemManagement}}
"""


def nonce():
    """A nonce as an agent draws it."""
    return secrets.token_hex(16).encode()


def uuid_of(number):
    return f"00000000-0000-4000-8000-{number:012d}"


async def until(condition, what="the condition"):
    """Wait, with the reactor running, until `condition` answers something true."""
    end = reactor.seconds() + DEADLINE
    while not (result := condition()):
        assert reactor.seconds() < end, f"{what} did not come about in {DEADLINE} s"
        await task.deferLater(reactor, 0.002)
    return result


class Host:
    """dom0's toolstack and agents, on one store; everything is written as libxl does."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.client = daemon.client()
        self.client.write("/local/domain/0/name", "Domain-0")
        self.client.mkdir("/libxl")
        self.client.mkdir("/vm")

    def close(self):
        self.client.close()

    def reconnect(self):
        self.client.close()
        self.client = self.daemon.client()

    def create(self, domid, *, uuid=None, name=None, vm=None):
        uuid = uuid or uuid_of(domid)
        client = self.client
        tx = client.start()
        for path in (paths.domain_dir(domid), f"/vm/{uuid}", f"/libxl/{domid}"):
            with contextlib.suppress(NotFoundError):
                client.rm(path, tx)
            client.mkdir(path, tx)
        client.write(f"/libxl/{domid}/device", b"", tx)
        client.write(f"/local/domain/{domid}/vm", vm or f"/vm/{uuid}", tx)
        client.write(f"/local/domain/{domid}/name", name or f"d{domid}", tx)
        client.write(f"/vm/{uuid}/name", name or f"d{domid}", tx)
        client.end(tx)
        return uuid

    def destroy(self, domid, *, uuid=None):
        for path in (f"/local/domain/{domid}", f"/libxl/{domid}", f"/vm/{uuid or uuid_of(domid)}"):
            with contextlib.suppress(NotFoundError):
                self.client.rm(path)

    def attach(self, domid, device_class, device, details, *, backend=0, kind=None, path=None):
        """A device, as libxl writes it in one transaction."""
        client = self.client
        home = paths.libxl_device_dir(domid, device_class, str(device))
        front = paths.frontend_dir(domid, device_class, str(device))
        back = path or paths.backend_dir(backend, kind or device_class, domid, str(device))
        tx = client.start()
        for directory in (home, front):
            with contextlib.suppress(NotFoundError):
                client.rm(directory, tx)
        client.write(f"{home}/frontend", front, tx)
        client.write(f"{home}/backend", back, tx)
        client.write(f"{front}/backend", back, tx)
        client.write(f"{front}/backend-id", str(backend), tx)
        for key, value in details.items():
            client.write(f"{home}/{key}", value, tx)
        client.end(tx)
        return paths.Channel(backend, device_class, domid, str(device))

    def vif(self, domid, device=0, *, backend=0, bridge="xenbr0"):
        details = {"script": "vif-bridge", "mac": f"00:16:3e:00:00:{domid:02x}", "bridge": bridge}
        return self.attach(domid, "vif", device, {**details, "type": "vif"}, backend=backend)

    def vbd(self, domid, device=51712, *, params="/dev/vg/red-1", mode="w", backend=0, kind=None):
        details = {"params": params, "mode": mode, "type": "phy", "script": "block"}
        return self.attach(domid, "vbd", device, details, backend=backend, kind=kind)

    def detach(self, channel):
        device = str(channel.device)
        for make in (paths.libxl_device_dir, paths.frontend_dir):
            self.client.rm(make(channel.frontend, channel.device_class, device))

    def report(self, channel, value=None):
        """The agent's report of a new life."""
        value = nonce() if value is None else value
        self.client.write(f"{paths.report_dir(channel)}/nonce", value)
        return value

    def text(self, channel):
        """The published record's bytes; empty if there is none."""
        return self.read(paths.decision_path(channel)) or b""

    def record(self, channel):
        text = self.text(channel)
        return parse_record(text) if text else None

    def verdict(self, channel):
        record = self.record(channel)
        return None if record is None else record.verdict

    def read(self, path):
        try:
            return self.client.read(path)
        except NotFoundError:
            return None

    async def decided(self, channel, verdict, reason=""):
        """The record, once it is `verdict` with `reason` in its reason."""

        def fits():
            record = self.record(channel)
            if record is not None and record.verdict == verdict and reason in record.reason:
                return record
            return None

        try:
            return await until(fits)
        except AssertionError:
            raise AssertionError(f"{verdict} {reason!r} expected: {self.text(channel)!r}") from None


class BrokerBox:
    """Runs brokers in process, one after another, on one state directory."""

    def __init__(self, address):
        self.directory = Path(tempfile.mkdtemp(prefix="xb-", dir="/tmp"))
        self.state = self.directory / "state"
        self.policy = self.directory / "policy.yaml"
        self.policy.write_text(POLICY)
        self.specs = self.directory / "specs"
        self.specs.mkdir()
        for name in ("vif", "vbd"):
            (self.specs / f"{name}.yaml").write_bytes((SPECS / f"{name}.yaml").read_bytes())
        self.address = address
        self.options = {}
        self.brokerd = None

    def settings(self, **options):
        values = {
            "store": self.address,
            "state": self.state,
            "policy": self.policy,
            "specs": self.specs,
            "socket": self.directory / "rpc.sock",
            "adopt_labels": False,
            "burst": 50,
            "refill": 10.0,
        }
        return Settings(**{**values, **self.options, **options})

    def make(self, *, init=None, **options):
        init = not self.state.exists() if init is None else init
        self.brokerd = Brokerd(self.settings(**options), reactor, init=init)
        return self.brokerd

    async def start(self, *, init=None, **options):
        brokerd = self.make(init=init, **options)
        brokerd.start()
        await until(lambda: brokerd.engine.phase == "enforcing" or brokerd.refused, "enforcing")
        return brokerd

    async def stop(self):
        if self.brokerd is not None:
            brokerd, self.brokerd = self.brokerd, None
            await brokerd.stop()

    @property
    def engine(self):
        return self.brokerd.engine

    def label(self, key, label, bound="uuid"):
        """Assign a label as an administrator does."""
        return self.brokerd.admin.labels.assign(Selector(bound, key), label, "test")

    async def load(self, text, **options):
        """Put a policy in force as local root does."""
        arguments = methods.PolicyLoad(text=text, **options)
        caller = local_root("a test").caller
        return await self.brokerd.admin.policy_load(caller, arguments)

    def selector(self, key, bound="uuid"):
        """A domain as administrators name it."""
        return Selector(bound, key)

    def journal(self):
        """The audit log's lines."""
        self.brokerd.audit.flush()
        text = (self.state / "audit.jsonl").read_bytes()
        return [msgspec.json.decode(line) for line in text.splitlines()]

    def lines(self, event):
        return [line for line in self.journal() if line["event"] == event]

    def public_key(self):
        return load_pem_public_key((self.state / "broker.pub").read_bytes())

    def verified(self, text):
        return verify_record(text, self.public_key())

    async def close(self):
        await self.stop()
        shutil.rmtree(self.directory)
