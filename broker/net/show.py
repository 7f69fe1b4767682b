"""What `brokerctl net show` is made of: what is in force, and what was refused."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from broker.net.messages import Drops, Shown
from broker.net.tables import BRIDGE, INET

if TYPE_CHECKING:
    from broker.net.model import Target
    from broker.net.probe import Abilities
    from broker.net.readback import Readback

_PAIR: Final = struct.Struct("=II")


def shown(target: Target, readback: Readback, abilities: Abilities) -> Shown:
    """Ports, pairs, and drops counted by pair of labels in all tables together."""
    return Shown(
        knows_bridge=abilities.knows_bridge,
        bridges=sorted(target.bridges),
        ports=sorted(target.ports.values(), key=lambda port: port.index),
        pairs=sorted(target.pairs),
        drops=drops(readback),
    )


def drops(readback: Readback) -> list[Drops]:
    """Refused packets by pair of labels, in all tables together."""
    counted: dict[tuple[int, int], tuple[int, int]] = {}
    for table in (BRIDGE, INET):
        for key, count in readback.counters(table, "drops").items():
            packets, size = counted.get(_PAIR.unpack(key), (0, 0))
            counted[_PAIR.unpack(key)] = (packets + count.packets, size + count.bytes)
    return [Drops(*ends, *found) for ends, found in sorted(counted.items())]
