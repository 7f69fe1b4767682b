"""A guest with filter profiles between unfiltered ones: which frames pass in either direction."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from pathlib import Path

from net_rig import OBSERVER, found_marker, frame_for

from broker.net.model import PortFilter

PROFILES = Path(__file__).parents[2] / "etc" / "filters"
_AUXDATA = 8
_TPACKET = struct.Struct("=IIIHHHH")
_VLAN_VALID = 0x10
_PACKET = 263


def shipped():
    """The texts of the profiles that come with the project."""
    return {path.name: path.read_bytes() for path in sorted(PROFILES.glob("*.yaml"))}


class FilterRig:
    """`guest` is filtered; `peer` and the observer are not. All may talk with all."""

    def __init__(self, rig):
        self.rig = rig
        self.netfilter(on=False)
        self.guest, self.peer = rig.net.add("vif1.0", "vif2.0")
        (self.observer,) = rig.net.add(OBSERVER)
        for it in (self.guest, self.observer):
            it.socket.setsockopt(_PACKET, _AUXDATA, 1)
        self.texts = shipped()

    def netfilter(self, *, on):
        """Whether br_netfilter, if it is loaded, shows bridged packets to others too."""
        for family in ("ip", "ip6", "arp"):
            with contextlib.suppress(FileNotFoundError):
                self.rig.net.host.sysctl(f"bridge/bridge-nf-call-{family}tables", str(int(on)))

    def port(self, guest, profiles=None, **variables):
        asked = None
        if profiles is not None:
            listed = {name: tuple(map(str, values)) for name, values in variables.items()}
            asked = PortFilter(tuple(profiles), listed)
        return self.rig.port(guest, 1, filter=asked)

    def target(self, profiles=None, texts=None, **variables):
        ports = [self.port(self.guest, profiles, **variables)]
        ports += [self.port(self.peer), self.port(self.observer)]
        made = self.rig.target(ports, {(1, 1)})
        return type(made)(made.bridges, made.ports, made.pairs, texts or self.texts)

    def hold(self, *profiles, texts=None, **variables):
        """Put the guest under these profiles, everybody else under none."""
        target = self.target(profiles or None, texts, **variables)
        if self.rig.enforcer.target.ports:
            self.rig.enforcer.update(target)
        else:
            self.rig.enforcer.start(target)

    def passes(self, direction, frames):
        """Whether each of `frames`, which must differ, passes from or to the guest."""
        sender = self.guest if direction == "from-guest" else self.peer
        hearer = self.observer if direction == "from-guest" else self.guest
        home = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(home)})
        try:
            for it in (self.guest, self.observer, self.peer):
                list(it.received())
            for frame in frames:
                sender.send(frame)
            end = frame_for("sentinel", self.peer, self.observer)
            self.peer.send(end)
            heard = set(self._until(hearer, end))
        finally:
            os.sched_setaffinity(0, home)
        return [frame in heard for frame in frames]

    def heard(self):
        """The markers of what the observer heard until now: (sender, kind)."""
        end = frame_for("sentinel", self.peer, self.observer)
        self.peer.send(end)
        marks = (found_marker(frame) for frame in self._until(self.observer, end))
        return [(mark[2], mark[0]) for mark in marks if mark]

    def _until(self, hearer, end):
        """What `hearer` hears until the observer has the frame that was sent last of all."""
        until = time.monotonic() + 20
        over = False
        while True:
            for frame in received(hearer):
                if hearer is self.observer and frame[: len(end)] == end:
                    over = True
                yield frame
            if hearer is not self.observer:
                over = over or any(frame[: len(end)] == end for frame in received(self.observer))
                if over:
                    yield from received(hearer)
            if over:
                return
            if time.monotonic() > until:
                raise TimeoutError("the last frame did not come")
            select.select([self.observer.socket], [], [], 1)


def received(guest):
    """Frames as they were on the wire, their tags put back."""
    while True:
        try:
            data, ancillary, _, address = guest.socket.recvmsg(9000, 256)
        except BlockingIOError:
            return
        if address[2] == socket.PACKET_OUTGOING:
            continue
        for level, kind, value in ancillary:
            if (level, kind) == (_PACKET, _AUXDATA):
                status, _, _, _, _, tci, tpid = _TPACKET.unpack_from(value)
                if status & _VLAN_VALID:
                    data = data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
        yield data
