"""What `brokerctl net show` is made of: what is in force, and what was refused."""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from broker.net.filters.compile import group_named
from broker.net.filters.states import is_state
from broker.net.messages import Drops, Lease, RuleCount, Shown
from broker.net.tables import BRIDGE, INET

if TYPE_CHECKING:
    from broker.net.model import Target
    from broker.net.probe import Abilities
    from broker.net.readback import Readback

_PAIR: Final = struct.Struct("=II")
_COUNTED: Final = {"from": "sent", "to": "heard", "kept": "kept"}


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


def rule_counts(readback: Readback) -> list[RuleCount]:
    """What each rule of the profiles in use decided, for all ports and kinds of frames together.

    A profile's counts begin anew when it changes.
    """
    counted: dict[str, tuple[int, int]] = {}
    for rules, count in readback.rule_counts(BRIDGE):
        for rule in rules.split():
            packets, size = counted.get(rule, (0, 0))
            counted[rule] = packets + count.packets, size + count.bytes
    return [RuleCount(rule, *found) for rule, found in sorted(counted.items())]


class Noted(msgspec.Struct, frozen=True):
    """What one port's connections of one protocol (`tcp4`) are: as many as it sent of, and heard.

    `kept` were answered and have not ended.
    """

    index: int
    protocol: str
    sent: int = 0
    heard: int = 0
    kept: int = 0


def connections(readback: Readback) -> list[Noted]:
    """The connections that are known of each port, for profiles that ask for their states."""
    found: dict[tuple[int, str], Counter[str]] = {}
    for name in filter(is_state, readback.names(BRIDGE)):
        of, _, protocol = name.partition("/")[2].partition(".")
        for key in readback.elements(BRIDGE, name) if of in _COUNTED else ():
            place = int.from_bytes(key[:4], sys.byteorder), protocol
            found.setdefault(place, Counter())[_COUNTED[of]] += 1
    return [
        Noted(*place, counts["sent"], counts["heard"], counts["kept"])
        for place, counts in sorted(found.items())
    ]


def leases(readback: Readback) -> list[Lease]:
    """The addresses that were learned from DHCP."""
    found = {
        (int.from_bytes(key[:4], sys.byteorder), key[4:8]): seconds
        for name in readback.names(BRIDGE)
        if name.startswith("v/") and [kind for _, kind in group_named(name).parts] == ["i32"]
        for key, seconds in readback.ends(BRIDGE, name).items()
    }
    return [
        Lease(index, str(ipaddress.IPv4Address(address)), int(seconds))
        for (index, address), seconds in sorted(found.items())
    ]
