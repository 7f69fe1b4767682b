"""What the broker's observe mode opens is opened by an agent that allows it, and by no other."""

from __future__ import annotations

import pytest
import pytest_twisted
from agent_host import config
from bed import Bed, start_agent, until

from broker.agent.config import load_config

SLOTS = pytest.mark.parametrize("slot", ["vif/0", "vbd/51712"])
OBSERVED = "observed: would be denied: they share no STE type"


@pytest_twisted.async_yield_fixture
async def bed(store_daemon):
    made = Bed(store_daemon)
    made.start_beating()
    yield made
    made.close()


async def fresh_agent(bed, directory, **options):
    agent = start_agent(bed.daemon.address, directory, **options)
    await until(lambda: agent._was_fresh, "a fresh heartbeat")
    return agent


@SLOTS
@pytest_twisted.ensureDeferred
async def test_it_stays_closed_unless_the_agents_own_configuration_allows_it(bed, tmp_path, slot):
    agent = await fresh_agent(bed, tmp_path)
    bed.attach(slot)
    await bed.nonce(slot)
    bed.decide(slot, reason=OBSERVED)
    await until(lambda: b"allow_observe" in (bed.report(slot, "enforced") or b""))
    assert bed.enforced(slot) == "closed"
    assert not bed.gate(slot)
    await agent.stop()


@SLOTS
@pytest_twisted.ensureDeferred
async def test_it_opens_where_it_is_allowed_and_closes_where_it_was_open_and_is_not(
    bed, tmp_path, slot
):
    agent = await fresh_agent(bed, tmp_path, allow_observe=True)
    bed.attach(slot)
    await bed.nonce(slot)
    bed.decide(slot, reason=OBSERVED)
    await bed.comes_to(slot, "open")
    assert bed.gate(slot)
    await agent.stop()
    agent = await fresh_agent(bed, tmp_path)
    await until(lambda: not bed.gate(slot), "the gate to close")
    await agent.stop()


@pytest.mark.parametrize(("options", "allowed"), [({}, False), ({"allow_observe": "true"}, True)])
def test_it_is_off_by_default(tmp_path, options, allowed):
    assert load_config(config(tmp_path, **options)).allow_observe is allowed
