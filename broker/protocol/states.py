"""The states a xenbus device end can be in (xen/include/public/io/xenbus.h)."""

from __future__ import annotations

import enum


class State(enum.IntEnum):
    """XenbusState. A node that is absent, unparsable or above 8 is `UNKNOWN`."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6
    RECONFIGURING = 7
    RECONFIGURED = 8

    @property
    def word(self) -> str:
        """As descriptions write it: `init-wait`."""
        return self.name.lower().replace("_", "-")


BY_WORD = {state.word: state for state in State}
"""Descriptions write states as words."""
