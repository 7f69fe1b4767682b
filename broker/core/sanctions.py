"""What is done to a channel whose protocol was broken, and how long a party that flaps waits.

DESIGN: sanctions never reach beyond the one channel for domid 0, the broker and protected labels;
blamed on both ends or on nobody means at most `close`; a stall means `report` unless the policy
names an action for the class itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.core.definition import Action

SEVERITY: Final[Mapping[str, int]] = {
    action: rank
    for rank, action in enumerate(("report", "close", "reset", "quarantine", "destroy"))
}
FIRST_PAUSE: Final = 5.0
"""Seconds that a domain waits for its next channel after it broke a protocol."""
LONGEST_PAUSE: Final = 3600.0
"""Each time doubled, up to this."""
FORGIVEN_AFTER: Final = 86_400.0
"""Seconds without a violation after which a domain starts afresh."""


class End(msgspec.Struct, frozen=True):
    """One end of a channel: its domid, and whether its label is protected."""

    domid: int
    protected: bool


class Damping(msgspec.Struct, frozen=True):
    """How often a domain broke protocols lately, and until when (seconds since 1970) it waits."""

    count: int
    until: float


def action_for(
    actions: Mapping[str, Action],
    device_class: str,
    party: str,
    *,
    stall: bool,
    ends: Mapping[str, End],
    untouchable: Collection[int],
) -> Action:
    """What one violation on a channel of `device_class` leads to.

    Args:
        actions: the policy's `on_violation`.
        device_class: the frontend's kind.
        party: `frontend`, `backend`, `both` or `undetermined`.
        stall: whether what was broken is a deadline.
        ends: by party.
        untouchable: domids that no sanction reaches: 0 and the broker's.
    """
    if stall and device_class not in actions:
        return "report"
    action = actions.get(device_class) or actions["default"]
    end = ends.get(party)
    if end is None or end.protected or end.domid in untouchable:
        return action if SEVERITY[action] <= SEVERITY["close"] else "close"
    return action


def damped(before: Damping | None, now: float) -> Damping:
    """How long a domain waits after one more violation at `now`: twice as long each time."""
    count = 1
    if before is not None and now - before.until < FORGIVEN_AFTER:
        count = before.count + 1
    pause = min(FIRST_PAUSE * 2.0 ** min(count - 1, 30), LONGEST_PAUSE)
    return Damping(count, now + pause)
