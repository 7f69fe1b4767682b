"""A guest with somebody else's hotplug scripts: what was not granted does not stay open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

SCRIPTS = "/etc/xen/scripts"
IMAGE = "/srv/red-fs.img"


def run(bed: Bed) -> None:
    """Xen's own vif-bridge and block open everything; the agent closes it again."""
    red = lasting.two(bed)
    alien = bed.guest(
        "alien",
        "alien",
        vifs=[f"bridge=xenbr0,script={SCRIPTS}/vif-bridge"],
        disks=[f"format=raw,vdev=xvda,access=w,script={SCRIPTS}/block.xen-utils,target={IMAGE}"],
    )
    bed.soon("its vif is shut", lambda: not bed.vif_is_open(alien))
    bed.soon(
        "its disk is shut",
        lambda: not bed.blkback_threads(alien) and bed.physical_device(alien) is None,
    )
    bed.soon("no loop device is left", lambda: not bed.loops(IMAGE))
    red.listen()
    alien.try_up(3)
    alien.try_run(
        f"arping -c 2 -w 2 -I eth0 10.0.0.{lasting.TWO}; ping -c 2 -W 1 10.0.0.{lasting.TWO}"
    )
    bed.check("nobody on the bridge hears it", alien.mac() not in red.heard())
    bed.check("it reads no disk", alien.try_run("head -c 1 /dev/xvda")[0] != 0)
    bed.check("its disk is still denied", bed.record(alien, "vbd", XVDA)["verdict"] == "deny")
