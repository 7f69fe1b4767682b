"""`make e2e` and `make testbed-shell`: `python -m tools.testbed run [SCENARIO…]`, `… shell`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tools.testbed import runner
from tools.testbed.cache import say
from tools.testbed.placement import PLACEMENTS
from tools.testbed.scenarios import BY_NAME, ORDER


def main() -> int:
    """0 if all held, 1 if not, 2 for a scenario there is not."""
    parser = argparse.ArgumentParser(prog="python -m tools.testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run scenarios, all by default")
    run.add_argument("scenario", nargs="*", help=", ".join(ORDER))
    shell = commands.add_parser("shell", help="a shell in dom0, with the broker at work")
    for each in (run, shell):
        each.add_argument(
            "--product", type=Path, help="a tree of the product that is run instead of the packages"
        )
    run.add_argument("--machines", type=int, help="beside each other, instead of as many as fit")
    options = parser.parse_args()
    start = time.monotonic()
    if options.command == "shell":
        runner.shell(options.product)
        return 0
    known = (*ORDER, *BY_NAME)
    unknown = [it for it in options.scenario if it not in known and not _elsewhere(it)]
    if unknown:
        print(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    names = options.scenario or list(ORDER)
    good = runner.tell(runner.run(names, options.product, options.machines))
    say(f"{time.monotonic() - start:.0f} s in all; consoles and dumps are in build/testbed/results")
    return 0 if good else 1


def _elsewhere(name: str) -> bool:
    """Whether it is a scenario with the broker in another place."""
    place, _, scenario = name.partition("/")
    return place in PLACEMENTS and scenario in ORDER


sys.exit(main())
