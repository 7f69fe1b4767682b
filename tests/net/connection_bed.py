"""A bridge with a guest that may open connections, and what the kernel knows of those."""

from __future__ import annotations

import sys

import pytest
from conversation import ACK, PSH, SYN, Ends

from broker.net.enforcer import PortEnforcer
from broker.net.filters.states import is_state
from broker.net.libnftables import Libnftables
from broker.net.readback import Readback
from broker.net.tables import BRIDGE

HEAD = "profile: {name}\ndescription: x\ndefault: {{from-guest: {out}, to-guest: drop}}\nrules:\n"
ANSWERS = "  - {accept: to-guest, match: {ct.state: [established, related]}}\n"
OUTWARD = {"p": (HEAD.format(name="p", out="accept") + ANSWERS).encode()}
"""The guest may send anything, and gets answers alone."""
SIX = ("fd00::1", "fd00::2")
BOTH = pytest.mark.parametrize("ends", [Ends(), Ends(*SIX)], ids=["ipv4", "ipv6"])


def out(bed, *frames):
    return bed.passes("from-guest", list(frames))


def back(bed, *frames):
    return bed.passes("to-guest", list(frames))


def noted(bed, name="", index=None):
    """Keys that the kernel's sets of this name, or all, hold for the guest; and their seconds."""
    wanted = (bed.guest.index if index is None else index).to_bytes(4, sys.byteorder)
    with bed.rig.net.host.entered():
        readback = Readback()
    return [
        (it, key, seconds)
        for it in readback.names(BRIDGE)
        if is_state(it) and name in it
        for key, seconds in readback.ends(BRIDGE, it).items()
        if key[:4] == wanted
    ]


def again(bed):
    """Another enforcer, as after a helper's end."""
    with bed.rig.net.host.entered():
        rig = bed.rig
        rig.enforcer = PortEnforcer(Libnftables(), Readback(), rig.abilities, rig.alarms.append)
    return rig.enforcer


def handshake(bed, ends):
    """Opened from the guest: whether each of its frames passed."""
    there = ends.turned()
    return [
        *out(bed, ends.tcp(SYN)),
        *back(bed, there.tcp(SYN | ACK)),
        *out(bed, ends.tcp(ACK), ends.tcp(ACK | PSH)),
        *back(bed, there.tcp(ACK | PSH)),
    ]
