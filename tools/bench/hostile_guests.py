"""Hostile guests on their rings, until they are ended.

    python -m tools.bench.hostile_guests DIRECTORY DOMID…

DIRECTORY is a running daemon's (tests/support/xenstoreds.py). Each guest does one thing as fast as
its ring takes it: rewrite what its device says of its backend, write values of 2000 bytes, set and
drop watches, make nodes up to its quota and drop them. Each has its own vif, whose frontend is its.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from support.xenstoreds import RingGuest, StoreDaemon

from broker.xenstore import paths, wire
from broker.xenstore.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.blocking import BlockingClient


class Running(StoreDaemon):
    """A daemon that another process started."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.path = directory, directory / "socket"
        self.guests: dict[int, RingGuest] = {}


def rewrite(guest: BlockingClient, home: str, turn: int) -> None:
    """Say now this, now that of the backend."""
    guest.write(f"{home}/backend-id", str(turn % 3).encode())
    guest.write(f"{home}/backend", f"/local/domain/{turn % 3}/backend/vif/1/0".encode())
    guest.write(f"{home}/state", str(turn % 7).encode())


def fill(guest: BlockingClient, home: str, turn: int) -> None:
    """Write as much as one request carries."""
    guest.write(f"{home}/request-rx-copy", bytes([33 + turn % 90]) * 2000)


def watch(guest: BlockingClient, home: str, turn: int) -> None:
    """Watch, cause events, and look away."""
    guest.watch(home, f"w{turn % 100}")
    guest.write(f"{home}/state", str(turn % 7).encode())
    guest.unwatch(home, f"w{turn % 100}")


def hoard(guest: BlockingClient, home: str, turn: int) -> None:
    """Make nodes until the quota is full, then drop them all."""
    try:
        guest.write(f"{home}/hoard/{turn}", b"x" * 100)
    except StoreError:
        guest.call(wire.RM, f"{home}/hoard")


DEEDS: tuple[Callable[[BlockingClient, str, int], None], ...] = (rewrite, fill, watch, hoard)


def settle(daemon: Running, domid: int) -> RingGuest:
    """Introduce a guest, and give it its frontend's nodes."""
    guest = RingGuest(daemon, domid)
    home = paths.frontend_dir(domid, "vif", "0")
    with daemon.client() as dom0:
        for name in ("/state", "/hoard"):
            dom0.write(f"{home}{name}", b"")
        for name in ("", "/backend", "/backend-id", "/state", "/hoard"):
            dom0.set_perms(f"{home}{name}", f"n{domid}", "r0")
    return guest


def misbehave(guest: RingGuest, deed: Callable[[BlockingClient, str, int], None]) -> None:
    """One guest's life."""
    client, home, turn = guest.client(), paths.frontend_dir(guest.domid, "vif", "0"), 0
    sys.stdout.write(f"domain {guest.domid} misbehaves\n")
    sys.stdout.flush()
    while True:
        turn += 1
        with contextlib.suppress(StoreError):
            deed(client, home, turn)


def main() -> None:
    """Start every guest; they end with the process."""
    daemon = Running(Path(sys.argv[1]))
    # One after another: oxenstored's queue of connects holds one.
    guests = [settle(daemon, int(domid)) for domid in sys.argv[2:]]
    for guest, deed in zip(guests, itertools.cycle(DEEDS), strict=False):
        threading.Thread(target=misbehave, args=(guest, deed), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
