"""A second domain with the uuid of a live one is refused; the first keeps what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting

if TYPE_CHECKING:
    from tools.testbed.bed import Bed


def run(bed: Bed) -> None:
    """Xl itself lets it: creating the second wipes the first's /vm tree."""
    first = bed.guest("first", "web_red", vifs=["bridge=xenbr0"])
    lasting.two(bed)
    twin = bed.guest("twin", None, vifs=["bridge=xenbr0"], start=False)
    first.up(3)
    label = f"/vm/{first.uuid}/security/acm_label/labelname"
    bed.check("the first's label is published", bed.dom0.read(label) == "web_red")
    bed.dom0.run(f"sed -i 's/{twin.uuid}/{first.uuid}/' /root/twin.cfg")
    bed.create(twin)
    domains = {it["domid"]: it["status"] for it in bed.dom0.rpc("domain.list")}
    bed.check("the second is refused", domains.get(twin.domid) == "refused", domains)
    bed.check("the first is not", domains.get(first.domid) == "labelled", domains)
    bed.check("the second's vif is shut", not bed.vif_is_open(twin), bed.link(twin))
    bed.check("the first pings on", first.reaches(lasting.TWO))
    bed.soon("the first's label is written again", lambda: bed.dom0.read(label) == "web_red")
    bed.destroy(twin)
    bed.check("the first pings on after the second's end", first.reaches(lasting.TWO))
