"""Relabelling suspends a vif without touching the guest, revokes its disk, and gives both back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed


def run(bed: Bed) -> None:
    """Red becomes blue, and red again."""
    one, two = lasting.pair(bed)
    one.run("echo first | dd of=/dev/xvda conv=fsync 2>/dev/null")
    bed.check("one pings two", one.reaches(2))
    bed.check("blkback serves one's disk", bed.blkback_threads(one))
    bed.dom0.rpc("label.set", domain=f"uuid:{one.uuid}", label="web_blue")
    bed.soon("the disk is revoked", lambda: bed.enforced(one, "vbd", XVDA) == "closed")
    bed.check("blkback's thread is gone", not bed.blkback_threads(one), bed.blkback_threads(one))
    bed.check("no loop device is left", not bed.loops(lasting.IMAGE), bed.loops(lasting.IMAGE))
    bed.check("one pings two no more", not one.reaches(2))
    bed.check("two pings one no more", not two.reaches(1))
    bed.check("the guest's card is as it was", bed.frontend_state(one, "vif", 0) == "4")
    bed.dom0.rpc("label.set", domain=f"uuid:{one.uuid}", label="web_red")
    bed.soon("the vif is open again", lambda: bed.vif_is_open(one))
    bed.check("one pings two again", one.reaches(2))
    bed.soon("the disk is open again", lambda: bed.enforced(one, "vbd", XVDA) == "open")
    status, said = one.try_run("dd if=/dev/xvda bs=512 count=1 2>/dev/null | head -c 5")
    bed.check("one reads its disk again", (status, said) == (0, "first"), (status, said))
