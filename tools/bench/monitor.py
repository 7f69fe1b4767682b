"""Steps a second of the protocol monitor: one key changed, both ends given, in one process.

A class's simulated pair lives its whole life: created, connected, closed, connected anew, removed;
each write is a step. vif and vbd, and vif with as many queues as a large guest has.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.protocol.load import load_spec
from broker.protocol.monitor import Monitor
from broker.protocol.replay import snapshots
from broker.sim.protocol_pair import Pair
from tools.bench.item import item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.protocol.replay import Snapshot

REQUIRED = 200_000.0
"""Steps a second that the monitor has to reach."""
_SPECS = Path(__file__).parents[2] / "protocol_specs"
_STEPS = 100_000
_ROUNDS = 5
_PAIRS: dict[str, tuple[str, dict[str, str]]] = {
    "vif": ("vif", {}),
    "vbd": ("vbd", {}),
    "vif-8-queues": (
        "vif",
        {"backend/multi-queue-max-queues": "8", "frontend/multi-queue-num-queues": "8"},
    ),
}


def items() -> Iterator[dict[str, Any]]:
    """Each pair's rate."""
    for name, (device_class, example) in _PAIRS.items():
        monitor, life = _life(device_class, example)
        rate = statistics.median(_rate(monitor, life) for _ in range(_ROUNDS))
        yield item(
            f"monitor-steps-{name}",
            rate,
            "steps/s",
            floor=REQUIRED,
            target=1.0,
            throughput=True,
        )


def _life(device_class: str, example: dict[str, str]) -> tuple[Monitor, list[Snapshot]]:
    path = _SPECS / f"{device_class}.yaml"
    spec = load_spec(path.read_bytes(), str(path))
    pair = Pair(spec, example)
    pair.create()
    pair.connect()
    pair.drive(6, 6)
    pair.drive(4, 4)
    pair.remove()
    return Monitor(spec), list(snapshots(pair.changes))


def _rate(monitor: Monitor, shown: list[Snapshot]) -> float:
    step = monitor.step
    rounds = _STEPS // len(shown)
    began = time.perf_counter()
    for _ in range(rounds):
        life = monitor.begin()
        for snapshot in shown:
            life, violations = step(life, snapshot.t, snapshot.front, snapshot.back)
            if violations:
                raise RuntimeError(f"a well-behaved pair was blamed: {violations[0]}")
    return rounds * len(shown) / (time.perf_counter() - began)
