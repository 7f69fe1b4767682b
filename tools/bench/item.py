"""One measurement, as it stands in build/bench.json."""

from __future__ import annotations

from typing import Any


def item(
    name: str,
    ours: float,
    unit: str,
    *,
    floor: float | None = None,
    target: float | None = None,
    beside: str | None = None,
    throughput: bool = False,
) -> dict[str, Any]:
    """A measurement. `floor` is measured in the same run, or is the rate that is asked for.

    `ratio` is a cost: ours over floor, and the other way round for a throughput, so that more is
    always worse. `target` is the highest ratio that will do. `beside` says what else does the
    job, and how well.
    """
    ratio = None
    if floor and ours:
        ratio = floor / ours if throughput else ours / floor
    met = None if target is None or ratio is None else ratio <= target
    return {
        "name": name,
        "ours": ours,
        "unit": unit,
        "beside": beside,
        "floor": floor,
        "ratio": ratio,
        "target": target,
        "met": met,
    }
