"""Run the measurements: python -m tools.bench [--only NAME].

Prints a table as they come in and writes build/bench.json. Each module of `BENCHES` has
`items()`, a generator of what `tools.bench.item.item` makes; floors are measured in the same
run. Exit 0 when everything ran, met or not; 2 when no measurement has that name.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

BENCHES = {
    "abuse": "tools.bench.abuse",
    "bridge": "tools.bench.bridge.items",
    "core-verdicts": "tools.bench.core_verdicts",
    "decision": "tools.bench.decisions",
    "filter": "tools.bench.bridge.filters",
    "fleet": "tools.bench.fleet",
    "footprint": "tools.bench.footprint",
    "hostile": "tools.bench.hostile",
    "monitor": "tools.bench.monitor",
    "policy": "tools.bench.policy_life",
    "reconcile": "tools.bench.reconcile",
    "ring": "tools.bench.ring_messages",
}
"""By name; `--only` takes the beginning of one, or of one of its items' names."""

_RESULT = Path(__file__).parents[2] / "build" / "bench.json"
LAST = _RESULT.with_name("bench")
"""What each measured last, whole: of it docs/performance.md is made."""
_ROW = "{:<28} {:>12} {:<11} {:>12} {:>7} {:>7} {:<6}"


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", default="", help="the beginning of a name")
    only = parser.parse_args(arguments).only
    chosen = [name for name in BENCHES if name.startswith(only) or only.startswith(name)]
    if not chosen:
        print(f"no measurement '{only}'; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    print(_ROW.format("name", "ours", "unit", "floor", "ratio", "target", "met"))
    results: list[dict[str, Any]] = []
    LAST.mkdir(parents=True, exist_ok=True)
    for count, name in enumerate(chosen, 1):
        print(f"bench: {count}/{len(chosen)} {name}", file=sys.stderr)
        first = len(results)
        for result in import_module(BENCHES[name]).items():
            if result["name"].startswith(only) or name.startswith(only):
                results.append(result)
                _show(result)
        if name.startswith(only):
            (LAST / f"{name}.json").write_text(json.dumps(results[first:], indent=1) + "\n")
    _RESULT.write_text(json.dumps(results, indent=1) + "\n")
    missed = [result["name"] for result in results if result["met"] is False]
    print(f"{len(results)} measurements in {_RESULT}; missed: {', '.join(missed) or 'none'}")
    return 0


def _show(result: dict[str, Any]) -> None:
    met = {True: "yes", False: "NO", None: "-"}[result["met"]]
    numbers = [number(result[key]) for key in ("ours", "floor", "ratio", "target")]
    ours, floor, ratio, target = numbers
    print(_ROW.format(result["name"], ours, result["unit"], floor, ratio, target, met), flush=True)
    if result["beside"] is not None:
        print(f"    beside: {result['beside']}")


def number(value: float | None) -> str:
    """A figure as people read it; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
