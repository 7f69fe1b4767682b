"""What the machine found that takes luck to find again: step by step."""

from __future__ import annotations

import pytest
from world import World

from broker.sim.toolstack import vif

UUID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def test_a_driver_that_was_not_told_because_its_agent_died_is_told_by_the_next(world):
    world.label(UUID, "red")
    guest = world.create(11, UUID)
    world.settle()
    nic = world.attach(guest, vif(0, "00:16:3e:00:00:01"))
    while not nic.open:
        assert world.turns(1)
    assert world.read(f"{nic.path}/hotplug-status") == b""
    world.agents[0].kill()
    world.start_agent(0)
    world.settle()
    assert world.read(f"{nic.path}/hotplug-status") == b"connected"
