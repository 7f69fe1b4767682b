"""Sequences of faults against store, broker, agents and guests: python -m tools.faults [SEQUENCES].

What may happen, and what must hold after every step, is in tests/faults. Exit 0 when everything
held, 1 when something did not: the steps that led there are printed, and the seed repeats them.
"""

from __future__ import annotations

import argparse
import sys
import time

from fault_machine import Faults
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.logger import globalLogBeginner

_AT_ONCE = 50
"""Sequences from one seed."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.faults", description=__doc__)
    parser.add_argument("sequences", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first fifty (default 1)")
    options = parser.parse_args(arguments)
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    done, number, begun = 0, options.seed, time.monotonic()
    while done < options.sequences:
        count = min(_AT_ONCE, options.sequences - done)
        try:
            _run(number, count)
        except AssertionError as violation:
            steps = "\n".join(getattr(violation, "__notes__", []))
            print(f"faults: seed {number}: {violation}\n{steps}", file=sys.stderr)
            return 1
        done, number = done + count, number + 1
        took = time.monotonic() - begun
        print(f"faults: {done} of {options.sequences} sequences in {took:.0f} s, no violation")
    return 0


def _run(number: int, count: int) -> None:
    machine = type(f"Faults{number}", (Faults,), {})
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=count,
            stateful_step_count=30,
            deadline=None,
            database=None,
            derandomize=False,
            phases=[Phase.generate],
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
