"""A running guest gets a card and a disk by hand, has them reset, and loses them by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA
from tools.testbed.traced import traced

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

IMAGE = "/srv/red-hand.img"


def run(bed: Bed) -> None:
    """All of it traced by xenstored, attaching and detaching too."""
    lasting.two(bed)
    with traced(bed):
        by_hand(bed)


def by_hand(bed: Bed) -> None:
    """Everything by the RPC: dom0's agent does it on the broker's signed order."""
    one = bed.guest("one", "web_red")
    bed.dom0.run(f"truncate -s 16M {IMAGE}; printf hand | dd of={IMAGE} conv=notrunc 2>/dev/null")
    domain = f"uuid:{one.uuid}"
    status, said = bed.dom0.try_run(
        f"brokerctl channel connect --domain {domain} --resource disks_blue"
        f" --params /srv/blue-hand.img"
    )
    bed.check("a disk that the policy denies is refused", status == 1, (status, said))
    bed.dom0.rpc("channel.connect", domain=domain, bridge="xenbr0", **{"class": "vif"})
    one.up(3)
    bed.check("one pings two over a card connected by hand", one.reaches(lasting.TWO))
    bed.dom0.rpc("channel.connect", domain=domain, resource="disks_red", params=IMAGE)
    bed.connected(one, "vbd", XVDA)
    status, said = one.try_run("dd if=/dev/xvda bs=512 count=1 2>/dev/null | head -c 4")
    bed.check("and reads a disk connected by hand", (status, said) == (0, "hand"), (status, said))
    before = bed.record(one, "vif")["nonce"]
    bed.dom0.rpc("channel.reset", frontend=domain, device="0", **{"class": "vif"})
    bed.soon(
        "a reset card comes back in a new life",
        lambda: bed.record(one, "vif").get("nonce", before) != before and bed.vif_is_open(one),
    )
    one.up(3)
    bed.check("and one pings two again", one.reaches(lasting.TWO))
    for device_class, device in (("vif", "0"), ("vbd", str(XVDA))):
        bed.dom0.rpc(
            "channel.disconnect", frontend=domain, device=device, **{"class": device_class}
        )
    card = f"ip link show vif{one.domid}.0"
    bed.soon("the card is gone", lambda: bed.dom0.try_run(card)[0] != 0)
    bed.soon("and so is the disk's thread", lambda: not bed.blkback_threads(one))
    bed.check("no loop device is left", not bed.loops(IMAGE), bed.loops(IMAGE))
