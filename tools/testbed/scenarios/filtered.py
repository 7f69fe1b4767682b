"""A guest under clean-traffic sends as itself alone: nothing that it spoofs passes the bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.frames import STRANGER, STRANGER_MAC, Sender

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

ADDRESS = 3
"""The guest's under clean-traffic; the one it sends to has 2."""
OWN = {"IP": [f"10.0.0.{ADDRESS}"], "IPV6": [f"fd00::{ADDRESS}"]}


def run(bed: Bed) -> None:
    """Held from its start; once the profile is taken off, the same frames pass."""
    one = bed.guest("one", "web_red", vifs=["bridge=xenbr0"], start=False)
    with_profile(bed, one, "attach", given=OWN)
    try:
        bed.create(one)
        two = lasting.two(bed)
        one.up(ADDRESS)
        held(bed, one, two)
    finally:
        with_profile(bed, one, "detach")
    frame = sender(one, two).spoofed()["another's MAC"]
    bed.soon(
        "without the profile another's MAC passes",
        lambda: one.send(frame) or frame[-1] in two.marks(),
    )


def with_profile(bed: Bed, guest: Guest, what: str, **words: object) -> None:
    """Attach or detach clean-traffic."""
    domain = f"uuid:{guest.uuid}"
    bed.dom0.rpc(f"filter.{what}", domain=domain, profile="clean-traffic", **words)


def sender(one: Guest, two: Guest) -> Sender:
    """The first guest, sending to the second."""
    return Sender(one.mac(), OWN["IP"][0], OWN["IPV6"][0], to=(two.mac(), "10.0.0.2", "fd00::2"))


def held(bed: Bed, one: Guest, two: Guest) -> None:
    """What `one`, which has 10.0.0.3, spoofs never reaches `two`, which has 10.0.0.2."""
    bed.check("honest, it pings the other", one.reaches(2))
    honest_v6 = one.try_run("ping -6 -c 4 -i 0.5 -W 1 -q fd00::2")
    bed.check("over IPv6 too", honest_v6[0] == 0, honest_v6[1])
    two.listen()
    frames = sender(one, two)
    # The honest ones last: frames do not overtake each other.
    for frame in (*frames.spoofed().values(), *frames.honest().values()):
        one.send(frame)
    for what, frame in frames.honest().items():
        bed.soon(f"{what} passes", lambda mark=frame[-1]: mark in two.marks())
    marks = two.marks()
    for what, frame in frames.spoofed().items():
        bed.check(f"{what} does not", frame[-1] not in marks)
    one.run(f"ip addr add {STRANGER}/24 dev eth0")
    bed.check(
        "from another's address it pings nobody",
        one.try_run(f"ping -c 3 -W 1 -q -I {STRANGER} 10.0.0.2")[0] != 0,
    )
    address = "ip link set eth0 down; ip link set eth0 address {}; ip link set eth0 up"
    one.run(address.format(STRANGER_MAC))
    bed.check("with another MAC on its card neither", not one.reaches(2))
    bed.check("nothing of that is heard", STRANGER_MAC not in two.heard())
    one.run(address.format(one.mac()))
    bed.check("with its own it does again", one.reaches(2))
