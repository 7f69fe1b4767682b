"""Run the fuzz targets one after the other: python -m tools.fuzz [--seconds N] [--only NAME].

Each runs in a process of its own for so many seconds. What it has learnt stays in
build/fuzz/NAME/ and is where the next run begins; what broke it is written to
build/fuzz/NAME-crash-… and named here. Exit 0 when nothing broke, 1 when something did, 2 when
there is no such target.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from tools.fuzz.names import TARGETS

_BUILT = Path(__file__).parents[2] / "build" / "fuzz"
_LONGEST = 32768
"""Bytes of an input; the shipped descriptions are shorter."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="for each target (default 300)")
    parser.add_argument("--only", metavar="NAME", choices=TARGETS, help="one target")
    options = parser.parse_args(arguments)
    broken = [
        name
        for name in ([options.only] if options.only else TARGETS)
        if not _run(name, options.seconds)
    ]
    print(f"fuzz: {'broke ' + ', '.join(broken) if broken else 'nothing broke'}")
    return 1 if broken else 0


def _run(name: str, seconds: int) -> bool:
    """Whether the target held."""
    corpus = _BUILT / name
    corpus.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: {name} for {seconds} s", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "tools.fuzz.one", name, corpus]
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-artifact_prefix={_BUILT}/{name}-",
        f"-dict={_BUILT}/{name}.dict",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    done = subprocess.run([*command, *options], capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    runs = re.search(r"number_of_executed_units: *(\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    took = time.monotonic() - began
    if done.returncode or runs is None:
        print(said[-4000:], file=sys.stderr)
        print(f"fuzz: {name} broke after {took:.0f} s; what broke it is in {_BUILT}/{name}-*")
        return False
    edges = covered[-1] if covered else "0"
    print(f"fuzz: {name} held: {int(runs[1]):,} inputs in {took:.0f} s, {edges} edges seen")
    return True


if __name__ == "__main__":
    sys.exit(main())
