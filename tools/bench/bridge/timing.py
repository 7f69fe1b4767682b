"""How the bridge's benches take time: a port added again and again, changes under traffic."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tools.bench.item import item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.net.enforcer import PortEnforcer
    from broker.net.model import Port
    from tools.bench.bridge.bed import Bed

RATE: Final = 20_000
"""Packets a second."""
SECONDS: Final = 4.0
_TIMES: Final = 51


class Added(NamedTuple):
    """Milliseconds for a port, at the median: of the processor's time, and of the clock's."""

    processor: float
    elapsed: float


def adding(enforcer: PortEnforcer, port: Port) -> Added:
    """Take the port out and put it back, read back included; only putting counts."""
    processor, elapsed = [], []
    for _ in range(_TIMES):
        enforcer.remove(port.index)
        began, spent = time.perf_counter(), time.process_time()
        enforcer.put(port)
        processor.append((time.process_time() - spent) * 1000)
        elapsed.append((time.perf_counter() - began) * 1000)
    return Added(statistics.median(processor), statistics.median(elapsed))


class Changed(NamedTuple):
    """Milliseconds of each change, on a quiet bed and under traffic; and what became of that."""

    quiet: list[float]
    loaded: list[float]
    blasted: tuple[int, int, int]
    """Packets sent to each guest, got by the one that may hear, got by the other."""


def changing(bed: Bed, change: Callable[[], list[float]], rounds: int) -> Changed:
    """Change so many times, after once that does not count; then as long as there is traffic.

    `change` answers what its steps took, in milliseconds.
    """
    change()
    quiet = [taken for _ in range(rounds) for taken in change()]
    loaded: list[float] = []
    wire = bed.blast(RATE, SECONDS)
    while wire.poll() is None:
        loaded += change()
    sent, allowed, denied = map(int, wire.communicate()[0].split())
    return Changed(quiet, loaded, (sent, allowed, denied))


def milliseconds(step: Callable[[], None]) -> float:
    """What a step takes."""
    began = time.perf_counter()
    step()
    return (time.perf_counter() - began) * 1000


def counted(name: str, blasted: tuple[int, int, int], changes: int) -> Iterator[dict[str, Any]]:
    """Packets lost and leaked, as items; `blasted` as in `Changed`."""
    sent, allowed, denied = blasted
    of = f"of {sent:,} at {sent / SECONDS:,.0f}/s, in {changes} changes"
    for what, count in (("lost", sent - allowed), ("leaked", denied)):
        made = item(f"{name}_{what}", count, "packets", beside=of)
        yield {**made, "ratio": float(count), "target": 0.0, "met": count == 0}
