"""Twenty domains created and destroyed in a row leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

DOMAINS = 20


def run(bed: Bed) -> None:
    """Nodes, nft elements, bridge ports, loop devices, the agent's and the broker's memory."""
    for number in range(2):
        once(bed, number)  # what is made once is made now
    before = left(bed)
    memory = resident(bed)
    for number in range(2, 2 + DOMAINS):
        once(bed, number)
    after = left(bed)
    for what, value in before.items():
        bed.check(f"{what}: as before", after[what] == value, (value, after[what]))
    grown = {name: size - memory[name] for name, size in resident(bed).items()}
    bed.check(
        "neither brokerd nor broker-agent has grown by a MiB", max(grown.values()) < 1024, grown
    )


def once(bed: Bed, number: int) -> None:
    """One domain's whole life; paused, since its own part is not the point."""
    guest = bed.guest(
        f"many{number}", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-many.img"], start=False
    )
    bed.create(guest, "-p")
    if not bed.vif_is_open(guest):
        bed.dom0.until("its vif opens", lambda: bed.vif_is_open(guest))
    bed.destroy(guest)
    bed.dom0.rpc("label.rm", domain=f"uuid:{guest.uuid}")


def left(bed: Bed) -> dict[str, object]:
    """What there is, counted."""
    bed.dom0.until(
        "no device is left", lambda: not bed.dom0.try_run("ls /sys/bus/xen-backend/devices")[1]
    )
    nodes = bed.dom0.tree("/broker/v1")
    return {
        "the broker's nodes": sorted(nodes),
        "nodes below /vm": len(bed.dom0.tree("/vm")),
        "nodes below /local/domain/0/backend": sorted(bed.dom0.tree("/local/domain/0/backend")),
        "nft's tables": bed.dom0.run("nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'"),
        "bridge ports": bed.dom0.run("ls /sys/class/net/xenbr0/brif"),
        "loop devices": bed.dom0.run("losetup -a"),
    }


def resident(bed: Bed) -> dict[str, int]:
    """KiB in memory of each program."""
    return {
        name: int(
            bed.dom0.run(f"awk '/VmRSS/ {{print $2}}' /proc/$(cat /run/testbed/{name}.pid)/status")
        )
        for name in ("brokerd", "broker-agent")
    }
