"""Two labels on one bridge exchange nothing, neither IPv4, ARP nor IPv6; each reaches its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

LOUD = (
    "arping -c 2 -w 2 -I eth0 10.0.0.{to}; ping -c 2 -W 1 10.0.0.{to};"
    "ping -6 -c 2 -W 1 fd00::{to};"
    "ping -c 2 -W 1 -b 10.0.0.255; ping -6 -c 2 -W 1 ff02::1%eth0"
)


def run(bed: Bed) -> None:
    """Each shouts at the other with all it has; the other's card counts no frame."""
    red, red_two = lasting.pair(bed)
    blue, blue_two = (
        bed.guest(name, "web_blue", vifs=["bridge=xenbr0"]) for name in ("blue_one", "blue_two")
    )
    for address, guest in enumerate((blue, blue_two), 3):
        guest.up(address)
    guests = (red, red_two, blue, blue_two)
    bed.check("all four vifs are open", all(bed.vif_is_open(it) for it in guests))
    bed.check("red reaches red", red.reaches(2))
    bed.check("blue reaches blue", blue.reaches(4))
    for guest in guests:
        guest.listen()
    for who, guest, own, strangers, to in (
        ("blue", blue, blue_two, (red, red_two), 1),
        ("red", red, red_two, (blue, blue_two), 3),
    ):
        said = guest.try_run(LOUD.format(to=to))[1]
        bed.check(f"{who}'s shouting is heard by its own", guest.mac() in own.heard())
        bed.check(
            f"{who}'s shouting reaches no other card",
            not any(guest.mac() in it.heard() for it in strangers),
        )
        bed.check(
            f"{who} hears no answer",
            f"from 10.0.0.{to}" not in said and f"from fd00::{to}" not in said,
            said,
        )
    colours = [{it.mac() for it in pair} for pair in ((red, red_two), (blue, blue_two))]
    heard = [red.heard() | red_two.heard(), blue.heard() | blue_two.heard()]
    bed.check(
        "no card ever heard a stranger",
        not heard[0] & colours[1] and not heard[1] & colours[0],
        heard,
    )
    for guest, other in ((red, 3), (blue, 1)):
        neighbours = guest.run("ip neigh")
        bed.check(
            "its ARP and neighbour tables know no stranger",
            not knows(neighbours, other),
            neighbours,
        )


def knows(neighbours: str, address: int) -> bool:
    """Whether a link address stands beside this domain's."""
    lines = neighbours.splitlines()
    return any(
        "lladdr" in it for it in lines if it.startswith((f"10.0.0.{address} ", f"fd00::{address} "))
    )
