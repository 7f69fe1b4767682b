"""Twenty domains created and destroyed in a row leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

DOMAINS = 20


def run(bed: Bed) -> None:
    """Nodes, nft elements, bridge ports, loop devices, the agent's and the broker's memory."""
    devices = backends(bed)
    for number in range(2):
        once(bed, number)  # what is made once is made now
    before = left(bed, devices)
    memory = resident(bed)
    for number in range(2, 2 + DOMAINS):
        once(bed, number)
    after = left(bed, devices)
    for what, value in before.items():
        bed.check(f"{what}: as before", after[what] == value, (value, after[what]))
    grown = {name: size - memory[name] for name, size in resident(bed).items()}
    bed.check(f"{' and '.join(grown)}: no MiB more of memory", max(grown.values()) < 1024, grown)


def once(bed: Bed, number: int) -> None:
    """One domain's whole life; paused, since its own part is not the point."""
    guest = bed.guest(
        f"many{number}", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-many.img"], start=False
    )
    bed.create(guest, "-p")
    bed.dom0.until("its vif opens", lambda: bed.vif_is_open(guest))
    bed.dom0.until("its disk opens", lambda: bed.enforced(guest, "vbd", XVDA) == "open")
    bed.destroy(guest)
    bed.dom0.rpc("label.rm", domain=f"uuid:{guest.uuid}")


def backends(bed: Bed) -> str:
    """dom0's kernel's: the broker's own domain may have one."""
    return bed.dom0.run("ls /sys/bus/xen-backend/devices")


def left(bed: Bed, devices: str) -> dict[str, object]:
    """What there is, counted, once the kernel has no more backends than `devices`."""
    bed.dom0.until("no device is left", lambda: backends(bed) == devices)
    bed.dom0.until("no record is left", lambda: not records(bed))
    return {
        "the broker's nodes": sorted(bed.dom0.tree("/broker/v1")),
        "nodes below /vm": len(bed.dom0.tree("/vm")),
        "nodes below /local/domain/0/backend": sorted(bed.dom0.tree("/local/domain/0/backend")),
        "nft's tables": bed.dom0.run("nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'"),
        "bridge ports": bed.dom0.run("ls /sys/class/net/xenbr0/brif"),
        "loop devices": bed.dom0.run("losetup -a"),
    }


def records(bed: Bed) -> list[str]:
    """What is published of the guests of this scenario; the helper takes it away a little later."""
    lives = {str(it) for it in bed.dom0.domids()}
    tree = bed.dom0.tree("/broker/v1/decision/0")
    return [path for path in tree if path.count("/") > 6 and path.split("/")[6] not in lives]


def resident(bed: Bed) -> dict[str, int]:
    """KiB in memory of each program that is dom0's."""
    sizes = bed.dom0.run(
        "cd /run/testbed; for it in brokerd broker-agent; do [ ! -e $it.pid ] ||"
        " awk -v it=$it '/VmRSS/ {print it, $2}' /proc/$(cat $it.pid)/status; done"
    )
    return {name: int(size) for name, size in (line.split() for line in sizes.splitlines())}
