"""A guest that breaks the protocol of a card or a disk is named, and loses that device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest


def run(bed: Bed) -> None:
    """On unmodified drivers: netfront and netback, blkfront and blkback."""
    bad = bed.guest("bad", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-sb.img"])
    good = lasting.one(bed)
    bad.up(3)
    bed.connected(bad, "vbd", XVDA)
    bed.check("both ping each other", good.reaches(3) and bad.reaches(lasting.ONE))
    blamed = [it for guest in (bad, good) for it in sanctions(bed, guest)]
    bed.check("well-behaved drivers are blamed for nothing", not blamed, blamed)
    home = f"/local/domain/{bad.domid}/device"
    bad.run(f"misbehave write {home}/vif/0/backend-id 7")
    bed.soon(
        "who broke it is in the record",
        lambda: "frontend%20broke" in bed.record(bad, "vif").get("reason", ""),
    )
    bed.soon("its card is shut", lambda: not bed.vif_is_open(bad))
    bed.check("nobody hears it any more", not good.reaches(3))
    bed.check("its disk still works", bed.enforced(bad, "vbd", XVDA) == "open")
    bad.run(f"misbehave write {home}/vbd/{XVDA}/ring-ref none")
    bed.soon("then it loses the disk too", lambda: bed.enforced(bad, "vbd", XVDA) == "closed")
    bed.check("blkback's thread is gone", not bed.blkback_threads(bad), bed.blkback_threads(bad))
    bed.check(
        "the other's card and disk are open still",
        bed.vif_is_open(good) and bed.enforced(good, "vbd", XVDA) == "open",
    )
    bed.check("and who behaved is blamed for nothing", not sanctions(bed, good))


def sanctions(bed: Bed, guest: Guest) -> list[str]:
    """What the audit log has of sanctions against a domain."""
    page = bed.dom0.rpc("audit.list", event="sanctioned", domain=f"uuid:{guest.uuid}")
    return [it["line"] for it in page["records"]]
