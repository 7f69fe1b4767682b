"""Broker killed: what is open stays, nothing new opens; when it is back, what waited opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed


def run(bed: Bed) -> None:
    """Killed after one decision and before another."""
    one, _ = lasting.pair(bed)
    three = bed.guest(
        "three", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-bk3.img"], start=False
    )
    bed.stop("brokerd", "KILL")
    bed.create(three)
    bed.check("one still pings two", one.reaches(2))
    bed.check(
        "one's disk still works",
        one.run("echo still | dd of=/dev/xvda conv=fsync 2>/dev/null; head -c 5 /dev/xvda")
        == "still",
    )
    bed.check("three's vif is shut", not bed.vif_is_open(three), bed.link(three))
    bed.check("three's disk is shut", bed.physical_device(three) is None)
    bed.check("three sees none", three.try_run("ls /dev/xvda")[0] != 0)
    bed.pause(15)
    bed.check(
        "and 15 s later, its heart silent, all is the same",
        one.reaches(2) and not bed.vif_is_open(three),
    )
    bed.start("brokerd")
    bed.enforcing()
    bed.soon("with the broker back three's vif opens", lambda: bed.vif_is_open(three))
    bed.soon("and its disk", lambda: bed.enforced(three, "vbd", XVDA) == "open")
    bed.connected(three, "vbd", XVDA)
    bed.check("three reads it", three.try_run("head -c 1 /dev/xvda")[0] == 0)
    three.up(3)
    bed.check("three pings one", three.reaches(1))
    bed.check("one's and two's vifs were never touched", one.reaches(2))
