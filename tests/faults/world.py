"""A host in one process: the product's processes, a toolstack, guests, and time that is stepped.

Nothing runs but in `turns()`: each carries out one request, delivers one answer or event, or makes
one call that is due, in an order that the dice choose. `check()` raises what went wrong by then.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from disks import Disk
from fault_log import FaultLog
from fault_policies import POLICIES, disk_of
from hosting import Hosting
from kernels import Kernel
from processes import EPOCH, Agent, Broker, edges
from twisted.internet import defer
from twisted.logger import LogLevel, globalLogPublisher
from wires import Store

from broker.core.consumer import STALE_AFTER
from broker.core.record import inputs_digest
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.rpc.selector import Selector
from broker.service.authority import local_root
from broker.xenstore import paths, wire
from broker.xenstore.errors import NotFoundError, StoreError

MOST_TURNS = 60_000
"""Messages and calls until a world that is left alone has to be at rest."""
_TMP = "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"


class ViolationError(AssertionError):
    """An invariant does not hold."""


class World(Hosting):
    """Everything there is; `close()` it."""

    def __init__(self, seed=0):
        self.now = 0.0
        self.directory = Path(tempfile.mkdtemp(prefix="xf-", dir=_TMP))
        (self.directory / "filters").mkdir()
        (self.directory / "policy.yaml").write_text(POLICIES["usual"].text)
        self.dice = random.Random(seed)
        self.problems = []
        self.turned = 0
        self.store = Store(self._sent, self._answered)
        self.log = FaultLog(self.public_key, self._quarantined)
        self.disk = Disk(self.log.hear)
        self.kernel = Kernel(self._opened, self._closed)
        self.broker = None
        self.agents = {}
        self.backends = {0}
        """Where there is an agent, or is to be one."""
        self.guests = {}
        self.undisturbed = {}
        """Devices that nothing has touched since the world was at rest: open then, or not."""
        self.excused = set()
        """The uuids of domains that may be held apart, for what they or their agents did."""
        self.out_of_sight = set()
        """The domids that may stay admitted: of a store that was lost, or the last to go."""
        self.mischievous = set()
        """The uuids of guests that wrote what they may not."""
        self.gates = 0
        self.forgotten = False
        self.forged = False
        self._beaten = -STALE_AFTER
        self._key = None
        self._edges = edges(self)
        self._edges.__enter__()
        globalLogPublisher.addObserver(self._hear)
        self._begin()

    def close(self):
        globalLogPublisher.removeObserver(self._hear)
        for process in self.processes():
            process.kill()
        self._edges.__exit__(None, None, None)
        shutil.rmtree(self.directory)

    # what there is

    def processes(self):
        """Those that live."""
        found = [self.broker, *self.agents.values()]
        return [it for it in found if it is not None and not it.dead]

    def store_up(self, domid):
        return self.store.embedded.domains.is_introduced(domid)

    def public_key(self):
        if self._key is None:
            pem = (self.directory / "state" / "broker.pub").read_bytes()
            self._key = load_pem_public_key(pem)
        return self._key

    def agent_dir(self, domid):
        path = self.directory / f"agent-{domid}"
        path.mkdir(exist_ok=True)
        return path

    def devices(self):
        return [it for guest in self.guests.values() for it in guest.devices.values()]

    def channel(self, device):
        what = device.device
        return paths.Channel(what.backend, what.kind, device.domid, str(what.devid))

    def read(self, path):
        try:
            return self.store.dom0.read(path)
        except StoreError:
            return None

    # time

    def turns(self, most=MOST_TURNS):
        """So many turns, or until nothing is left to be done now; how many there were."""
        for done in range(most):
            if not self._turn():
                return done
        return most

    def _turn(self):
        choices = []
        for it in self.store.wires:
            if it.requests:
                choices.append(it.carry_out)
            if it.answers:
                choices.append(it.deliver)
        choices += [_due(it.clock) for it in self.processes() if it.clock.due()]
        if not choices:
            return False
        self.turned += 1
        self.dice.choice(choices)()
        return True

    def pass_time(self, seconds):
        """Time passes; what is due meanwhile happens when it is, and all of it."""
        end = self.now + seconds
        self.turns()
        while self.now < end:
            calls = [it.clock.calls[0].getTime() for it in self.processes() if it.clock.calls]
            self.now = min([end, *[it for it in calls if it > self.now]])
            for process in self.processes():
                process.clock.rightNow = self.now
            self.turns()

    # what runs

    def start_broker(self):
        if self.broker is None or self.broker.dead:
            self.broker = Broker(self)

    def start_agent(self, domid):
        agent = self.agents.get(domid)
        if agent is None or agent.dead:
            self.agents[domid] = Agent(self, domid)

    def _begin(self):
        self.store.dom0.write("/local/domain/0/name", b"Domain-0")
        self.store.dom0.write("/local/domain/0/domid", b"0")
        self.store.dom0.mkdir("/libxl")
        self.store.dom0.mkdir("/vm")
        self.start_broker()
        self.start_agent(0)

    def lose_store(self):
        """The store is killed and started anew, empty: everybody runs on, and nobody is seen."""
        for guest in self.guests.values():
            guest.lost = True
        self.out_of_sight.update(self.guests, self.log.admitted)
        self.store.lose()

    # the administrator

    def label(self, uuid, label):
        """Whether the broker took it."""
        if self.broker.dead or self.broker.service is None:
            return False
        labels = self.broker.service.admin.labels
        try:
            if label is None:
                labels.remove(Selector("uuid", uuid), "a test")
            else:
                labels.assign(Selector("uuid", uuid), label, "a test")
        except RpcError:
            return False
        return True

    def load(self, name):
        """Put a policy in force."""
        if self.broker.dead or self.broker.service is None:
            return
        asked = methods.PolicyLoad(text=POLICIES[name].text, revoke=True)
        caller = local_root("a test").caller
        loading = defer.Deferred.fromCoroutine(self.broker.service.admin.policy_load(caller, asked))
        loading.addErrback(lambda failure: failure.trap(RpcError, StoreError) and None)

    # at rest

    def heal(self):
        """No more faults: what is dead is started, what lost something begins anew."""
        self.disk.failing = ""
        self.store.refusing.clear()
        for it in [it for it in self.store.wires if it.lossy]:
            it.cut()
        for guest in [it for it in self.guests.values() if it.lost]:
            self.destroy(guest)
        self.start_broker()
        for domid in sorted(self.backends):
            self.start_agent(domid)

    def settle(self, patience=200):
        """After the last fault: all is as it should be within bounded time and turns."""
        self.heal()
        begun, until = self.turned, self.now + patience
        wrong = self._wrong()
        while wrong:
            if self.now > until or self.turned - begun > MOST_TURNS:
                raise ViolationError("\n".join(["not at rest:", *wrong, *self.problems]))
            self.pass_time(1.0)
            self.check()
            wrong = self._wrong()
        for device in self.devices():
            self.undisturbed[device] = device.open
        self.excused.clear()
        self.forged = self.forgotten = False

    def _wrong(self):
        """What is not yet as the log, the policy and the toolstack say it should be."""
        wrong = []
        engine = None if self.broker.service is None else self.broker.service.engine
        if engine is None or engine.phase != "enforcing":
            wrong.append("the broker does not enforce")
        there = {it.domid: it.uuid for it in self.guests.values()}
        # A store that came back empty says nothing about who ran before: they may still.
        admitted = {
            domid: uuid
            for domid, (uuid, _) in self.log.admitted.items()
            if domid in there or domid not in self.out_of_sight
        }
        if there != admitted:
            wrong.append(f"{there} run, {admitted} are admitted")
        for device in self.devices():
            should = self.should_be_open(device)
            if should is not None and device.open != should:
                wrong.append(f"{device} open={device.open}: {self._shown(device)}")
            elif device.open and not self._driver_sees(device):
                wrong.append(f"{device} is open, and its driver is not told")
        return wrong

    def should_be_open(self, device):
        """Whether a device's gate is to be open; None where it may be either."""
        channel = self.channel(device)
        path = paths.decision_path(channel)
        last = self.log.last.get(path)
        nonce = None if last is None else last.record.nonce
        uuids = self.ends(device)
        disk = disk_of(device.keys.get("params", b"").decode())
        ends = (channel.frontend, channel.backend)
        allowed = self.log.allows(channel.device_class, *ends, disk)
        if not allowed or self.log.sanctioned(path, nonce):
            return False
        if self.read(f"{device.path}/frontend") is None:
            return False  # taken away for good: `_answered` sees to it that it was denied
        if any(self.log.damped.get(it, 0.0) > EPOCH + self.now for it in uuids):
            return None
        return True

    def _driver_sees(self, device):
        guest = self.guests[device.domid]
        if guest.lost:
            return True
        if device.device.kind == "vif":
            return self.read(f"{device.path}/hotplug-status") == b"connected"
        return self.read(f"{device.path}/physical-device") is not None

    def _shown(self, device):
        channel = self.channel(device)
        report = self.read(f"{paths.report_dir(channel)}/enforced")
        return f"{self.read(paths.decision_path(channel))} {report}"

    # what must hold

    def check(self):
        """Raise what went wrong so far."""
        self.problems += self.log.problems
        self.log.problems = []
        for device, was_open in self.undisturbed.items():
            if device.open != was_open:
                change = "closed" if was_open else "opened"
                self.problems.append(f"{device} was left alone and {change}: {self._shown(device)}")
        if self.problems:
            raise ViolationError("\n".join(self.problems))

    def _opened(self, process, device):
        """An agent opened a gate: by a current, audited grant for this very device."""
        self.gates += 1
        path = paths.decision_path(self.channel(device))
        text = process.reads.get(path)
        decided = self.log.by_text.get(text)
        if decided is None or decided.record.verdict != "grant":
            self.problems.append(f"{device} opened on {text!r}: no audited grant")
            return
        record = decided.record
        life = self.read(f"{device.path}/xpb-life")
        if life is not None and life != record.nonce.encode():
            self.problems.append(f"{device} opened on the grant of another life: {text!r}")
        if record.inputs != inputs_digest(device.keys):
            self.problems.append(f"{device} opened on the grant of other inputs: {text!r}")
        if self.now - self._beaten > STALE_AFTER + 1:
            self.problems.append(f"{device} opened without a broker: {text!r}")

    def _closed(self, process, device):
        """An agent closed a gate: only where a denial says so, or something was touched."""
        if device in self.undisturbed:
            self.problems.append(f"{process.name} closed {device}, which nobody touched")

    def _sent(self, process, message):
        """A process sent a request: nothing is published that the audit log has not."""
        operation, _, _, payload = message
        if operation != wire.WRITE or process is not self.broker:
            return
        path, _, text = payload.partition(b"\0")
        if path.startswith(f"{paths.DECISIONS}/".encode()) and text not in self.log.by_text:
            self.problems.append(f"published before it was audited: {text!r}")

    def _answered(self, process, request, answer):
        """The store answered: note what agents know, and who beats or takes away."""
        operation, _, payload = request
        path = payload.partition(b"\0")[0].decode("latin-1")
        refused = answer[0] == wire.ERROR
        if operation == wire.READ and path.startswith(f"{paths.DECISIONS}/"):
            if isinstance(process, Agent):
                process.reads[path] = None if refused else answer[1]
        elif refused:
            return
        elif operation == wire.WRITE and path == paths.HEARTBEAT:
            self._beaten = self.now
        elif operation == wire.RM and isinstance(process, Agent) and path in self.kernel.devices:
            self._taken_away(self.kernel.devices[path])

    def _taken_away(self, device):
        last = self.log.last.get(paths.decision_path(self.channel(device)))
        if last is None or last.record.verdict != "deny":
            self.problems.append(f"{device} was taken away without a denial")
        self.undisturbed.pop(device, None)

    def _quarantined(self, uuid, reason):
        """A domain is held apart: one that gave a reason, or whose agent could not answer."""
        if uuid not in self.excused | self.mischievous:
            self.problems.append(f"{uuid} is held apart for nothing: {reason}")
        self.disturb_domain(uuid)

    def _hear(self, event):
        """A defect that the product caught is one all the same."""
        if event["log_level"] is LogLevel.critical and "log_failure" in event:
            self.problems.append(f"a failure was logged: {event['log_failure'].getTraceback()}")

    # somebody else in domain 0, who is no root

    def replay(self, device, how):
        """The decision node holds something else: an older record, nothing, or rubbish."""
        self.forged = True
        path = paths.decision_path(self.channel(device))
        older = [it.text for it in self.log.by_text.values() if _is_of(it.text, path)]
        text = {"older": older[0] if older else b"", "nothing": b"", "rubbish": b"grant seq=1"}[how]
        try:
            self.store.dom0.read(path)
        except NotFoundError:
            return
        self.store.dom0.write(path, text)


def _due(clock):
    return lambda: clock.advance(0)


def _is_of(text, path):
    channel = paths.parse_channel(paths.DECISIONS, path)[0]
    line = f" fe={channel.frontend} be={channel.backend} class={channel.device_class} "
    return line.encode() in text and f" dev={channel.device} ".encode() in text
