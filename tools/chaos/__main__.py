"""kill -9 of brokerd and broker-agent at random instants: python -m tools.chaos [--kills N].

On each store (C xenstored and oxenstored under the shim, the embedded one), or on one of them; what
must hold is read from xenstore, gates and audit log after each kill. Exit 0 when all held, 1 when
something did not. The seed is printed: with it the same is done, though processes have a pace of
their own.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from typing import TYPE_CHECKING

from twisted.internet import epollreactor

epollreactor.install()  # before what needs a reactor is imported

from support.chaos import Chaos  # noqa: E402 - as said
from support.product import Product  # noqa: E402 - as said
from support.xenstoreds import KINDS, start_store  # noqa: E402 - as said
from twisted.internet import defer, task  # noqa: E402 - as said
from twisted.logger import globalLogBeginner  # noqa: E402 - as said

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 10.0
"""Seconds between two lines about the progress."""


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for, and exit."""
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="on each store (default 1000)")
    parser.add_argument("--store", choices=KINDS, help="one store")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    options = parser.parse_args(arguments)
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    kinds = (options.store,) if options.store else KINDS
    task.react(lambda _: defer.ensureDeferred(_all(kinds, options.kills, options.seed)))


async def _all(kinds: tuple[str, ...], kills: int, seed: int) -> None:
    violations = 0
    for kind in kinds:
        violations += await _one(kind, kills, seed)
    if violations:
        sys.exit(1)


async def _one(kind: str, kills: int, seed: int) -> int:
    """One store's kills; how many violations there were: the first ends it."""
    print(f"chaos on {kind}: {kills} kills, seed {seed}", flush=True)
    daemon = start_store(kind)
    product = Product(daemon)
    chaos = Chaos(product, seed, _now_and_then(kind))
    violations = 0
    try:
        await product.start()
        await product.settle_witness()
        await chaos.run(kills)
    except AssertionError as violation:
        violations = 1
        print(f"chaos on {kind}: {violation}", file=sys.stderr, flush=True)
    finally:
        product.close()
        daemon.stop()
    print(f"chaos on {kind}: {chaos.summary()}; {violations} violations", flush=True)
    return violations


def _now_and_then(kind: str) -> Callable[[str], None]:
    last = time.monotonic()

    def told(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            print(f"chaos on {kind}: {line}", flush=True)

    return told


if __name__ == "__main__":
    main()
