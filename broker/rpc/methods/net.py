"""What backend domains' agents report of the packets they refuse: `net.*`."""

import msgspec


class NetDrop(msgspec.Struct, frozen=True, kw_only=True):
    """Packets refused from one label to another; None is an interface without a label."""

    sender: str | None
    receiver: str | None
    packets: int
    bytes: int


class NetDrops(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend domain's agent reports of packets refused between the vifs it bridges.

    The counts go on until that host's tables are made anew; the largest come first, and `omitted`
    pairs did not fit. It is that domain's own word, of the time `at` by its own clock.
    """

    backend: int
    backend_name: str | None
    at: float
    drops: tuple[NetDrop, ...]
    omitted: int
