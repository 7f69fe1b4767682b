"""A recorded trace of one channel, judged by the monitor.

A trace is JSON, one change a line; lines of equal `t` are one snapshot:

    {"t": 12.5, "side": "frontend", "writer": "toolstack", "key": "state", "value": "1"}

`side` is whose directory changed, `writer` (optional) who changed it, `value` null a key that
was removed, with all below it; the key "" is the directory itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.protocol.life import Violation
    from broker.protocol.monitor import Monitor
    from broker.protocol.rule import Name


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a trace; `t` in seconds."""

    t: float
    side: Literal["frontend", "backend"]
    key: str
    value: str | None
    writer: Literal["frontend", "backend", "toolstack", "hotplug"] | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """What both directories held from `t` on, and who made the changes, where that is known."""

    t: float
    front: dict[str, bytes]
    back: dict[str, bytes]
    writers: dict[Name, str]


def parse_trace(data: bytes, source: str) -> list[Change]:
    """The lines of a trace; empty lines are left out.

    Raises:
        ProblemsError: with every line that is none.
    """
    changes: list[Change] = []
    problems: list[Problem] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            change = msgspec.json.decode(line, type=Change)
            if not math.isfinite(change.t) or abs(change.t) > 2**53:
                raise msgspec.ValidationError("'t' is no time in seconds")
            if change.value is not None and not change.key:
                raise msgspec.ValidationError("'key' is empty")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            problems.append(Problem(source, number, 1, escape(str(error))))
            continue
        if changes and change.t < changes[-1].t:
            said = f"time runs backwards: {change.t:g} after {changes[-1].t:g}"
            problems.append(Problem(source, number, 1, said))
        changes.append(change)
    if problems:
        raise ProblemsError(problems)
    return changes


def snapshots(changes: Iterable[Change]) -> Iterator[Snapshot]:
    """What each moment of a trace shows."""
    front: dict[str, bytes] = {}
    back: dict[str, bytes] = {}
    writers: dict[Name, str] = {}
    now: float | None = None
    for change in changes:
        if now is not None and change.t != now:
            yield Snapshot(now, front, back, writers)
            writers = {}
        now = change.t
        # What was handed out stays as it is.
        if change.side == "frontend":
            front = dict(front)
        else:
            back = dict(back)
        for key in _apply(front if change.side == "frontend" else back, change):
            if change.writer is not None:
                writers[change.side, key] = change.writer
    if now is not None:
        yield Snapshot(now, front, back, writers)


def _apply(directory: dict[str, bytes], change: Change) -> list[str]:
    """Make a change; answers the keys it touched."""
    if change.value is not None:
        directory[change.key] = change.value.encode("utf-8", "surrogatepass")
        return [change.key]
    below = f"{change.key}/" if change.key else ""
    gone = [key for key in directory if key == change.key or key.startswith(below)]
    for key in gone:
        del directory[key]
    return gone


def replay(monitor: Monitor, changes: Iterable[Change]) -> list[Violation]:
    """What the monitor finds; its clock stops at the last line."""
    life = monitor.begin()
    found: list[Violation] = []
    for shown in snapshots(changes):
        life, violations = monitor.step(life, shown.t, shown.front, shown.back, shown.writers)
        found += violations
    return found
