"""A toolstack and a hand-signing broker on a real store, and an agent in this process."""

from __future__ import annotations

import contextlib
import time

from records import KEY, UUID, record
from twisted.internet import reactor, task

from broker.agent.durable import DurableState
from broker.agent.gates.simulated import SimulatedGate
from broker.agent.lives import MARKER
from broker.agent.session import AgentSession
from broker.core.record import inputs_digest, sign_heartbeat
from broker.xenstore.errors import NotFoundError, StoreError

DEADLINE = 45.0


async def until(condition, what="the condition"):
    """Let the reactor run until `condition()` is true and return it."""
    end = time.monotonic() + DEADLINE
    while not (result := condition()):
        assert time.monotonic() < end, f"{what} did not come about in {DEADLINE} s"
        await task.deferLater(reactor, 0.005, lambda: None)
    return result


class Bed:
    """domain 0's toolstack and broker, over one blocking connection."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.store = daemon.client()
        self.seq = 0
        self.fences = 0
        self.beat = 0
        self._beating = task.LoopingCall(self.send_beat)

    def close(self):
        self.stop_beating()
        self.store.close()

    def reconnect(self):
        self.store.close()
        self.store = self.daemon.client()

    # the toolstack
    def attach(self, slot, fe=3, be=0, uuid=UUID, libxl=True, **values):
        """A device as libxl makes it; `slot` is class/devid."""
        device_class, devid = slot.split("/")
        defaults = {
            "vif": {"script": "/etc/xen/scripts/vif-broker", "mac": "00:16:3e:00:00:01"}
            | {"bridge": "xpbr0", "handle": devid, "type": "vif", "hotplug-status": ""},
            "vbd": {"params": "/srv/disk.img", "type": "phy", "mode": "w", "dev": "xvda"}
            | {"script": "/etc/xen/scripts/block-broker"},
        }[device_class]
        frontend = f"/local/domain/{fe}/device/{device_class}/{devid}"
        backend = f"/local/domain/{be}/backend/{device_class}/{fe}/{devid}"
        nodes = {"frontend": frontend, "frontend-id": str(fe), "online": "1", "state": "1"}
        nodes |= defaults | values
        tx = self.store.start()
        self.store.write(f"/local/domain/{fe}/vm", f"/vm/{uuid}", tx=tx)
        if libxl:
            trusted = f"/libxl/{fe}/device/{device_class}/{devid}"
            self.store.write(f"{trusted}/backend", backend, tx=tx)
            for key, value in nodes.items():
                self.store.write(f"{trusted}/{key}", value, tx=tx)
        with contextlib.suppress(NotFoundError):
            self.store.rm(backend, tx=tx)
        self.store.mkdir(backend, tx=tx)
        for key, value in nodes.items():
            self.store.write(f"{backend}/{key}", value, tx=tx)
        self.store.end(tx)
        return backend

    def detach(self, slot, fe=3, be=0):
        device_class, devid = slot.split("/")
        for path in (
            f"/local/domain/{be}/backend/{device_class}/{fe}/{devid}",
            f"/libxl/{fe}/device/{device_class}/{devid}",
        ):
            self.store.rm(path)

    # the broker
    def send_beat(self):
        self.beat += 1
        self.store.write("/broker/v1/heartbeat", sign_heartbeat(self.beat, KEY))

    def start_beating(self):
        self._beating.start(0.2)

    def stop_beating(self):
        if self._beating.running:
            self._beating.stop()

    def decide(self, slot, verdict="grant", fe=3, be=0, **changes):
        """Sign and publish a record about what is there now; returns its text."""
        device_class, devid = slot.split("/")
        nonce = self.report(slot, "nonce", fe, be)
        inputs = inputs_digest(
            self.values(f"/local/domain/{be}/backend/{device_class}/{fe}/{devid}")
        )
        fields = {
            "seq": self.seq,
            "nonce": nonce.decode() if nonce else None,
            "inputs": inputs,
            "frontend": fe,
            "backend": be,
            "device_class": device_class,
            "device": devid,
        }
        self.seq += 1
        text = record(verdict, **{**fields, **changes})
        self.publish(slot, text, fe, be)
        return text

    def publish(self, slot, text, fe=3, be=0):
        device_class, devid = slot.split("/")
        self.store.write(f"/broker/v1/decision/{be}/{device_class}/{fe}/{devid}", text)

    # looking
    def read(self, path):
        try:
            return self.store.read(path)
        except StoreError:
            return None

    def values(self, path):
        try:
            names = self.store.directory(path)
        except NotFoundError:
            return {}
        found = {name: self.read(f"{path}/{name}") for name in names if name}
        # The agent may have taken one away meanwhile.
        return {name: value for name, value in found.items() if value is not None}

    def report(self, slot, name, fe=3, be=0):
        device_class, devid = slot.split("/")
        return self.read(f"/broker/v1/report/{be}/{device_class}/{fe}/{devid}/{name}")

    def enforced(self, slot, fe=3, be=0):
        """The first word of the report, None before there is one."""
        line = self.report(slot, "enforced", fe, be)
        return line.split(b" ")[0].decode() if line else None

    def marker(self, slot, fe=3, be=0):
        device_class, devid = slot.split("/")
        return self.read(f"/local/domain/{be}/backend/{device_class}/{fe}/{devid}/{MARKER}")

    def gate(self, slot, fe=3, be=0):
        """What a driver would see: whether the gate's nodes are there."""
        device_class, devid = slot.split("/")
        path = f"/local/domain/{be}/backend/{device_class}/{fe}/{devid}"
        if device_class == "vbd":
            return self.read(f"{path}/physical-device") is not None
        return self.read(f"{path}/hotplug-status") == b"connected"

    async def nonce(self, slot, other_than=None, fe=3, be=0):
        def reported():
            nonce = self.report(slot, "nonce", fe, be)
            return nonce if nonce and nonce != other_than else None

        return await until(reported, f"a nonce for {slot}")

    async def fence(self):
        """Wait until the agent has dealt with all that was written before."""
        self.fences += 1
        slot = f"vif/{1000 + self.fences}"
        self.attach(slot)
        await until(lambda: self.enforced(slot), "a report on a later device")
        self.detach(slot)

    async def comes_to(self, slot, state, fe=3, be=0):
        await until(
            lambda: self.enforced(slot, fe, be) == state,
            f"{slot} reported {state}, not {self.report(slot, 'enforced', fe, be)}",
        )


def simulated(nodes):
    gate = SimulatedGate(nodes)
    return {"vif": gate, "vbd": gate}


def start_agent(address, directory, domid=0, make_gates=simulated, key=None, **options):
    """An agent in this process; `agent.gate` is its simulated gate."""
    agent = AgentSession(
        address,
        reactor,
        domid=domid,
        key=key or KEY.public_key(),
        durable=DurableState(directory, domid),
        make_gates=make_gates,
        **options,
    )
    agent.startService()
    return agent
