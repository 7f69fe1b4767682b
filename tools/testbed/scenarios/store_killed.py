"""xenstored killed: what is open stays, status is red, the empty store closes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

LEAVES_A_WRECK = True
"""xl is of no use on this host until it is booted again."""
BEAT = (
    "(while :; do if ping -c 1 -W 2 10.0.0.2; then n=$((n+1));"
    " printf 'beat %08d' $n | dd of=/dev/xvda conv=fsync; fi; sleep 0.5; done) > /dev/null 2>&1 &"
)
"""From inside, without a console, which goes with xenstored: an echo of the other's, then a write
of how many there were to the disk."""
BEATS = 5


def run(bed: Bed) -> None:
    """First without any store, then with an empty one."""
    one, two = lasting.pair(bed)
    one.run(BEAT)
    beats_on(bed, "one pings two and writes to its disk")
    bed.dom0.run("kill -KILL $(cat /run/xenstored/xenstored.pid)")
    bed.soon("status is red", lambda: bed.dom0.rpc("status")["health"] == "red")
    still_open(bed, one, two)
    beats_on(bed, "without a store one still pings two and writes to its disk")
    bed.dom0.run("rm -f /run/xenstored/* /var/lib/xenstored/*")
    bed.dom0.run("xenstored --pid-file /run/xenstored/xenstored.pid")
    bed.dom0.run("xenstore-write /local/domain/0/domid 0")
    bed.pause(20)
    still_open(bed, one, two)
    beats_on(bed, "with an empty store one still pings two and writes to its disk")
    bed.check("nobody has recorded a denial", not denials(bed), denials(bed))


def still_open(bed: Bed, one: Guest, two: Guest) -> None:
    """As dom0's kernel sees it."""
    bed.check("both vifs are open", bed.vif_is_open(one) and bed.vif_is_open(two))
    bed.check("one's disk is served", bed.blkback_threads(one))


def beats(bed: Bed) -> int:
    """What one has written last."""
    word, _, number = bed.dom0.run(f"head -c 13 {lasting.IMAGE} | tr '\\0' 0").partition(" ")
    return int(number) if word == "beat" else 0


def beats_on(bed: Bed, what: str) -> None:
    """Assert that one's writing goes on."""
    before = beats(bed)
    bed.soon(what, lambda: beats(bed) >= before + BEATS)


def denials(bed: Bed) -> list[str]:
    """Records in the store that could close something."""
    tree = bed.dom0.tree("/broker/v1/decision")
    return [path for path, record in tree.items() if record.startswith("deny")]
