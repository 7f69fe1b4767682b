"""What may happen on a host, in any order: a hypothesis machine over one `World`."""

from __future__ import annotations

import hypothesis.strategies as st
from fault_policies import POLICIES, STE
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import World

from broker.sim.toolstack import vbd, vif

_SOME = st.integers(0, 11)
"""One of however many there are."""
_LABELS = st.sampled_from([None, *sorted(set(STE) - {"SystemManagement"})])
_DISKS = st.sampled_from(["/dev/vg/red-1", "/dev/vg/red-2", "/dev/vg/blue-1", "/dev/vg/other"])
_PAUSES = st.sampled_from([0.1, 1.0, 3.0, 12.0])
_UUIDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(1, 5)]
_DRIVERS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(21, 23)]
_MAC = "00:16:3e:00:00:01"
KINDS = ("broker", "agents", "disk", "store", "events", "forgery")
"""Kinds of faults: a sequence has some of them, since each start over hides what came before."""


def _in(kind):
    """A rule for sequences with this kind of fault."""
    return precondition(lambda machine: kind in machine.kinds)


class Faults(RuleBasedStateMachine):
    """Each rule is one event; between them whatever the dice leave undone is under way."""

    only = None
    """The kinds of faults that every sequence has, where it is not left to chance."""

    def __init__(self):
        super().__init__()
        self.world = None
        self.kinds = frozenset()

    @initialize(
        seed=st.integers(0, 2**32),
        mixed=st.booleans(),
        kinds=st.sets(st.sampled_from(KINDS), max_size=3),
    )
    def a_host(self, seed, mixed, kinds):
        """A host at work: one guest with a disk and a vif, and maybe one beside it, at a driver."""
        self.kinds = frozenset(kinds if self.only is None else self.only)
        world = self.world = World(seed)
        guest = self._create(0, "red")
        world.attach(guest, vif(0, _MAC))
        world.attach(guest, vbd(51712, "/dev/vg/red-1"))
        if mixed:
            self._create_driver(0)
            world.attach(self._create(1, "bank_a"), vif(0, _MAC, backend=max(world.backends)))
        world.settle()

    def teardown(self):
        if self.world is not None:
            try:
                self.world.settle()
            finally:
                self.world.close()

    @invariant()
    def all_holds(self):
        if self.world is not None:
            self.world.check()

    # time

    @rule(turns=st.sampled_from([1, 5, 20, 100]))
    def some_turns(self, turns):
        self.world.turns(turns)

    @rule(seconds=_PAUSES)
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    @rule()
    def all_comes_to_rest(self):
        self.world.settle()

    # the toolstack

    @rule(which=st.integers(0, 3), label=_LABELS, disk=_DISKS, at=_SOME)
    def domain_comes(self, which, label, disk, at):
        if any(it.uuid == _UUIDS[which] for it in self.world.guests.values()):
            return
        guest = self._create(which, label)
        self.world.attach(guest, vif(0, _MAC, backend=self._backend(at)))
        self.world.attach(guest, vbd(51712, disk))

    @rule(which=_SOME)
    def domain_goes(self, which):
        guest = self._one([it for it in self._guests() if it.uuid in _UUIDS], which)
        if guest is not None:
            self._disturb(guest.uuid)
            self.world.destroy(guest)

    @rule(which=_SOME, devid=st.integers(0, 1), at=_SOME)
    def vif_is_attached_or_swapped(self, which, devid, at):
        guest = self._one(self._guests(), which)
        if guest is not None and guest.domid not in self.world.backends:
            self.world.attach(guest, vif(devid, _MAC, backend=self._backend(at)))

    @rule(which=_SOME, disk=_DISKS)
    def disk_is_attached_or_swapped(self, which, disk):
        guest = self._one(self._guests(), which)
        if guest is not None and guest.domid not in self.world.backends:
            self.world.attach(guest, vbd(51712, disk))

    @rule(which=_SOME)
    def device_goes(self, which):
        device = self._one(self._devices(), which)
        if device is not None:
            self.world.detach(self.world.guests[device.domid], device)

    @rule(which=_SOME, disk=_DISKS)
    def disk_is_exchanged_in_place(self, which, disk):
        disks = [it for it in self._devices() if it.device.kind == "vbd"]
        device = self._one(disks, which)
        if device is not None:
            self.world.exchange(self.world.guests[device.domid], device, disk)

    @rule(which=st.integers(0, 1))
    def driver_domain_comes(self, which):
        if not any(it.uuid == _DRIVERS[which] for it in self.world.guests.values()):
            self._create_driver(which)

    @rule(which=_SOME)
    def driver_domain_goes(self, which):
        domid = self._one(sorted(self.world.backends - {0}), which)
        if domid is not None:
            guest = self.world.guests[domid]
            self._disturb(guest.uuid)
            self.world.destroy(guest)

    # the administrator

    @rule(uuid=st.sampled_from([*_UUIDS, *_DRIVERS]), label=_LABELS)
    def label_changes(self, uuid, label):
        self._disturb(uuid)
        self.world.label(uuid, label)
        self._disturb(uuid)

    @rule(name=st.sampled_from(sorted(POLICIES)))
    def policy_is_swapped(self, name):
        self.world.disturb(lambda _: True)
        self.world.load(name)

    # guests, and somebody in domain 0

    @rule(which=_SOME, key=st.sampled_from(["backend", "backend-id", "state", "junk"]))
    def guest_writes(self, which, key):
        device = self._one(self._devices(), which)
        if device is None:
            return
        guest = self.world.guests[device.domid]
        self.world.disturb_domain(guest.uuid)
        self.world.mischievous.add(guest.uuid)
        connection = self.world.store.embedded.connect(guest.domid)
        connection.write(f"{device.device.frontend_dir(guest.domid)}/{key}", b"/local/\xff7")
        connection.close()

    @precondition(lambda self: "forgery" in self.kinds and not self.world.forgotten)
    @rule(which=_SOME, how=st.sampled_from(["older", "nothing", "rubbish"]))
    def decision_is_replaced(self, which, how):
        device = self._one(self._devices(), which)
        if device is not None:
            self.world.replay(device, how)

    # crashes

    @_in("broker")
    @rule()
    def broker_is_killed(self):
        self._excuse_drivers()
        self.world.broker.kill()

    @_in("broker")
    @rule(share=st.sampled_from([0.0, 0.3, 1.0]))
    def brokers_machine_crashes(self, share):
        self._excuse_drivers()
        if not self.world.broker.dead:
            self.world.broker.crash(share)

    @_in("broker")
    @rule()
    def broker_starts(self):
        self.world.start_broker()

    @_in("agents")
    @rule(at=_SOME)
    def agent_is_killed(self, at):
        self._excuse_drivers()
        agent = self.world.agents[self._backend(at)]
        if not agent.dead:
            agent.kill()

    @precondition(lambda self: "agents" in self.kinds and not self.world.forged)
    @rule(at=_SOME)
    def agent_forgets_its_nonces(self, at):
        self.agent_is_killed(at)
        self.world.forgotten = True
        domid = self._backend(at)
        for file in self.world.agent_dir(domid).iterdir():
            file.unlink()
        self.world.start_agent(domid)

    @_in("agents")
    @rule(at=_SOME)
    def agent_starts(self, at):
        self.world.start_agent(self._backend(at))

    # the disk

    @_in("disk")
    @rule(how=st.sampled_from(["write", "sync", ""]))
    def disk_fails_or_is_well(self, how):
        self._excuse_drivers()
        self.world.disk.failing = how

    # the store

    @_in("store")
    @rule(at=_SOME, error=st.sampled_from(["EAGAIN", "ENOSPC", "E2BIG"]), times=st.integers(1, 6))
    def store_refuses(self, at, error, times):
        self._excuse_drivers()
        process = self._one(self.world.processes(), at)
        if process is not None:
            self.world.store.refusing[process.name] = (error, times)

    @_in("events")
    @rule(at=_SOME)
    def events_are_lost(self, at):
        self._excuse_drivers()
        self.world.excused.update(_UUIDS)
        wire = self._one(self.world.store.wires, at)
        if wire is not None:
            wire.lose_events()

    @_in("events")
    @rule(at=_SOME)
    def events_come_otherwise(self, at):
        self.world.excused.update(_UUIDS)
        wire = self._one(self.world.store.wires, at)
        if wire is not None:
            wire.shuffle_events(self.world.dice)

    @_in("store")
    @rule(at=_SOME)
    def connection_is_cut(self, at):
        self._excuse_drivers()
        wire = self._one(self.world.store.wires, at)
        if wire is not None:
            wire.cut()

    @_in("store")
    @rule()
    def store_is_lost(self):
        self._excuse_drivers()
        self.world.lose_store()

    # what the rules speak of

    def _one(self, things, which):
        things = list(things)
        return things[which % len(things)] if things else None

    def _guests(self):
        return [it for it in self.world.guests.values() if not it.lost]

    def _devices(self):
        return [it for guest in self._guests() for it in guest.devices.values()]

    def _backend(self, at):
        known = [it for it in self.world.backends if it == 0 or not self.world.guests[it].lost]
        return self._one(sorted(known), at)

    def _free(self):
        """The lowest number that no domain has: that of one that just went, as a rule."""
        return next(it for it in range(11, 99) if it not in self.world.guests)

    def _create(self, which, label):
        self._disturb(_UUIDS[which])
        self.world.label(_UUIDS[which], label)
        return self.world.create(self._free(), _UUIDS[which])

    def _create_driver(self, which):
        self._disturb(_DRIVERS[which])
        self.world.label(_DRIVERS[which], "driver")
        domid = self.world.create(self._free(), _DRIVERS[which]).domid
        self.world.backends.add(domid)
        self.world.start_agent(domid)

    def _disturb(self, uuid):
        self.world.disturb_domain(uuid)

    def _excuse_drivers(self):
        """Who cannot hear or answer may be held apart for it."""
        self.world.excused.update(_DRIVERS)
