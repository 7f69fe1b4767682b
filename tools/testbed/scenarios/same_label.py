"""Two domains of one label talk on one bridge; one of them reads and writes its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting

if TYPE_CHECKING:
    from tools.testbed.bed import Bed


def run(bed: Bed) -> None:
    """Ping in both directions, IPv4 and IPv6; what is written on a disk is read from its image."""
    one, two = lasting.pair(bed)
    bed.check(
        "both vifs are granted",
        [bed.record(it, "vif")["verdict"] for it in (one, two)] == ["grant"] * 2,
    )
    bed.check("one pings two", one.reaches(2))
    bed.check("two pings one", two.reaches(1))
    bed.check("over IPv6 too", one.try_run("ping -6 -c 2 -W 2 fd00::2")[0] == 0)
    one.run("echo written by one | dd of=/dev/xvda conv=fsync 2>/dev/null")
    bed.check(
        "what one wrote is in the image",
        "written by one" in bed.dom0.run(f"head -c 14 {lasting.IMAGE}"),
    )
    bed.check("one reads it", one.run("head -c 14 /dev/xvda") == "written by one")
