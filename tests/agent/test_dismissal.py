"""A refused disk's offer ends, so that its guest does not wait; nothing else's does."""

from __future__ import annotations

import pytest
import pytest_twisted
from bed import Bed, start_agent, until

from broker.agent import dismissal

VIF, VBD = "vif/0", "vbd/51712"


@pytest_twisted.async_yield_fixture
async def bed(store_daemon):
    made = Bed(store_daemon)
    made.start_beating()
    yield made
    made.close()


@pytest_twisted.async_yield_fixture
async def agent(bed, tmp_path, monkeypatch):
    monkeypatch.setattr(dismissal, "DELAY", 0.3)
    running = start_agent(bed.daemon.address, tmp_path)
    await until(lambda: running._was_fresh, "a fresh heartbeat")
    yield running
    await running.stop()


async def offered(bed, slot, verdict, state="2", **changes):
    """A device that its backend has got ready, and the broker's answer to it."""
    backend = bed.attach(slot, state=state)
    await bed.nonce(slot)
    bed.decide(slot, verdict, **changes)
    await until(lambda: f" seq={bed.seq - 1} ".encode() in (bed.report(slot, "enforced") or b""))
    return backend


def offer(bed, backend):
    return bed.read(f"{backend}/online"), bed.read(f"{backend}/state")


@pytest_twisted.ensureDeferred
async def test_a_refused_disks_offer_ends(bed, agent):
    backend = await offered(bed, VBD, "deny", reason="ste")
    assert offer(bed, backend) == (b"1", b"2")  # not at once: xl still waits for state 2
    await until(lambda: offer(bed, backend) == (b"0", b"5"))
    assert bed.enforced(VBD) == "closed"
    assert not bed.gate(VBD)


@pytest.mark.parametrize(
    ("slot", "verdict", "state"),
    [
        pytest.param(VIF, "deny", "2", id="a vif, which its guest does not wait for"),
        pytest.param(VBD, "pending", "2", id="pending"),
        pytest.param(VBD, "deny", "1", id="not offered yet: xl waits for that"),
        pytest.param(VBD, "deny", "4", id="it was open once, and may be granted again"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_else_is_taken_away(bed, agent, slot, verdict, state):
    backend = await offered(bed, slot, verdict, state)
    # What is refused beside it shows when the delay is over.
    other = bed.attach("vbd/51728", state="2")
    await bed.nonce("vbd/51728")
    bed.decide("vbd/51728", "deny")
    await until(lambda: offer(bed, other) == (b"0", b"5"))
    assert offer(bed, backend) == (b"1", state.encode())


@pytest_twisted.ensureDeferred
async def test_a_grant_within_the_delay_keeps_the_offer(bed, agent):
    backend = await offered(bed, VBD, "deny")
    bed.decide(VBD)
    await bed.comes_to(VBD, "open")
    assert not agent._dismissals._timers
    assert offer(bed, backend) == (b"1", b"2")


@pytest_twisted.ensureDeferred
async def test_another_disk_in_its_place_is_offered_as_long_as_any(bed, agent, monkeypatch):
    monkeypatch.setattr(dismissal, "DELAY", 60)
    await offered(bed, VBD, "deny")
    [first] = agent._dismissals._timers
    bed.detach(VBD)
    await until(lambda: first not in agent._dismissals._timers)
