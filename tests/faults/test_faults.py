"""Whatever happens in whatever order, what must hold holds after every step."""

from __future__ import annotations

import pytest
from fault_machine import Faults
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test


@pytest.mark.timeout(600)
def test_whatever_happens_in_whatever_order_what_must_hold_holds():
    """`make faults` runs ten thousand; shrinking would take longer than reading what happened."""
    run_state_machine_as_test(
        Faults,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            phases=[Phase.generate],
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
