"""The measurements, each a dict as in build/bench.json.

Alone: python -m tools.bench.bridge.items
"""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import msgspec

from tools.bench.bridge.bed import Bed, pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = (10, 100, 400, 1000)
_ROUNDS, _TRIPS = 15, 3000
_RATE, _SECONDS = 20_000, 4.0


def _item(
    name: str, unit: str, ours: float, floor: float | None, target: float | None, **more: object
) -> dict[str, Any]:
    ratio = None if not floor else ours / floor
    met = None if target is None or ratio is None else ratio <= target
    item = {"name": name, "ours": ours, "unit": unit, "beside": None, "floor": floor}
    return {**item, "ratio": ratio, "target": target, "met": met, **more}


def round_trips() -> Iterator[dict[str, Any]]:
    """Between two guests, with the labels in force, beside no filter and beside physdev rules."""
    bed = Bed()
    try:
        for ports in PORTS:
            bed.grow(ports)
            bed.physdev_on(on=False)
            ours, none = [], []
            for _ in range(_ROUNDS):
                bed.enforce()
                ours.append(bed.trip(_TRIPS))
                bed.release()
                none.append(bed.trip(_TRIPS))
            beside = None
            if ports <= 400:
                bed.physdev(ports)
                bed.physdev_on(on=True)
                beside = bed.trip(1000)
                bed.physdev_on(on=False)
                bed.release()
            yield _item(
                f"bridge_round_trip_{ports}_ports",
                "us",
                statistics.median(ours),
                statistics.median(none),
                1.10,
                beside=beside,
            )
    finally:
        bed.close()


def adding_a_port() -> Iterator[dict[str, Any]]:
    """The N-th port, in process, read back included; against the millisecond it may take."""
    bed = Bed()
    try:
        for ports in PORTS:
            bed.grow(ports)
            enforcer = bed.enforce()
            port = next(p for p in enforcer.target.ports.values() if p.name == "ga")
            port = msgspec.structs.replace(port, macs=("02:00:00:00:00:01",))
            taken = []
            for _ in range(51):
                enforcer.remove(port.index)
                began = time.perf_counter()
                enforcer.put(port)
                taken.append((time.perf_counter() - began) * 1000)
            yield _item(f"bridge_add_port_{ports}", "ms", statistics.median(taken), 1.0, 1.0)
    finally:
        bed.close()


def policy_change() -> Iterator[dict[str, Any]]:
    """10,000 pairs of classes to none and back, under traffic of a pair that both allow.

    The time is the transaction's, without reading back. Lost and leaked are packets, of all that
    were sent to the allowed and to the denied guest.
    """
    bed = Bed()
    try:
        bed.grow(200)
        enforcer = bed.enforce()
        target = enforcer.target
        few = frozenset({(1, 1), (1, 2), (2, 1), (2, 2)})
        wide = msgspec.structs.replace(target, pairs=pairs())
        narrow = msgspec.structs.replace(target, pairs=few)
        run, taken = enforcer._nft.run, []  # noqa: SLF001 - only the transaction is timed

        def timed(commands: list[str]) -> None:
            began = time.perf_counter()
            run(commands)
            taken.append((time.perf_counter() - began) * 1000)

        enforcer._nft.run = timed  # type: ignore[method-assign]  # noqa: SLF001
        for _ in range(5):
            enforcer.update(narrow)
            enforcer.update(wide)
        quiet = statistics.median(taken)
        taken.clear()
        wire = bed.blast(_RATE, _SECONDS)
        while wire.poll() is None:
            enforcer.update(narrow)
            enforcer.update(wide)
        sent, allowed, denied = map(int, wire.communicate()[0].split())
        changes = len(taken)
        name = "bridge_policy_change_10000_pairs"
        yield _item(name, "ms", quiet, 60.0, 1.0, loaded=statistics.median(taken))
        counted = {"sent": sent, "changes": changes, "rate": sent / _SECONDS}
        for what, count in (("lost", sent - allowed), ("leaked", denied)):
            item = _item(f"bridge_policy_change_{what}", "packets", count, None, 0.0, **counted)
            yield {**item, "ratio": float(count), "met": count == 0}
    finally:
        bed.close()


def items() -> Iterator[dict[str, Any]]:
    """All of them."""
    yield from round_trips()
    yield from adding_a_port()
    yield from policy_change()


if __name__ == "__main__":
    for found in items():
        print(json.dumps(found), flush=True)
