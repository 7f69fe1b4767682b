"""xenstored killed: what is open stays, status is red, the empty store closes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

LEAVES_A_WRECK = True
"""xl is of no use on this host until it is booted again."""


def run(bed: Bed) -> None:
    """First without any store, then with an empty one."""
    one = bed.guest("one", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-sk.img"])
    two = bed.guest("two", "web_red", vifs=["bridge=xenbr0"])
    one.up(1)
    two.up(2)
    bed.connected(one, "vbd", XVDA)
    terminals = {
        it.domid: bed.dom0.read(f"/local/domain/{it.domid}/console/tty") for it in (one, two)
    }
    bed.check("their consoles are known", all(terminals.values()))
    bed.dom0.run("kill -KILL $(cat /run/xenstored/xenstored.pid)")
    bed.soon("status is red", lambda: bed.dom0.rpc("status")["health"] == "red")
    bed.check("both vifs are open", bed.vif_is_open(one) and bed.vif_is_open(two))
    bed.check("one's disk is served", bed.blkback_threads(one))
    bed.dom0.run("rm -f /run/xenstored/* /var/lib/xenstored/*")
    bed.dom0.run("xenstored --pid-file /run/xenstored/xenstored.pid")
    bed.dom0.run("xenstore-write /local/domain/0/domid 0")
    bed.pause(15)
    bed.check(
        "with an empty store both vifs are open", bed.vif_is_open(one) and bed.vif_is_open(two)
    )
    bed.check("and one's disk is served", bed.blkback_threads(one))
    for guest in (one, two):
        bed.dom0.store(
            ("write", f"/local/domain/{guest.domid}/console/tty", str(terminals[guest.domid]))
        )
    bed.check("one pings two", one.reaches(2))
    bed.check("one's disk works", one.try_run("echo x | dd of=/dev/xvda conv=fsync")[0] == 0)
