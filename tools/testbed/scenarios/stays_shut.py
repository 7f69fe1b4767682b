"""No shared type, no label, unknown label, a disk not shared: shut, and the guest does not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA, Guest

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

LONGEST = 150.0
"""Seconds of the guest's own time in which both frontends are loaded; Linux waits 300."""


def run(bed: Bed) -> None:
    """A guest of each kind; from inside, no card with carrier and no disk."""
    strangers = [
        bed.guest("alien", "alien", vifs=["bridge=xenbr0"], disks=["/srv/red-alien.img"]),
        bed.guest("nobody", None, vifs=["bridge=xenbr0"], disks=["/srv/red-nobody.img"]),
    ]
    blue = bed.guest("blue", "web_blue", vifs=["bridge=xenbr0"], disks=["/srv/red-blue.img"])
    for guest in strangers:
        booted(bed, guest)
        bed.check(f"{guest.name}: the vif is denied", bed.record(guest, "vif")["verdict"] == "deny")
        bed.check(
            f"{guest.name}: the vif's link is shut or gone",
            not bed.vif_is_open(guest),
            bed.link(guest),
        )
        no_disk(bed, guest)
    booted(bed, blue)
    bed.soon("blue: its vif is open", lambda: bed.vif_is_open(blue))
    bed.check("blue: the disk is denied", bed.record(blue, "vbd", XVDA)["verdict"] == "deny")
    no_disk(bed, blue)
    left = bed.loops(*(f"/srv/red-{it.name}.img" for it in (*strangers, blue)))
    bed.check("no loop device is left", not left, left)


def booted(bed: Bed, guest: Guest) -> None:
    """Both frontends have loaded without waiting for what does not come."""
    loaded = "cat /run/xen-netfront /run/xen-blkfront"
    bed.dom0.until(f"{guest.name}: {loaded}", lambda: guest.try_run(loaded)[0] == 0, 2 * LONGEST)
    seconds = max(float(it) for it in guest.run(loaded).split())
    bed.check(f"{guest.name}: its frontends did not wait for long", seconds < LONGEST, seconds)


def no_disk(bed: Bed, guest: Guest) -> None:
    """Neither in the guest nor in blkback."""
    bed.check(f"{guest.name}: sees no disk", guest.try_run("ls /dev/xvda")[0] != 0)
    bed.check(f"{guest.name}: has no physical-device", bed.physical_device(guest) is None)
