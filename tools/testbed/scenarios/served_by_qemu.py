"""A disk that QEMU serves, which no gate can close: a guest that is denied it is destroyed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

IMAGE = "/srv/red-qemu.img"
QDISK = f"format=raw,vdev=xvda,access=w,backendtype=qdisk,target={IMAGE}"
DESTROYED = "grep -c 'destroying domain [0-9]*: ' /results/broker-agent.log || true"


def run(bed: Bed) -> None:
    """One is granted it; another label, no label: neither stays."""
    bed.dom0.run(f"truncate -s 16M {IMAGE}; printf qemu | dd of={IMAGE} conv=notrunc 2>/dev/null")
    good = bed.guest("good", "web_red", disks=[QDISK])
    bed.soon("granted, it is open", lambda: bed.enforced(good, "vbd", XVDA) == "open")
    bed.connected(good, "vbd", XVDA)
    bed.check("the guest reads it", good.run("head -c 4 /dev/xvda") == "qemu")
    for name, label in (("another", "web_blue"), ("unlabelled", None)):
        guest = bed.guest(name, label, disks=[QDISK], start=False)
        before = bed.dom0.run(DESTROYED)
        # xl may not even get to the end of it.
        bed.dom0.try_run(f"xl create /root/{guest.name}.cfg")
        bed.soon(
            f"denied, {name} is destroyed by the agent",
            lambda before=before: bed.dom0.run(DESTROYED) != before,
        )
        bed.soon(
            f"{name} and its QEMU are gone",
            lambda guest=guest: (
                bed.dom0.try_run(f"xl domid {guest.name}")[0] != 0
                and bed.dom0.try_run(f"pgrep -f -- '-nam[e] {guest.name}'")[0] != 0
            ),
        )
    bed.check("the first one still reads", good.run("head -c 4 /dev/xvda") == "qemu")
