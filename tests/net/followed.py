"""Connections of one vif, followed frame by frame beside the kernel."""

from __future__ import annotations

from broker.filters.connections import connection_of
from broker.filters.frame import Frame


class Followed:
    """What passed in either direction so far; nothing is ever forgotten."""

    def __init__(self):
        self._passed = {"from-guest": set(), "to-guest": set()}

    def state(self, data, direction):
        """The frame's state, before it is decided."""
        found = connection_of(Frame(data))
        (other,) = {*self._passed} - {direction}
        return found.known if found.answers in self._passed[other] else found.unknown

    def note(self, data, direction):
        """It passed."""
        found = connection_of(Frame(data))
        if found.notes is not None and self.state(data, direction) in ("new", "established"):
            self._passed[direction].add(found.notes)
