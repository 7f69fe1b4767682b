"""Elements written straight to the kernel: a port's, or ten thousand pairs, in one transaction.

For each command nft's library first has the kernel list all chains and sets, and it reads its own
language a word at a time: most of what a change takes, be it small or large. Here the elements'
bytes are written as `encoding` has them; all else, and sets of ranges, is left to nft. Facts:
linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

from broker.net import netlink
from broker.net.encoding import element, element_attribute, encoded_keys, plain_elements
from broker.net.libnftables import TransactionError
from broker.net.readback import about_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.net.ruleset import Change

_SUBSYSTEM: Final = 10
_NEW, _DELETE = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_BEGIN, _END = 0x10, 0x11
"""NFNL_MSG_BATCH_*."""
_CREATE: Final = 0x400
_BATCH: Final = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
"""Around a transaction: whose it is."""
_MOST: Final = 1_000_000
"""Elements of one transaction."""
_QUEUE: Final = 64 << 20
"""Bytes that those may take, and what the kernel accounts for beside them."""
_LIST: Final = 65000
"""Bytes of elements in one message: the length of an attribute has 16 bits."""


class ElementWriter:
    """Writes to the tables of the network namespace this is made in."""

    def __init__(self) -> None:
        self._socket = netlink.NetlinkSocket(netlink.NETFILTER)
        self._socket.widen(_QUEUE)

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
            place, spec = (change.table, change.spec.name), change.spec
            if change.emptied:
                gone.append((_DELETE, 0, about_set(*place)))
            ending, lost = encoded_keys(spec, change.ending), encoded_keys(spec, change.lost)
            gone += [(_NEW, _CREATE, about_set(*place, it)) for it in _plain(ending)]
            gone += [(_DELETE, 0, about_set(*place, it)) for it in _plain(lost)]
            if all(it is None for it in change.won.values()):
                listed = _plain(encoded_keys(spec, change.won))
            else:
                listed = _listed([element(spec, key, it, now) for key, it in change.won.items()])
            come += [(_NEW, _CREATE, about_set(*place, it)) for it in listed]
        self._run(gone + come)

    def delete(self, keys: Mapping[tuple[str, str], Sequence[bytes]]) -> None:
        """One transaction: these keys, by table and set, as the kernel stores them.

        Raises:
            TransactionError: nothing was done; one may have ended by itself.
        """
        self._run(
            [
                (_DELETE, 0, about_set(*place, it))
                for place, listed in keys.items()
                for it in _plain(list(listed))
            ]
        )

    def _run(self, messages: list[netlink.Request]) -> None:
        if not messages:
            return
        kind, flags, body = messages[-1]
        messages[-1] = (kind, flags | netlink.ACK, body)
        try:
            self._socket.confirmed([(_BEGIN, 0, _BATCH), *messages, (_END, 0, _BATCH)])
        except OSError as error:
            raise TransactionError(f"nftables refused elements: {error}") from error


def _plain(keys: list[bytes]) -> list[bytes]:
    """Lists of elements that are a key each, each list as long as a message can have."""
    some = max(1, _LIST // len(plain_elements(keys[:1]))) if keys else 1
    return [plain_elements(keys[at : at + some]) for at in range(0, len(keys), some)]


def _listed(elements: list[bytes]) -> list[bytes]:
    """The same of elements with data, by their attributes."""
    lists = [bytearray()]
    for one in map(element_attribute, elements):
        if len(lists[-1]) + len(one) > _LIST:
            lists.append(bytearray())
        lists[-1] += one
    return [bytes(it) for it in lists]


def can_be_written(changes: Iterable[Change]) -> bool:
    """Whether these fit into one transaction, and are no ranges: those are kept otherwise."""
    listed = list(changes)
    count = sum(len(it.lost) + len(it.won) for it in listed)
    return count <= _MOST and not any(it.spec.ranges for it in listed)
