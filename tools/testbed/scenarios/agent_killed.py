"""Agent killed: what is open stays, nothing new opens; when it is back it knows its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed


def run(bed: Bed) -> None:
    """A relabelling meanwhile is enforced once it is back."""
    one, two = lasting.pair(bed)
    three = bed.guest(
        "three", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-ak3.img"], start=False
    )
    nonce = bed.record(one, "vif")["nonce"]
    bed.stop("broker-agent", "KILL")
    bed.create(three)
    bed.check("one still pings two", one.reaches(2))
    bed.check("three's vif is shut", not bed.vif_is_open(three), bed.link(three))
    bed.check("three's disk is shut", bed.physical_device(three) is None)
    bed.check("three sees none", three.try_run("ls /dev/xvda")[0] != 0)
    bed.start("broker-agent")
    bed.soon("with the agent back three's vif opens", lambda: bed.vif_is_open(three))
    bed.soon("and its disk", lambda: bed.enforced(three, "vbd", XVDA) == "open")
    three.up(3)
    bed.check("three pings one", three.reaches(1))
    bed.check("one's vif is the same life", bed.record(one, "vif")["nonce"] == nonce)
    bed.check("one pings two all the same", one.reaches(2))
    bed.stop("broker-agent", "KILL")
    bed.dom0.rpc("label.set", domain=f"uuid:{two.uuid}", label="web_blue")
    bed.start("broker-agent")
    bed.soon("what was relabelled meanwhile hears nothing", lambda: not one.reaches(2))
