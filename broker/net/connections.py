"""What the kernel noted of ports' connections goes with the ports (`broker.net.filters.states`).

An index is not given to another interface, but one port may be closed and opened again: of what
passed before, nothing opens it then.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from broker.net.filters.states import is_state
from broker.net.libnftables import TransactionError
from broker.net.model import NetError
from broker.net.tables import BRIDGE

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from broker.net.elements import ElementWriter
    from broker.net.readback import Readback

_ATTEMPTS: Final = 5
"""Times that entries are listed and deleted: one may end by itself in between."""


class Connections:
    """The noted connections of the network namespace that writer and readback were made in."""

    def __init__(self, elements: ElementWriter, readback: Readback) -> None:
        self._elements = elements
        self._readback = readback
        self._noting: set[int] = set()
        """Ports of which something may be noted, by index."""

    def hold(self, noting: Iterable[int]) -> None:
        """These ports' connections are noted from now on."""
        self._noting.update(noting)

    def forget_others(self, ports: Container[int], *, whoever: bool = False) -> None:
        """Forget what was noted of ports that are not among these.

        Nothing is listed where none of those was to be noted, unless `whoever` may have noted it.

        Raises:
            NetError: something is still there.
        """
        gone = {index for index in self._noting if index not in ports}
        if gone or whoever:
            self._forget(ports)
            self._noting -= gone

    def _forget(self, ports: Container[int]) -> None:
        refusal = ""
        for _ in range(_ATTEMPTS):
            found = {
                (BRIDGE, name): listed
                for name in self._readback.names(BRIDGE)
                if is_state(name)
                and (
                    listed := [
                        key
                        for key in self._readback.elements(BRIDGE, name)
                        if int.from_bytes(key[:4], sys.byteorder) not in ports
                    ]
                )
            }
            if not found:
                return
            try:
                self._elements.delete(found)
            except TransactionError as error:
                refusal = str(error)
        raise NetError(f"connections of closed ports are still known: {refusal or 'more came'}")
