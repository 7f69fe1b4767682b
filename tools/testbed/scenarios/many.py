"""Twenty domains created and destroyed in a row leave nothing behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA
from tools.testbed.dom0 import FailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.testbed.bed import Bed

DOMAINS = 20
PUBLISHED = re.compile(r"/broker/v1/(?:decision|report|filter)/0/(?:vif|vbd)/([0-9]+)")
SHARED = re.compile(r"/broker/v1/(?:decision|report|filter)/0(?:/(?:vif|vbd))?")
"""A class's directory is there or not, whoever is last to clean up: it is the next domain's too."""
SETTLED = 60.0
"""Seconds in which all of it is gone."""


def run(bed: Bed) -> None:
    """Nodes, nft elements, bridge ports, loop devices, the agent's and the broker's memory."""
    devices = backends(bed)
    for number in range(2):
        once(bed, number)  # what is made once is made now
    no_device_is_left(bed, devices)
    # Of none of these two: the helper takes nodes away a little later.
    bed.dom0.until("no record is left", lambda: not records(bed))
    before = {what: look(bed) for what, look in LEFT.items()}
    memory: dict[str, int] = {}
    for number in range(2, 2 + DOMAINS):
        if number == 2 + DOMAINS // 2:
            # By then what is remembered for a while is; what a domain leaves would go on growing.
            memory = resident(bed)
        once(bed, number)
    no_device_is_left(bed, devices)
    for what, look in LEFT.items():
        soon_as_before(bed, what, look, before[what])
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


def no_device_is_left(bed: Bed, devices: str) -> None:
    """The kernel has no more backends than `devices`."""
    bed.dom0.until("no device is left", lambda: backends(bed) == devices)


def soon_as_before(bed: Bed, what: str, look: Callable[[Bed], object], before: object) -> None:
    """Assert that it is as it was; told with what it is if it does not become so."""
    seen: list[object] = []

    def same() -> bool:
        seen[:] = [look(bed)]
        return seen[0] == before

    try:
        bed.dom0.until(what, same, SETTLED)
    except FailedError as error:
        raise FailedError(f"{error}: {before} is now {seen}") from None
    bed.check(f"{what}: as before", holds=True)


def records(bed: Bed) -> list[str]:
    """What is published, reported or told of the guests of this scenario."""
    lives = {str(it) for it in bed.dom0.domids()}
    paths = [PUBLISHED.match(path) for path in bed.dom0.tree("/broker/v1")]
    return [it[0] for it in paths if it is not None and it[1] not in lives]


LEFT: dict[str, Callable[[Bed], object]] = {
    "the broker's nodes": lambda bed: sorted(
        path for path in bed.dom0.tree("/broker/v1") if not SHARED.fullmatch(path)
    ),
    "nodes below /vm": lambda bed: len(bed.dom0.tree("/vm")),
    "nodes below /local/domain/0/backend": lambda bed: sorted(
        bed.dom0.tree("/local/domain/0/backend")
    ),
    "nft's tables": lambda bed: bed.dom0.run(
        "nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'"
    ),
    "bridge ports": lambda bed: bed.dom0.run("ls /sys/class/net/xenbr0/brif"),
    "loop devices": lambda bed: bed.dom0.run("losetup -a"),
}
"""What there is, that could be left behind."""


def resident(bed: Bed) -> dict[str, int]:
    """KiB in memory of each program that is dom0's."""
    sizes = bed.dom0.run(
        "cd /run/testbed; for it in brokerd broker-agent; do [ ! -e $it.pid ] ||"
        " awk -v it=$it '/VmRSS/ {print it, $2}' /proc/$(cat $it.pid)/status; done"
    )
    return {name: int(size) for name, size in (line.split() for line in sizes.splitlines())}
