"""brokerd and agents, the product's own, in this process: started, killed, their time passed.

What they reach beyond themselves is replaced at its edge: the reactor by a `Clock`, the store's
socket by a wire, the disk by a `Disk`, chance by dice that fall alike. Nothing inside is.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from kernels import KernelGate
from twisted.internet import defer
from twisted.internet.task import Clock

from broker.agent import durable as agent_durable
from broker.agent.durable import DurableState
from broker.agent.helper import HelperSession
from broker.agent.session import AgentSession
from broker.audit.segments import NEWEST
from broker.service import durable, journal, judge, main, police, policies, statedir
from broker.service.config import Settings
from broker.service.journal import Rotation
from broker.service.main import Brokerd, UnwritableError
from broker.xenstore import session, transaction

SPECS = Path(__file__).parents[2] / "protocol_specs"
EPOCH = 1_800_000_000.0
"""Seconds since 1970 when a world begins."""
_SEGMENT = 32_768
"""Bytes of a segment of the audit log: some sequences see one rotated."""


class Machine(Clock):
    """A process's reactor: its clock, and the way to the store."""

    def __init__(self, process, now):
        super().__init__()
        self.process = process
        self.rightNow = now

    def due(self):
        """Whether something was to be called by now."""
        return bool(self.calls) and self.calls[0].getTime() <= self.rightNow


class Process:
    """One program: while it lives, its clock runs; when it is killed nothing of it runs again."""

    def __init__(self, world, name, domid):
        self.world = world
        self.name = name
        self.domid = domid
        self.dead = False
        self.clock = Machine(self, world.now)

    def kill(self):
        """SIGKILL: at once, wherever it was. What it still tries reaches nobody."""
        self.dead = self.world.disk.dead = True
        try:
            for wire in self.world.store.wires_of(self):
                wire.cut()
            self._bury()
        finally:
            self.world.disk.dead = False

    def _bury(self):
        """Give back what the kernel would."""


class _Brokerd(Brokerd):
    """Without the RPC's sockets; calls are made to `admin`."""

    def _serve(self):
        """Nobody calls from outside."""


class Broker(Process):
    """brokerd, in domain 0."""

    def __init__(self, world):
        super().__init__(world, "brokerd", 0)
        world.disk.opened.clear()
        state = world.directory / "state"
        settings = Settings(
            store="unix:wire",
            state=state,
            policy=world.directory / "policy.yaml",
            specs=SPECS,
            filters=world.directory / "filters",
            socket=world.directory / "rpc",
            late=True,
            adopt_labels=False,
            burst=50,
            refill=10.0,
            rotation=Rotation(size=_SEGMENT, keep=4),
        )
        self.service = None
        try:
            self.service = _Brokerd(settings, self.clock, init=not state.exists())
        except (UnwritableError, OSError):
            # Its disk is bad: it ends, and is started again later.
            self.kill()
            return
        self.service.start()

    def _bury(self):
        for file in list(self.world.disk.opened):
            os.close(file)
        self.world.disk.opened.clear()

    def crash(self, share):
        """Its machine is gone: what was not synced is lost, but for a `share` of it."""
        self.kill()
        self.world.disk.lose_unsynced(self.world.directory / "state" / NEWEST, share)


class Agent(Process):
    """broker-agent of one domain, over the kernel's gates; in domain 0 with its helper."""

    def __init__(self, world, domid):
        super().__init__(world, f"agent{domid}", domid)
        self.reads = {}
        """What it read last of each decision."""

        def make_gates(nodes):
            gate = KernelGate(nodes, world.kernel, self)
            return {"vif": gate, "vbd": gate}

        self.session = AgentSession(
            "unix:wire",
            self.clock,
            domid=domid,
            key=world.public_key(),
            durable=DurableState(world.agent_dir(domid), domid),
            make_gates=make_gates,
        )
        self.session.startService()
        self.helper = HelperSession("unix:wire", self.clock, broker=0) if domid == 0 else None
        if self.helper is not None:
            self.helper.startService()


def _connect(reactor, _address, protocol):
    """In place of a socket."""
    process = reactor.process
    if process.dead or not process.world.store_up(process.domid):
        return defer.fail(ConnectionRefusedError("no store"))
    process.world.store.connect(process, protocol)
    return defer.succeed(protocol)


# Pure functions of their files, and half of a start: read once.
_load_policy = cache(main.load_policy)
_load_descriptions = cache(main.load_descriptions)


@contextlib.contextmanager
def edges(world):
    """Replace what the product reaches out to by what belongs to this world."""
    clock = SimpleNamespace(
        time=lambda: EPOCH + world.now, perf_counter=time.perf_counter, monotonic=lambda: world.now
    )
    with contextlib.ExitStack() as stack:
        for module, name, instead in (
            (session, "connect", _connect),
            (session, "SystemRandom", lambda: random.Random(7)),
            (transaction, "_random", random.Random(7)),
            (journal, "os", world.disk),
            (durable, "os", world.disk),
            (statedir, "os", world.disk),
            (agent_durable, "os", world.disk.untracked),
            (police, "time", clock),
            (judge, "time", clock),
            (main, "load_policy", _load_policy),
            (policies, "load_policy", _load_policy),
            (main, "load_descriptions", _load_descriptions),
        ):
            stack.enter_context(mock.patch.object(module, name, instead))
        yield
