"""kill -9 at random instants on each store; `make chaos` does it a thousand times."""

from __future__ import annotations

import pytest
import pytest_twisted
from support.chaos import Chaos

KILLS = 17
"""On each of three stores: fifty in all."""


@pytest.mark.timeout(300)
@pytest_twisted.ensureDeferred
async def test_whatever_is_killed_whenever_what_must_hold_holds(running):
    chaos = Chaos(running, seed=50)
    await chaos.run(KILLS)
    assert sum(chaos.kills.values()) >= KILLS
    assert chaos.rests
