"""xenstored updated live: nothing changes, and decisions go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting

if TYPE_CHECKING:
    from tools.testbed.bed import Bed


def run(bed: Bed) -> None:
    """The same tree, the same connections, another process image."""
    one, _ = lasting.pair(bed)
    record = bed.record(one, "vif")
    said = bed.dom0.run("xenstore-control live-update /usr/lib/xen-4.17/bin/xenstored")
    bed.check("xenstored has updated itself", "OK" in said or not said.strip(), said)
    bed.check("the decision is the same", bed.record(one, "vif") == record)
    bed.check("one pings two", one.reaches(2))
    three = bed.guest("three", "web_red", vifs=["bridge=xenbr0"])
    bed.soon("a new domain's vif opens", lambda: bed.vif_is_open(three))
