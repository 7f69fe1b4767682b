"""Two red guests that outlive a scenario: most need a pair that talks, and a boot is half of each.

Both are labelled web_red, on xenbr0; the first has a disk. Who takes them finds them as they were
made: nothing runs in them, label and channels are right; else they are made anew. After a scenario
that failed none is left. A scenario that must see a guest's start makes one of its own, under
another name and address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.testbed.bed import XVDA
from tools.testbed.dom0 import FailedError

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

IMAGE: Final = "/srv/red-lasting.img"
"""The first one's disk."""
ONE, TWO = 1, 2
"""Their addresses: 10.0.0.1 and 10.0.0.2."""
_NAMES: Final = {ONE: "lasting1", TWO: "lasting2"}
_DISKS: Final = {ONE: [IMAGE], TWO: []}
_PATIENCE: Final = 60.0
_NOTHING_RUNS: Final = "kill -9 -1; ip neigh flush all; rm -f /run/heard"
"""What the console starts is a child of its process 1, which `kill -9 -1` spares."""


def pair(bed: Bed) -> tuple[Guest, Guest]:
    """Both, able to ping each other."""
    return one(bed), two(bed)


def one(bed: Bed) -> Guest:
    """The one with a disk, connected."""
    return _guest(bed, ONE)


def two(bed: Bed) -> Guest:
    """The one without."""
    return _guest(bed, TWO)


def _guest(bed: Bed, number: int) -> Guest:
    lasting = bed.machine.lasting
    found = lasting.pop(number, None)
    if found is None or not _as_it_was(bed, found, number):
        name = _NAMES[number]
        if found is not None:
            bed.dom0.try_run(f"xl destroy {name}")
        found = bed.guest(name, "web_red", vifs=["bridge=xenbr0"], disks=_DISKS[number])
        found.up(number)
        _connected(bed, found, number)
    lasting[number] = found
    return found


def _as_it_was(bed: Bed, guest: Guest, number: int) -> bool:
    """Whether it runs, does nothing any more, and has what it had."""
    try:
        if bed.dom0.read(f"/local/domain/{guest.domid}/name") != guest.name:
            return False
        if guest.try_run(_NOTHING_RUNS, _PATIENCE)[0] != 0:
            return False
        bed.dom0.rpc("label.set", domain=f"uuid:{guest.uuid}", label="web_red")
        _connected(bed, guest, number)
    except FailedError:
        return False
    return True


def _connected(bed: Bed, guest: Guest, number: int) -> None:
    bed.dom0.until("its vif is open", lambda: bed.vif_is_open(guest), _PATIENCE)
    if _DISKS[number]:
        bed.dom0.until(
            "its disk is open", lambda: bed.enforced(guest, "vbd", XVDA) == "open", _PATIENCE
        )
        bed.connected(guest, "vbd", XVDA, _PATIENCE)
