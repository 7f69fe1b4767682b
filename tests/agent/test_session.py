"""The agent on each store: lives, decisions, restarts, lost stores; gates are simulated."""

from __future__ import annotations

import pytest
import pytest_twisted
from bed import Bed, start_agent, until
from records import OTHER_KEY, UUID, record

from broker.agent.config import BootstrapDevice
from broker.agent.durable import DurableState

VIF, VBD = "vif/0", "vbd/51712"
SLOTS = pytest.mark.parametrize("slot", [VIF, VBD])


@pytest_twisted.async_yield_fixture
async def bed(store_daemon):
    made = Bed(store_daemon)
    yield made
    made.close()


@pytest_twisted.async_yield_fixture
async def agent(bed, tmp_path):
    bed.start_beating()
    running = start_agent(bed.daemon.address, tmp_path)
    # Else what must not open would stay closed for want of a heartbeat alone.
    await until(lambda: running._was_fresh, "a fresh heartbeat")
    yield running
    await running.stop()


async def restarted(agent, bed, tmp_path, **options):
    await agent.stop()
    return start_agent(bed.daemon.address, tmp_path, **options)


@SLOTS
@pytest_twisted.ensureDeferred
async def test_a_granted_device_opens_and_says_so(bed, agent, slot):
    bed.attach(slot)
    nonce = await bed.nonce(slot)
    await bed.comes_to(slot, "closed")
    assert not bed.gate(slot)
    bed.decide(slot)
    await bed.comes_to(slot, "open")
    assert bed.gate(slot)
    assert bed.report(slot, "enforced") == b"open seq=0 nonce=" + nonce + b" reason=granted"
    assert bed.marker(slot) == nonce


@SLOTS
@pytest_twisted.ensureDeferred
async def test_a_denied_device_stays_closed_and_says_why(bed, agent, slot):
    bed.attach(slot)
    await bed.nonce(slot)
    bed.decide(slot, "deny", reason="no shared type")
    await until(lambda: b"no%20shared%20type" in (bed.report(slot, "enforced") or b""))
    assert bed.enforced(slot) == "closed"
    assert not bed.gate(slot)


@pytest_twisted.ensureDeferred
async def test_a_live_vif_is_suspended_and_a_live_vbd_closed_and_both_granted_again(bed, agent):
    for slot in (VIF, VBD):
        bed.attach(slot)
        await bed.nonce(slot)
        bed.decide(slot)
        await bed.comes_to(slot, "open")
        bed.decide(slot, "deny", reason="relabelled")
        await bed.comes_to(slot, "suspended" if slot == VIF else "closed")
        assert not bed.gate(slot)
        bed.decide(slot)
        await bed.comes_to(slot, "open")
        assert bed.gate(slot)


@pytest_twisted.ensureDeferred
async def test_a_final_denial_removes_the_device(bed, agent):
    backend = bed.attach(VIF)
    await bed.nonce(VIF)
    bed.decide(VIF)
    await bed.comes_to(VIF, "open")
    bed.decide(VIF, "deny", reason="quarantine: ring abused")
    await until(lambda: not bed.values(backend))
    await bed.comes_to(VIF, "closed")


@SLOTS
@pytest_twisted.ensureDeferred
async def test_a_disk_swapped_on_the_same_path_is_another_life(bed, agent, slot):
    bed.attach(slot)
    first = await bed.nonce(slot)
    grant = bed.decide(slot)
    await bed.comes_to(slot, "open")
    # One transaction removes and re-creates the directory: the agent may see a single event.
    bed.attach(slot, **({"params": "/srv/other.img"} if slot == VBD else {}))
    second = await bed.nonce(slot, other_than=first)
    await bed.comes_to(slot, "closed")
    assert not bed.gate(slot)
    bed.publish(slot, grant)
    await bed.fence()
    assert not bed.gate(slot)
    assert bed.marker(slot) == second


@pytest_twisted.ensureDeferred
async def test_inputs_changed_in_place_are_another_life(bed, agent):
    backend = bed.attach(VBD)
    first = await bed.nonce(VBD)
    bed.decide(VBD)
    await bed.comes_to(VBD, "open")
    bed.store.write(f"{backend}/params", "/srv/other.img")
    await bed.nonce(VBD, other_than=first)
    await until(lambda: not bed.gate(VBD))


@SLOTS
@pytest_twisted.ensureDeferred
async def test_detached_and_attached_again_needs_a_new_grant(bed, agent, slot):
    bed.attach(slot)
    first = await bed.nonce(slot)
    bed.decide(slot)
    await bed.comes_to(slot, "open")
    bed.detach(slot)
    bed.attach(slot)
    await bed.nonce(slot, other_than=first)
    await bed.comes_to(slot, "closed")
    assert not bed.gate(slot)


@pytest_twisted.ensureDeferred
async def test_nothing_opens_on_forged_or_foreign_records(bed, agent):
    bed.attach(VIF)
    await bed.nonce(VIF)
    nonce = bed.report(VIF, "nonce").decode()
    for text in (
        b"",
        b"grant",
        b"\xff" * 2048,
        record(nonce=nonce),
        record(nonce=nonce, key=OTHER_KEY),
        bed.decide(VIF, inputs="0" * 64),
        bed.decide(VIF, nonce="0" * 32),
        bed.decide(VIF, frontend=4),
        bed.decide(VIF, key=OTHER_KEY),
    ):
        bed.publish(VIF, text)
        await bed.fence()
        assert not bed.gate(VIF)
        assert bed.enforced(VIF) == "closed"


@pytest_twisted.ensureDeferred
async def test_the_toolstacks_copy_must_say_the_same(bed, agent):
    backend = bed.attach(VBD, libxl=False)
    await bed.nonce(VBD)
    bed.decide(VBD)
    await bed.fence()
    assert not bed.gate(VBD)
    trusted = "/libxl/3/device/vbd/51712"
    for key, value in bed.values(backend).items():
        bed.store.write(f"{trusted}/{key}", value)
    bed.store.write(f"{trusted}/backend", backend)
    bed.store.write(f"{trusted}/params", "/srv/granted.img")
    bed.decide(VBD)
    await bed.fence()
    assert not bed.gate(VBD)
    bed.store.write(f"{trusted}/params", "/srv/disk.img")
    bed.store.write(f"{trusted}/backend", "/local/domain/1/backend/vbd/3/51712")
    bed.decide(VBD)
    await bed.fence()
    assert not bed.gate(VBD)
    bed.store.write(f"{trusted}/backend", backend)
    bed.decide(VBD)
    await bed.comes_to(VBD, "open")


@pytest_twisted.ensureDeferred
async def test_a_directory_that_names_another_frontend_never_opens(bed, agent):
    bed.attach(VIF, frontend="/local/domain/9/device/vif/0")
    await bed.nonce(VIF)
    bed.decide(VIF)
    await bed.fence()
    assert not bed.gate(VIF)


@pytest_twisted.ensureDeferred
async def test_a_grant_waits_for_the_heartbeat(bed, tmp_path):
    agent = start_agent(bed.daemon.address, tmp_path)
    bed.send_beat()
    bed.attach(VIF)
    await bed.nonce(VIF)
    bed.store.write("/broker/v1/heartbeat", b"77 sig=abcd")
    bed.decide(VIF)
    await bed.fence()
    waiting = bed.enforced(VIF)
    bed.start_beating()
    await bed.comes_to(VIF, "open")
    await agent.stop()
    assert waiting == "closed"


@SLOTS
@pytest_twisted.ensureDeferred
async def test_what_turns_up_open_without_a_grant_is_closed(bed, agent, slot):
    backend = bed.attach(slot)
    await bed.nonce(slot)
    opening = ("hotplug-status", "connected") if slot == VIF else ("physical-device", "fd:0")
    bed.store.write(f"{backend}/{opening[0]}", opening[1])
    await until(lambda: not bed.gate(slot))
    bed.attach(slot, **dict([opening]))
    await until(lambda: not bed.gate(slot))


@SLOTS
@pytest_twisted.ensureDeferred
async def test_what_was_found_open_stays_until_it_is_denied(bed, tmp_path, slot):
    opening = {"hotplug-status": "connected"} if slot == VIF else {"physical-device": "fd:0"}
    bed.attach(slot, **opening)
    agent = start_agent(bed.daemon.address, tmp_path)
    await bed.nonce(slot)
    await bed.comes_to(slot, "open")
    agent = await restarted(agent, bed, tmp_path)
    bed.decide(slot, "pending")
    await bed.fence()
    assert bed.gate(slot)
    bed.decide(slot, "deny")
    await until(lambda: not bed.gate(slot))
    await agent.stop()


@SLOTS
@pytest_twisted.ensureDeferred
async def test_a_restart_keeps_nonce_seq_and_what_is_open(bed, tmp_path, slot):
    bed.start_beating()
    agent = start_agent(bed.daemon.address, tmp_path)
    bed.attach(slot)
    nonce = await bed.nonce(slot)
    grant = bed.decide(slot)
    await bed.comes_to(slot, "open")
    bed.stop_beating()
    agent = await restarted(agent, bed, tmp_path)
    await bed.fence()
    assert (bed.gate(slot), bed.report(slot, "nonce")) == (True, nonce)
    bed.decide(slot, "deny")
    await until(lambda: not bed.gate(slot))
    bed.publish(slot, grant)
    bed.start_beating()
    agent = await restarted(agent, bed, tmp_path)
    await bed.fence()
    assert not bed.gate(slot)
    await agent.stop()


@SLOTS
@pytest_twisted.ensureDeferred
async def test_a_device_replaced_while_the_agent_was_away_needs_a_new_grant(bed, tmp_path, slot):
    bed.start_beating()
    agent = start_agent(bed.daemon.address, tmp_path)
    bed.attach(slot)
    first = await bed.nonce(slot)
    bed.decide(slot)
    await bed.comes_to(slot, "open")
    await agent.stop()
    bed.attach(slot)
    agent = start_agent(bed.daemon.address, tmp_path)
    await bed.nonce(slot, other_than=first)
    await bed.fence()
    assert not bed.gate(slot)
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_lost_state_file_opens_nothing_and_closes_nothing(bed, tmp_path):
    bed.start_beating()
    agent = start_agent(bed.daemon.address, tmp_path)
    for slot in (VIF, VBD):
        bed.attach(slot)
        await bed.nonce(slot)
    bed.decide(VIF)
    await bed.comes_to(VIF, "open")
    await agent.stop()
    bed.decide(VBD)
    (tmp_path / "agent.json").write_bytes(b'{"domid": 0, "slots": ')
    agent = start_agent(bed.daemon.address, tmp_path)
    await bed.fence()
    assert (bed.gate(VIF), bed.gate(VBD)) == (True, False)
    assert (tmp_path / "agent.corrupt").exists()
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_opens_when_the_state_cannot_be_saved(bed, tmp_path, monkeypatch):
    bed.start_beating()
    agent = start_agent(bed.daemon.address, tmp_path)
    bed.attach(VIF)
    bed.attach(VBD)
    await bed.nonce(VIF)
    await bed.nonce(VBD)
    bed.decide(VBD)
    await bed.comes_to(VBD, "open")

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DurableState, "save", full)
    bed.decide(VIF)
    bed.decide(VBD, "deny")
    await until(lambda: not bed.gate(VBD))
    await bed.fence()
    assert not bed.gate(VIF)
    monkeypatch.undo()
    await bed.comes_to(VIF, "open")
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_store_that_comes_back_empty_opens_nothing(bed, agent):
    bed.attach(VIF)
    bed.attach(VBD)
    await bed.nonce(VBD)
    bed.decide(VIF)
    await bed.comes_to(VIF, "open")
    grant = bed.decide(VBD)
    bed.stop_beating()
    bed.daemon.restart_empty()
    bed.reconnect()
    bed.start_beating()
    bed.publish(VBD, grant)
    bed.attach(VBD)
    await bed.nonce(VBD)
    await bed.fence()
    assert not bed.gate(VBD)
    bed.decide(VBD)
    await bed.comes_to(VBD, "open")


@pytest_twisted.ensureDeferred
async def test_a_bootstrap_device_opens_without_a_record_and_only_that_one(bed, tmp_path):
    listed = BootstrapDevice(uuid=UUID, device_class="vbd", devid=51712, params="/srv/broker.img")
    agent = start_agent(bed.daemon.address, tmp_path, bootstrap=[listed])
    bed.attach(VBD, params="/srv/broker.img")
    await bed.comes_to(VBD, "open")
    bed.attach("vbd/51728", params="/srv/broker.img")
    bed.attach(VBD, fe=4, params="/srv/other.img")
    bed.attach(VBD, fe=5, params="/srv/broker.img", uuid=UUID.replace("5", "6"))
    bed.attach(VIF, params="/srv/broker.img")
    for slot, fe in (("vbd/51728", 3), (VBD, 4), (VBD, 5), (VIF, 3)):
        await bed.comes_to(slot, "closed", fe)
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_refused_life_is_told_once(bed, tmp_path):
    refused = []
    bed.start_beating()
    agent = start_agent(
        bed.daemon.address, tmp_path, refused=lambda *told: refused.append(told) or True
    )
    bed.attach(VIF)
    await bed.nonce(VIF)
    bed.decide(VIF, "pending")
    bed.decide(VIF, "deny", reason="ste")
    await until(lambda: refused)
    bed.decide(VIF, "deny", reason="ste again")
    await bed.fence()
    assert refused == [(3, "vif/3/0 is denied (seq 1): ste")]
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_device_that_is_being_removed_is_not_opened(bed, agent):
    backend = bed.attach(VIF)
    await bed.nonce(VIF)
    bed.store.write(f"{backend}/online", "0")
    bed.decide(VIF)
    await until(lambda: b"being%20removed" in (bed.report(VIF, "enforced") or b""))
    assert not bed.gate(VIF)
