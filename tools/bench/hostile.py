"""Deciding for others while guests misbehave, beside deciding in quiet: p99 may at most double.

The guests speak on real rings, `hostile_guests.py` in one process; what they do is theirs alone.
Beside it stands the raw responder under the same guests: what no broker could help.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from tools.bench.decisions import BROKER, RAW, Paths, latencies
from tools.bench.item import item
from tools.bench.rig import Rig, process

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAINS, DEVICES = 100, 4
HOSTILE: Final = 4
REQUESTS: Final = 2000
TARGET: Final = 2.0


def items() -> Iterator[dict[str, Any]]:
    """p50 and p99 of others' decisions, on both real daemons."""
    for kind in ("C", "oxenstored"):
        raw = _measure(kind, RAW)
        ours = _measure(kind, BROKER)
        for name, at in (("p50", 0), ("p99", 1)):
            quiet, loud = ours[0][at], ours[1][at]
            yield item(
                f"hostile-{kind}-{name}", loud, "us", floor=quiet,
                target=TARGET if name == "p99" else None,
                beside=f"raw Python responder {raw[1][at] / raw[0][at]:.2f}x its quiet one",
            )  # fmt: skip


def _measure(kind: str, paths: Paths) -> tuple[tuple[float, float], tuple[float, float]]:
    """p50 and p99, quiet and then among hostile guests."""
    rig = Rig(kind, DOMAINS, DEVICES)
    guests = [str(domid) for domid in range(DOMAINS - HOSTILE + 1, DOMAINS + 1)]
    rig.channels = rig.channels[: (DOMAINS - HOSTILE) * DEVICES]
    try:
        with rig.brokerd() if paths is BROKER else rig.responder():
            quiet = latencies(rig, paths, REQUESTS)
            words = [sys.executable, "-m", "tools.bench.hostile_guests", str(rig.store.directory)]
            with process([*words, *guests], rig.log) as it:
                rig.wait_for(it, lambda: rig.log.read_bytes().count(b"misbehaves") == HOSTILE)
                return quiet, latencies(rig, paths, REQUESTS)
    finally:
        rig.close()
