"""What is kept of one channel's life between two looks, and what is found wrong with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from broker.protocol.conditions import Keys
    from broker.protocol.parties import Party

NEVER: Final = math.inf
# gc=False: these are made at every step and hold nothing that could hold them.


class Violation(msgspec.Struct, frozen=True, gc=False):
    """One rule that was broken: by whom, what shows it, and when (seconds, the caller's clock).

    `evidence` is printable ASCII.
    """

    party: Party
    rule: str
    evidence: str
    time: float


class Life(msgspec.Struct, frozen=True, gc=False):
    """What the monitor knows of one channel. The caller keeps it and never looks inside.

    `front` and `back` are what was last seen, `f` and `b` the states, `front_seen` which states
    of the backend the frontend can have seen, and the other way. `standing` has a bit for every
    rule that is broken now; `timers` says when each deadline that runs began (infinity: it has
    been reported), `due` when the first of them ends.
    """

    front: Keys
    back: Keys
    f: int = 0
    b: int = 0
    front_seen: int = 0
    back_seen: int = 0
    standing: int = 0
    timers: tuple[tuple[int, float], ...] = ()
    due: float = NEVER
    now: float = -NEVER
    started: bool = False
