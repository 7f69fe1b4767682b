"""The agent's bridges on real links, with a net helper that only notes what it is told."""

from __future__ import annotations

import os

from bridged_host import OPEN, digest
from records import NONCE
from twisted.internet.task import Clock

from broker.agent import bridges as module
from broker.agent.bridges import Bridges
from broker.agent.durable import DurableState, HeldPort, Known
from broker.agent.gates.base import Device
from broker.agent.net_helper import NetHelper
from broker.core.consumer import Memory
from broker.net.model import NetError
from broker.net.ports import OpenPort
from broker.net.report import decode
from broker.xenstore.paths import Channel

BOOT = "a-boot"
UPLINK = OPEN.replace(
    "classes:",
    "resources:\n  lan: {ste: [red], match: {class: uplink, bridge: xpbr0, port: eth9}}\nclasses:",
)


class Kernel:
    """A helper's client that does as it is told, and `fails` when that is set."""

    def __init__(self):
        self.ports = {}
        self.pairs = frozenset()
        self.calls = []
        self.fails = ""
        self.refused = ()
        self.said = []
        self.dropped = []
        self.counted = None
        self._ends = os.pipe()

    def _called(self, what):
        if self.fails or what in self.refused:
            raise NetError(self.fails or f"{what} is refused")
        self.calls.append(what)

    def fileno(self):
        return self._ends[0]

    def close(self):
        self.fails = "the net helper has ended"

    def check(self):
        self._called("check")

    def events(self):
        if self.fails:
            raise NetError(self.fails)
        said, self.said = self.said, []
        return said

    def drops(self):
        self._called("drops")
        return self.dropped

    def filter_counts(self):
        self._called("filters")
        return self.counted

    def numbers_in_kernel(self):
        self._called("numbers")
        return frozenset()

    def start(self, target):
        self._called("start")
        self.ports, self.pairs = dict(target.ports), target.pairs

    def put(self, port):
        self._called("put")
        self.ports[port.index] = port

    def remove(self, index):
        self._called("remove")
        self.ports.pop(index, None)

    def update(self, target, during=None):
        self._called("update")
        self.ports, self.pairs = dict(target.ports), target.pairs

    def names(self):
        return {port.name for port in self.ports.values()}


class Process:
    def wait(self, _timeout=None):
        return 0


class Readers(Clock):
    def addReader(self, reader):
        pass

    def removeReader(self, reader):
        pass


class Fixture:
    def __init__(self, lab, directory):
        self.lab, self.directory = lab, directory
        self.kernels = []
        self.broken = ""
        self.clock = Readers()
        self.helper = NetHelper(self.clock)
        self.durable = DurableState(directory, 0)
        self.policies = directory / "policies"
        self.policies.mkdir()
        self.put(OPEN)
        with lab.host.entered():
            self.index = module.LinkTable().named("vif4.0").index
        lab.host.ip("link", "set", "vif4.0", "master", "xpbr0")
        lab.host.ip("link", "set", "vif4.0", "up")

    def put(self, text):
        (self.policies / f"{digest(text)[-8:]}.yaml").write_text(text)

    def spawn(self):
        if self.broken:
            raise NetError(self.broken)
        self.kernels.append(Kernel())
        return self.kernels[-1], Process()

    @property
    def kernel(self):
        return self.kernels[-1]

    def know(self, domid=4, label="web", policy=OPEN, nonce=NONCE, held=True, **memory):
        """What the agent remembers of an open vif."""
        port = OpenPort(f"vif{domid}.0", label, "xpbr0")
        fields = {"seq": 5, "granted": nonce, "label": label, "policy": digest(policy)}
        known = Known(
            nonce=nonce,
            memory=Memory(**{**fields, **memory}),
            port=HeldPort(port, self.index, BOOT) if held else None,
        )
        self.durable.saved.slots[f"vif/{domid}/0"] = known
        return known

    def start(self):
        with self.lab.host.entered():
            made = Bridges(
                ["xpbr0"],
                policies=self.policies,
                report=self.directory / "net.json",
                durable=self.durable,
                helper=self.helper,
                reactor=self.clock,
            )
            made.start()
            self.helper.start()
        self.bridges = made
        return made

    def report(self):
        self.clock.advance(0.2)
        return decode((self.directory / "net.json").read_bytes(), "net.json")


def device(domid=4, nonce=NONCE, **values):
    keys = {"bridge": b"xpbr0", **values}
    return Device(channel=Channel(0, "vif", domid, "0"), kind="vif", values=keys, nonce=nonce)
