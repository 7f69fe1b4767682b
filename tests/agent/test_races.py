"""What changes between judging and opening, and what was open before anybody asked."""

from __future__ import annotations

import pytest
import pytest_twisted
from bed import Bed, start_agent, until
from records import KEY
from twisted.internet import defer, reactor

from broker.agent.consumer import Consumer
from broker.agent.gates import loopdev
from broker.agent.gates.base import GateError, Observed
from broker.agent.gates.simulated import SimulatedGate
from broker.agent.lives import BackendDirs, Slot
from broker.xenstore.session import StoreSession

VIF, VBD = "vif/0", "vbd/51712"
OPENING = {VIF: ("hotplug-status", "connected"), VBD: ("physical-device", "fd:0")}
SLOTS = pytest.mark.parametrize("slot", [VIF, VBD])


@pytest_twisted.async_yield_fixture
async def bed(store_daemon):
    made = Bed(store_daemon)
    made.start_beating()
    yield made
    made.close()


class SlowGate(SimulatedGate):
    """Closing waits for `closed`; `moves` tells what was begun. Domain 9's cannot be looked at."""

    def __init__(self, nodes):
        super().__init__(nodes)
        self.closed = defer.succeed(None)
        self.begun = []

    def observe(self, device):
        if device.channel.frontend == 9:
            raise GateError("links cannot be read")
        return super().observe(device)

    async def revoke(self, device, *, final):
        self.begun.append(device.channel.device)
        await self.closed
        await super().revoke(device, final=final)

    async def suspend(self, device):
        await self.revoke(device, final=False)


class Slow:
    """An agent with slow gates."""

    def __init__(self, bed, tmp_path):
        self.agent = start_agent(bed.daemon.address, tmp_path, make_gates=self.make)

    def make(self, nodes):
        self.gate = SlowGate(nodes)
        return {"vif": self.gate, "vbd": self.gate}


async def held(agent):
    """Begin no pass from now on, so that a later one sees all that changed meanwhile."""
    await until(lambda: not agent._busy)
    agent._busy = True


def let_go(agent):
    agent._busy = False
    agent._kick()


def denied(bed, slot):
    bed.decide(slot, "deny", reason="withdrawn")


def swapped(bed, slot):
    bed.attach(slot)


def rewritten(bed, slot):
    device_class, devid = slot.split("/")
    bed.store.write(f"/local/domain/0/backend/{device_class}/3/{devid}/mode", "w!")


def removed(bed, slot):
    device_class, devid = slot.split("/")
    bed.store.rm(f"/local/domain/0/backend/{device_class}/3/{devid}")


@SLOTS
@pytest.mark.parametrize("change", [denied, swapped, rewritten, removed])
@pytest_twisted.ensureDeferred
async def test_what_changes_while_others_are_closed_is_not_opened(bed, tmp_path, slot, change):
    """One pass closes a device, slowly, and then opens another: what allowed it is looked at."""
    slow = Slow(bed, tmp_path)
    other = "vbd/51728"
    for it in (slot, other):
        bed.attach(it)
        await bed.nonce(it)
    bed.decide(other)
    await bed.comes_to(other, "open")
    slow.gate.closed = defer.Deferred()
    slow.gate.moves.clear()
    # Held back until both are there, so that one pass sees them.
    await held(slow.agent)
    bed.decide(other, "deny")
    bed.decide(slot)
    wanted = {Slot("vbd", 3, "51728"), Slot(slot.split("/")[0], 3, slot.split("/")[1])}
    await until(lambda: wanted <= set(slow.agent._dirty))
    let_go(slow.agent)
    await until(lambda: slow.gate.begun)
    change(bed, slot)
    slow.gate.closed.callback(None)
    await until(lambda: not bed.gate(other))
    await bed.fence()
    assert not bed.gate(slot)
    assert [it for it in slow.gate.moves if it.what == "open" and "/3/1001" not in it.path] == []
    await slow.agent.stop()


@SLOTS
@pytest_twisted.ensureDeferred
async def test_what_is_denied_is_being_closed_before_anything_is_written_down(
    bed, tmp_path, slot, monkeypatch
):
    slow = Slow(bed, tmp_path)
    bed.attach(slot)
    await bed.nonce(slot)
    bed.decide(slot)
    await bed.comes_to(slot, "open")
    await held(slow.agent)
    begun = []
    save = slow.agent._durable.save
    monkeypatch.setattr(
        slow.agent._durable, "save", lambda: begun.append(list(slow.gate.begun)) or save()
    )
    slow.gate.closed = defer.Deferred()
    bed.decide(slot, "deny")
    device_class, devid = slot.split("/")
    await until(lambda: Slot(device_class, 3, devid) in slow.agent._dirty)
    let_go(slow.agent)
    await until(lambda: begun)
    assert begun[0] == [devid]
    slow.gate.closed.callback(None)
    await bed.comes_to(slot, "closed" if slot == VBD else "suspended")
    await slow.agent.stop()


@pytest_twisted.ensureDeferred
async def test_of_denials_written_together_none_waits_for_another_that_closes_slowly(
    bed, tmp_path, monkeypatch
):
    slow = Slow(bed, tmp_path)
    devices = {"vif": [str(number) for number in range(8)], "vbd": ["51712"]}
    slots = [f"{kind}/{devid}" for kind, devids in devices.items() for devid in devids]
    for slot in slots:
        bed.attach(slot)
        await bed.nonce(slot)
        bed.decide(slot)
    for slot in slots:
        await bed.comes_to(slot, "open")
    await until(lambda: not slow.agent._busy)
    slow.gate.closed = defer.Deferred()
    denials = {}
    monkeypatch.setattr(bed, "publish", lambda slot, text, *_: denials.update({slot: text}))
    for slot in reversed(slots):
        bed.decide(slot, "deny")
    with bed.daemon.client() as store:
        tx = store.start()
        for slot, text in denials.items():
            store.write("/broker/v1/decision/0/{}/3/{}".format(*slot.split("/")), text, tx=tx)
        store.end(tx)
    await until(lambda: len(slow.gate.begun) == len(slots))
    slow.gate.closed.callback(None)
    for slot in slots:
        await until(lambda slot=slot: not bed.gate(slot))
    await slow.agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_heartbeat_that_stops_while_others_are_closed_opens_nothing(
    bed, tmp_path, monkeypatch
):
    slow = Slow(bed, tmp_path)
    for it in (VIF, VBD):
        bed.attach(it)
        await bed.nonce(it)
    bed.decide(VBD)
    await bed.comes_to(VBD, "open")
    slow.gate.closed = defer.Deferred()
    await held(slow.agent)
    bed.decide(VBD, "deny")
    bed.decide(VIF)
    await until(lambda: {Slot("vbd", 3, "51712"), Slot("vif", 3, "0")} <= set(slow.agent._dirty))
    let_go(slow.agent)
    await until(lambda: slow.gate.begun)
    monkeypatch.setattr(slow.agent._heartbeat, "fresh", lambda _now: False)
    slow.gate.closed.callback(None)
    await bed.comes_to(VBD, "closed")
    await bed.fence()
    assert not bed.gate(VIF)
    monkeypatch.undo()
    await bed.comes_to(VIF, "open")
    await slow.agent.stop()


@pytest_twisted.async_yield_fixture
async def session(bed):
    """A connection of its own to the bed's store."""
    made = StoreSession(
        bed.daemon.address,
        reactor,
        on_connect=lambda _connection: defer.succeed(None),
        on_event=lambda _path, _token: None,
        on_disconnect=lambda _reason: None,
    )
    made.startService()
    await until(lambda: made.connection)
    yield made
    await made.stopService()


@pytest_twisted.ensureDeferred
async def test_the_gates_nodes_are_written_only_beside_the_inputs_that_were_judged(bed, session):
    dirs, slot = BackendDirs(0, lambda: session.connection), Slot("vbd", 3, "51712")
    backend = bed.attach(VBD)
    device = (await dirs.begin(slot)).device
    bed.store.write(f"{backend}/params", "/srv/other.img")
    with pytest.raises(GateError, match="inputs changed"):
        await dirs.write(device, [("physical-device", b"7:0")])
    assert not bed.gate(VBD)
    bed.store.write(f"{backend}/params", "/srv/disk.img")
    await dirs.write(device, [("physical-device", b"7:0")])
    assert bed.gate(VBD)


@pytest_twisted.ensureDeferred
async def test_the_gates_nodes_that_are_there_are_removed_in_the_lives_own_directory_alone(
    bed, session
):
    dirs, slot = BackendDirs(0, lambda: session.connection), Slot("vbd", 3, "51712")
    backend = bed.attach(VBD)
    device = (await dirs.begin(slot)).device
    gate_nodes = ("physical-device", "hotplug-status", "node")
    bed.store.write(f"{backend}/physical-device", "7:0")
    bed.store.write(f"{backend}/node", "/dev/loop0")
    await dirs.remove(device, gate_nodes)
    assert not {*gate_nodes} & {*bed.store.directory(backend)}
    assert {"params", "frontend"} <= {*bed.store.directory(backend)}
    backend = bed.attach(VBD)
    bed.store.write(f"{backend}/physical-device", "7:1")
    with pytest.raises(GateError, match="another took its place"):
        await dirs.remove(device, gate_nodes)
    assert bed.gate(VBD)


@SLOTS
@pytest_twisted.ensureDeferred
async def test_what_another_opened_together_with_its_grant_is_opened_anew(bed, tmp_path, slot):
    agent = start_agent(bed.daemon.address, tmp_path)
    backend = bed.attach(slot)
    await bed.nonce(slot)
    gate = agent._gates[slot.split("/")[0]]
    await held(agent)
    bed.store.write("/".join((backend, OPENING[slot][0])), OPENING[slot][1])
    bed.decide(slot)
    await until(lambda: agent._dirty)
    await until(lambda: bed.gate(slot))
    gate.moves.clear()
    let_go(agent)
    await until(lambda: [it.what for it in gate.moves if "1001" not in it.path][-1:] == ["open"])
    assert next(it.what for it in gate.moves) in {"suspend", "revoke"}
    await bed.comes_to(slot, "open")
    await agent.stop()


@SLOTS
@pytest_twisted.ensureDeferred
async def test_opened_while_the_agent_was_away_where_it_knew_a_device_it_is_closed(
    bed, tmp_path, slot
):
    agent = start_agent(bed.daemon.address, tmp_path)
    bed.attach(slot)
    first = await bed.nonce(slot)
    bed.decide(slot, "pending")
    await until(lambda: b"pending" in (bed.report(slot, "enforced") or b""))
    await agent.stop()
    bed.attach(slot, **dict([OPENING[slot]]))
    agent = start_agent(bed.daemon.address, tmp_path)
    await bed.nonce(slot, other_than=first)
    await until(lambda: not bed.gate(slot))
    await agent.stop()


@SLOTS
@pytest_twisted.ensureDeferred
async def test_what_was_found_open_and_then_closed_is_like_any_other(bed, tmp_path, slot):
    backend = bed.attach(slot, **dict([OPENING[slot]]))
    agent = start_agent(bed.daemon.address, tmp_path)
    await bed.comes_to(slot, "open")
    name, value = OPENING[slot]
    bed.store.rm(f"{backend}/{name}")
    await bed.comes_to(slot, "closed")
    bed.store.write(f"{backend}/{name}", value)
    await until(lambda: not bed.gate(slot))
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_device_that_cannot_be_looked_at_holds_up_no_other(bed, tmp_path):
    slow = Slow(bed, tmp_path)
    bed.attach(VIF)
    await bed.nonce(VIF)
    bed.decide(VIF)
    await bed.comes_to(VIF, "open")
    await held(slow.agent)
    bed.attach(VIF, fe=9)
    bed.decide(VIF, "deny")
    await until(lambda: {Slot("vif", 9, "0"), Slot("vif", 3, "0")} <= set(slow.agent._dirty))
    let_go(slow.agent)
    await bed.comes_to(VIF, "suspended")
    await slow.agent.stop()


@pytest.mark.parametrize(
    "path", ["/dev/loop-control", "/dev/loop/../null", "/dev/loop0\0", "/dev/null", "/dev/loop"]
)
def test_what_is_no_loop_device_is_not_asked_to_be_one(path):
    assert loopdev.at(path) is None


@pytest_twisted.ensureDeferred
async def test_a_consumer_without_memories_closes_nothing_that_it_finds_open(bed):
    backend = bed.attach(VIF)
    ports, told = set(), []

    def decided(channel, judgement):
        told.append(judgement.action)
        if judgement.action in {"suspend", "close"}:
            ports.discard(channel)

    channel = Slot("vif", 3, "0")
    consumer = Consumer(
        bed.daemon.address,
        reactor,
        domid=0,
        key=KEY.public_key(),
        kinds=["vif"],
        is_open=lambda it: (it.device_class, it.frontend, it.device) in ports,
        decided=decided,
    )
    ports.add((channel.kind, channel.frontend, channel.device))
    consumer.startService()
    await until(lambda: told)
    bed.store.write(f"{backend}/state", "2")
    count = len(told)
    await until(lambda: len(told) > count)
    assert set(told) == {"hold"}
    ports.clear()
    bed.store.write(f"{backend}/state", "4")
    count = len(told)
    await until(lambda: len(told) > count)
    ports.add((channel.kind, channel.frontend, channel.device))
    bed.store.write(f"{backend}/state", "2")
    await until(lambda: told[-1] == "suspend")
    await consumer.stopService()


class KernelsGate(SimulatedGate):
    """What is open is the kernel's to say, whatever the store holds: `serving`."""

    def __init__(self, nodes):
        super().__init__(nodes)
        self.serving = set()

    def observe(self, device):
        return Observed(open=device.path in self.serving, detail="by the kernel")

    async def open(self, device):
        await super().open(device)
        self.serving.add(device.path)

    async def release(self, device):
        await super().release(device)
        self.serving.discard(device.path)


@SLOTS
@pytest_twisted.ensureDeferred
async def test_a_store_that_comes_back_empty_closes_nothing_that_the_kernel_serves(
    bed, tmp_path, slot
):
    gates = []

    def make(nodes):
        gates.append(KernelsGate(nodes))
        return {"vif": gates[0], "vbd": gates[0]}

    agent = start_agent(bed.daemon.address, tmp_path, make_gates=make)
    bed.attach(slot)
    await bed.nonce(slot)
    bed.decide(slot)
    await bed.comes_to(slot, "open")
    (served,) = gates[0].serving
    bed.stop_beating()
    bed.daemon.restart_empty()
    bed.reconnect()
    bed.start_beating()
    lost = Slot(slot.split("/")[0], 3, slot.split("/")[1])
    await until(lambda: lost in agent._enforcer.lost)
    for _ in range(3):
        agent.touch([lost])
        agent._list_all = True
        await bed.fence()
    assert gates[0].serving == {served}
    gates[0].serving.clear()
    await until(lambda: lost not in agent._enforcer.slots(), "the end of what the store has lost")
    assert lost not in agent._enforcer.lost
    await agent.stop()
