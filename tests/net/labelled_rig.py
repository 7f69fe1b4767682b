"""Ports with labels on a bridge of their own, and the enforcer that keeps them."""

from __future__ import annotations

from net_rig import OBSERVER, Net, mac

from broker.net.classes import classify
from broker.net.enforcer import PortEnforcer
from broker.net.libnftables import Libnftables
from broker.net.model import Port, Target
from broker.net.probe import probe
from broker.net.readback import Readback
from broker.net.tables import SETS


class Labelled:
    """A rig whose ports carry labels: `frames(a, b)` is a set of unordered pairs."""

    def __init__(self, *bridges):
        self.net = Net(*bridges)
        self.bridges = frozenset(bridges or ("br0",))
        self.alarms = []
        with self.net.host.entered():
            self._nft = nft = Libnftables()
            self.abilities = probe(nft)
            self.enforcer = PortEnforcer(nft, Readback(), self.abilities, self.alarms.append)

    def content(self):
        """All that our tables hold, what counts packets left out."""
        with self.net.host.entered():
            readback = Readback()
        sets = [(table, spec.name) for table, specs in SETS.items() for spec in specs]
        return readback.rules_digest(), [readback.elements(*place) for place in sets]

    def classes(self, labels, pairs, previous=None):
        allowed = {frozenset(pair) for pair in pairs}
        allowed |= {frozenset((OBSERVER, label)) for label in labels}
        arguments = [(*labels, OBSERVER), lambda a, b: frozenset((a, b)) in allowed]
        return classify(*arguments, *([] if previous is None else [previous]))

    def port(self, guest, number, *, host=False, bridge="br0", **more):
        return Port(guest.port, guest.index, number, host, bridge, **more)

    def target(self, ports, pairs):
        return Target(self.bridges, {port.index: port for port in ports}, frozenset(pairs))

    def close(self):
        self._nft.close()
        self.net.close()


def lay(rig, *names):
    """Guests that dom0 routes for, with a fixed neighbour entry for each; the rig, and they."""
    guests = rig.net.add(*names, bridge=None)
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        rig.net.host.sysctl(path, "1")
    for n, guest in enumerate(guests, 1):
        rig.net.host.ip(
            f"link set {guest.port} address {mac(100 + n)}",
            f"addr add 10.{n}.0.100/24 dev {guest.port}",
            f"addr add fd0{n}::100/64 dev {guest.port} nodad",
            f"neigh add 10.{n}.0.1 lladdr {guest.mac} dev {guest.port}",
            f"neigh add fd0{n}::1 lladdr {guest.mac} dev {guest.port}",
        )
    return rig, guests
