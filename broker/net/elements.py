"""A few elements written straight to the kernel: a port's, in one transaction.

For each command nft's library first has the kernel list all chains and sets, and for the dozen
elements of one port that is most of the time it takes. Here their bytes are written as `encoding`
has them; all else, and sets of ranges, is left to nft. Facts: linux/netfilter/nf_tables.h,
linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

from broker.net import netlink
from broker.net.encoding import element, key_attribute, key_bytes
from broker.net.libnftables import TransactionError
from broker.net.readback import in_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.net.ruleset import Change

_SUBSYSTEM: Final = 10
_NEW, _DELETE = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_BEGIN, _END = 0x10, 0x11
"""NFNL_MSG_BATCH_*."""
_CREATE: Final = 0x400
_BATCH: Final = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
"""Around a transaction: whose it is."""
_MOST: Final = 400
"""Elements of one transaction: what one message has room for."""


class ElementWriter:
    """Writes to the tables of the network namespace this is made in."""

    def __init__(self) -> None:
        self._socket = netlink.NetlinkSocket(netlink.NETFILTER)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def write(self, changes: Sequence[Change]) -> None:
        """One transaction: what goes first, then what comes; all of it, or nothing.

        Raises:
            TransactionError: nothing was done; says what the kernel says.
        """
        now = time.monotonic()
        gone: list[netlink.Request] = []
        come: list[netlink.Request] = []
        for change in changes:
            table, spec, name = change.table, change.spec, change.spec.name
            for key in change.ending:
                body = in_set(table, name, key_attribute(key_bytes(spec, key)))
                gone.append((_NEW, _CREATE, body))
            for key in change.lost:
                body = in_set(table, name, key_attribute(key_bytes(spec, key)))
                gone.append((_DELETE, 0, body))
            for key, data in change.won.items():
                come.append((_NEW, _CREATE, in_set(table, name, element(spec, key, data, now))))
        messages = gone + come
        if not messages:
            return
        kind, flags, body = messages[-1]
        messages[-1] = (kind, flags | netlink.ACK, body)
        try:
            self._socket.confirmed([(_BEGIN, 0, _BATCH), *messages, (_END, 0, _BATCH)])
        except OSError as error:
            raise TransactionError(f"nftables refused elements: {error}") from error


def can_be_written(changes: Iterable[Change]) -> bool:
    """Whether these are few, and no ranges, whose sets the kernel keeps otherwise."""
    listed = list(changes)
    count = sum(len(it.lost) + len(it.won) for it in listed)
    return count <= _MOST and not any(it.spec.ranges for it in listed)
