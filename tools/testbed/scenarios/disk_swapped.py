"""A disk swapped on the same devid after a grant: the grant was for the other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed


def run(bed: Bed) -> None:
    """Red's own disk goes, blue's comes in its place; then its own again."""
    one = lasting.one(bed)
    first = bed.record(one, "vbd", XVDA)
    bed.check("the first disk is granted", first["verdict"] == "grant")
    bed.dom0.run("truncate -s 16M /srv/blue-sw.img && echo secret > /srv/blue-sw.img")
    bed.dom0.run(f"xl block-detach {one.domid} xvda")
    bed.dom0.run(
        f"xl block-attach {one.domid} format=raw,vdev=xvda,access=w,target=/srv/blue-sw.img"
    )
    bed.soon("the other disk is denied", lambda: bed.record(one, "vbd", XVDA)["verdict"] == "deny")
    bed.soon("and shut", lambda: bed.enforced(one, "vbd", XVDA) == "closed")
    bed.check("it never had a physical-device", bed.physical_device(one) is None)
    bed.check("the guest sees no disk", one.try_run("head -c 6 /dev/xvda")[0] != 0)
    bed.dom0.try_run(f"xl block-detach {one.domid} xvda")
    bed.dom0.run(
        f"xl block-attach {one.domid} format=raw,vdev=xvda,access=w,target={lasting.IMAGE}"
    )
    bed.soon("its own disk is granted anew", lambda: bed.enforced(one, "vbd", XVDA) == "open")
    bed.check("for another life", bed.record(one, "vbd", XVDA)["nonce"] != first["nonce"])
    bed.connected(one, "vbd", XVDA)
    bed.check("the guest writes it", one.try_run("echo x | dd of=/dev/xvda conv=fsync")[0] == 0)
