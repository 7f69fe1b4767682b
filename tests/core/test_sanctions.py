"""What a broken protocol leads to, and how long a party that flaps waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.sanctions import (
    FIRST_PAUSE,
    FORGIVEN_AFTER,
    LONGEST_PAUSE,
    SEVERITY,
    Damping,
    End,
    action_for,
    damped,
)

PLAIN = {"frontend": End(3, protected=False), "backend": End(7, protected=False)}
ACTIONS = sorted(SEVERITY, key=lambda action: SEVERITY[action])


def asked(action, party="frontend", *, ends=PLAIN, stall=False, explicit=False):
    actions = {"default": "close", "vif": action} if explicit else {"default": action}
    return action_for(actions, "vif", party, stall=stall, ends=ends, untouchable={0, 1})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("explicit", [True, False])
def test_who_can_be_blamed_and_reached_gets_what_the_policy_says(action, explicit):
    assert asked(action, explicit=explicit) == action
    assert asked(action, "backend", explicit=explicit) == action


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("party", "ends"),
    [
        ("both", PLAIN),
        ("undetermined", PLAIN),
        ("frontend", {**PLAIN, "frontend": End(3, protected=True)}),
        ("backend", {**PLAIN, "backend": End(0, protected=False)}),
        ("backend", {**PLAIN, "backend": End(1, protected=False)}),
    ],
    ids=["both", "nobody", "protected", "domid 0", "the broker"],
)
def test_nobody_and_who_is_out_of_reach_lose_the_channel_at_most(action, party, ends):
    wanted = action if action in ("report", "close") else "close"
    assert asked(action, party, ends=ends) == wanted


@pytest.mark.parametrize("action", ACTIONS)
def test_a_stall_is_reported_unless_the_policy_names_the_class(action):
    assert asked(action, stall=True) == "report"
    assert asked(action, stall=True, explicit=True) == action


def test_each_violation_doubles_the_pause_up_to_an_hour_and_a_day_forgives():
    now, state = 0.0, None
    pauses = []
    for _ in range(20):
        state = damped(state, now)
        pauses.append(state.until - now)
        now = state.until
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert damped(state, state.until + FORGIVEN_AFTER).count == 1


def test_who_breaks_a_protocol_again_within_a_day_is_not_forgiven_whatever_the_date():
    for now in (1.0, 1_800_000_000.0):
        assert damped(Damping(3, now), now + FORGIVEN_AFTER - 1).count == 4
        assert damped(Damping(3, now), now + FORGIVEN_AFTER).count == 1


@given(st.integers(1, 10**9), st.floats(0, 1e10), st.floats(0, 1e10))
def test_a_pause_is_never_shorter_than_the_first_nor_longer_than_the_longest(count, until, now):
    after = damped(Damping(count, until), now)
    assert FIRST_PAUSE - 1e-3 <= after.until - now <= LONGEST_PAUSE + 1e-3
