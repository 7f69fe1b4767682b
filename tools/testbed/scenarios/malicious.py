"""A guest that rewrites and floods its own nodes as fast as it can changes nothing for anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

SECONDS = 20


def run(bed: Bed) -> None:
    """Other domains' decisions go on meanwhile; its own devices stay as decided."""
    bad = bed.guest("bad", "web_blue", vifs=["bridge=xenbr0"], disks=["/srv/red-bad.img"])
    bed.soon("its vif is open", lambda: bed.vif_is_open(bad))
    before = {
        kind: bed.record(bad, kind, device)["verdict"]
        for kind, device in (("vif", 0), ("vbd", XVDA))
    }
    bed.check(
        "its vif is granted and its disk denied", before == {"vif": "grant", "vbd": "deny"}, before
    )
    home = f"/local/domain/{bad.domid}"
    for path, value in (
        (f"/broker/v1/decision/0/vbd/{bad.domid}/{XVDA}", "grant"),
        (f"/vm/{bad.uuid}/security/acm_label/labelname", "web_red"),
        (f"{home}/vm", "/vm/0"),
    ):
        status, said = bad.try_run(f"misbehave write {path} {value}")
        bed.check(
            f"it cannot write {path.rpartition('/')[2]} of {path.split('/')[1]}",
            status == 1 and "EACCES" in said,
            said,
        )
    both = [f"misbehave rewrite {SECONDS} {home}/device/{it}" for it in ("vif/0", f"vbd/{XVDA}")]
    bad.run(f"({'; '.join(both)}) > /run/rewrote 2>&1 &")
    bad.run(f"misbehave flood {2 * SECONDS} {home}/data > /run/flooded 2>&1 &")
    good = bed.guest("good", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-good.img"])
    bed.soon("another's vif opens meanwhile", lambda: bed.vif_is_open(good))
    bed.soon("and its disk", lambda: bed.enforced(good, "vbd", XVDA) == "open")
    bed.check("its own disk is shut", bed.physical_device(bad) is None)
    bed.soon(
        "it ends",
        lambda: bad.try_run("cat /run/flooded /run/rewrote")[1].count("writes") == 3,
        6 * SECONDS,
    )
    bed.check(
        "its disk was never opened",
        bed.physical_device(bad) is None and not bed.blkback_threads(bad),
    )
    bed.check("the broker is well", bed.dom0.rpc("status")["enforcing"])
    bed.check(
        "the other's vif and disk are open still",
        bed.vif_is_open(good) and bed.enforced(good, "vbd", XVDA) == "open",
    )
