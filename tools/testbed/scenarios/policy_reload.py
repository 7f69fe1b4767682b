"""A policy that closes a live vif and disk while the guest is paused; the next one opens them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

POLICIES = "/etc/xen-policy-broker/policies"
IN_TIME = 2.0
"""Seconds of dom0's time from the broker's answer until the kernel shows both shut."""


def run(bed: Bed) -> None:
    """The reader in the guest writes without a pause until it is paused."""
    one = bed.guest("one", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-pr.img"])
    two = bed.guest("two", "web_red", vifs=["bridge=xenbr0"])
    one.up(1)
    two.up(2)
    bed.connected(one, "vbd", XVDA)
    one.run("echo kept | dd of=/dev/xvda conv=fsync 2>/dev/null")
    bed.check("one pings two", one.reaches(2))
    first = bed.dom0.run(f"cat {POLICIES}/testbed-1.0.yaml")
    closing = first.replace('"1.0"', '"1.1"').replace(
        "web_red: {ste: [red, storage_red]}", "web_red: {ste: [alien]}"
    )
    opening = first.replace('"1.0"', '"1.2"')
    for number, text in ((1, closing), (2, opening)):
        bed.dom0.run(f"cat > {POLICIES}/testbed-1.{number}.yaml <<'END'\n{text}END")
    try:
        bed.dom0.run(f"xl pause {one.domid}")
        bed.dom0.rpc("policy.load", text=closing, source="testbed-1.1.yaml", revoke=True)
        loaded = bed.uptime()
        bridged = f"ip -o link show vif{one.domid}.0 2>/dev/null | grep -q master"
        served = f"ps -eo comm | grep -q '^{one.domid}\\.xvda'"
        bed.dom0.run(f"until ! {bridged} && ! {served}; do :; done")
        closed = bed.uptime()
        bed.check(
            f"within {IN_TIME:.0f} s of the policy's coming into force both are shut",
            closed - loaded < IN_TIME,
            closed - loaded,
        )
        bed.soon(
            "the agent reports the disk closed", lambda: bed.enforced(one, "vbd", XVDA) == "closed"
        )
        bed.check(
            "blkback's threads are gone", not bed.blkback_threads(one), bed.blkback_threads(one)
        )
        bed.check(
            "no loop device is left", not bed.dom0.run("losetup -a"), bed.dom0.run("losetup -a")
        )
        bed.dom0.run(f"xl unpause {one.domid}")
        bed.check("two hears nothing of one", not two.reaches(1))
    finally:
        bed.dom0.rpc("policy.load", text=opening, source="testbed-1.2.yaml")
    bed.soon("the next policy opens the vif", lambda: bed.vif_is_open(one))
    bed.soon("and the disk", lambda: bed.enforced(one, "vbd", XVDA) == "open")
    bed.check("one pings two again", one.reaches(2))
    status, said = one.try_run("dd if=/dev/xvda bs=512 count=1 2>/dev/null | head -c 4")
    bed.check("one reads its disk again", (status, said) == (0, "kept"), (status, said))
