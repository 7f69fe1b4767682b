"""Runs scenarios, on several machines beside each other, and tells what held."""

from __future__ import annotations

import collections
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tools.testbed.built import Built
from tools.testbed.host import RESULTS, Host, Outcome, Scenario
from tools.testbed.machine import MEMORY_MIB
from tools.testbed.placement import InDom0

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_MACHINES = 4
SCENARIOS_EACH = 3
"""Fewer than so many are not worth a machine's boot."""


class Report:
    """What a run came to."""

    def __init__(self, outcomes: Sequence[Outcome], measured: Sequence[str]) -> None:
        self.outcomes = outcomes
        self.measured = measured
        """The mini-domain's size, memory, and time to its first decision."""


class Queue:
    """What is left to run: each machine takes what it need not be booted anew for, if it can."""

    def __init__(self, names: Sequence[str]) -> None:
        self._left = collections.deque(names)
        self._lock = threading.Lock()

    def next(self, placement: str | None) -> str | None:
        """The next scenario for a machine whose broker is there."""
        with self._lock:
            if not self._left:
                return None
            fitting = [it for it in self._left if Scenario(it).placement.name == placement]
            name = fitting[0] if fitting else self._left[0]
            self._left.remove(name)
            return name


def prepare() -> None:
    """No result of an earlier run is left."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)


def run(names: Sequence[str], product: Path | None, machines: int | None) -> Report:
    """Run these scenarios; each outcome is told as it comes.

    On as many machines as are asked for, or as this one has processors and memory for.
    """
    prepare()
    built = Built(product)
    shared = built.share()
    queue = Queue(names)

    def worker(host: Host) -> list[Outcome]:
        outcomes: list[Outcome] = []
        placement: str | None = None
        try:
            while (name := queue.next(placement)) is not None:
                outcomes.append(host.run(name))
                placement = outcomes[-1].placement
        finally:
            host.stop()
        return outcomes

    count = machines or min(_affordable(), -(-len(names) // SCENARIOS_EACH))
    hosts = [Host(built, shared) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        found = [it for outcomes in pool.map(worker, hosts) for it in outcomes]
    found.sort(key=lambda it: names.index(it.name))
    size = f"size: {built.minidomain_bytes() / (1 << 20):.1f} MiB compressed"
    return Report(found, [size, *(it for host in hosts for it in host.measured)])


def shell(product: Path | None) -> None:
    """A person at dom0's shell, until it is left."""
    prepare()
    built = Built(product)
    host = Host(built, built.share(), shell=True)
    try:
        host.machine(InDom0()).wait()
    finally:
        host.stop()


def _affordable() -> int:
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    mebibytes = int(told["MemAvailable"].split()[0]) >> 10
    processors = len(os.sched_getaffinity(0))
    return max(1, min(MOST_MACHINES, processors, mebibytes // MEMORY_MIB))


def tell(report: Report) -> bool:
    """The table, and results.json beside the rest; whether all held."""
    table = Table(title="real Xen", show_lines=True)
    for name in ("scenario", "broker in"):
        table.add_column(name)
    table.add_column("asserted", ratio=1)
    table.add_column("seconds", justify="right")
    table.add_column("at work", justify="right")
    for it in report.outcomes:
        lines = [it.about, *(f"  + {what}" for what in it.asserted)]
        if it.problem:
            lines.append(f"  - FAILED: {it.problem}")
        table.add_row(
            it.name, it.placement, "\n".join(lines), f"{it.seconds:.1f}", f"{it.worked:.1f}"
        )
    Console(width=120, markup=False).print(table)
    for line in report.measured:
        print(f"the mini-domain's {line}")
    fields = ("name", "placement", "asserted", "problem", "seconds", "worked")
    scenarios = [{field: getattr(it, field) for field in fields} for it in report.outcomes]
    results = {"scenarios": scenarios, "minidomain": report.measured}
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1))
    passed = sum(not it.problem for it in report.outcomes)
    print(f"{passed} passed, {len(report.outcomes) - passed} failed")
    return passed == len(report.outcomes)
