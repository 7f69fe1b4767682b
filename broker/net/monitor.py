"""Notices when somebody else changes our tables, and when an interface goes.

`nft flush ruleset` by an administrator cannot be prevented; it is heard here at once. Facts:
linux/netfilter/nfnetlink.h (NFNLGRP_NFTABLES), linux/netfilter/nf_tables.h (NFTA_GEN_*).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from broker.net import links, netlink
from broker.net.model import NetError
from broker.net.tables import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NFTABLES_GROUP: Final = 7
_SUBSYSTEM: Final = 10
_NEW_GENERATION: Final = 15
_GENERATION_PID: Final = 2
_TABLE_NAME: Final = 1
"""The first attribute of every nftables object names its table."""
_GENMSG_BYTES: Final = 4


class Changes(msgspec.Struct, frozen=True):
    """What was heard: our tables touched by another process (or some news lost), links gone."""

    tables: bool
    gone: frozenset[int]


class Monitor:
    """Listens to nftables and to links, in the network namespace this is made in."""

    def __init__(self) -> None:
        self._tables = netlink.NetlinkSocket(netlink.NETFILTER, (_NFTABLES_GROUP,))
        self._links = netlink.NetlinkSocket(netlink.ROUTE, (links.LINK_GROUP,))
        self._pid = os.getpid().to_bytes(4, "big")
        self._touched = False

    def filenos(self) -> tuple[int, int]:
        """What to wait on."""
        return self._tables.fileno(), self._links.fileno()

    def close(self) -> None:
        """Give the sockets back."""
        self._tables.close()
        self._links.close()

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Within, nothing of tables is heard: whoever asks for that looks at them afterwards.

        The kernel tells each element of a change to those who listen, and only to them: telling
        of ten thousand takes as long as writing them.

        Raises:
            NetError: the kernel does not let it, before or after.
        """
        self._listen(self._tables.leave)
        try:
            yield
        finally:
            self._listen(self._tables.join)

    @staticmethod
    def _listen(change: Callable[[int], None]) -> None:
        try:
            change(_NFTABLES_GROUP)
        except OSError as error:
            raise NetError(f"it cannot be changed who hears of tables: {error}") from error

    def changes(self) -> Changes:
        """What happened since the last call. Our own transactions are known by their process."""
        heard, lost = self._tables.heard()
        foreign = lost
        for kind, payload in heard:
            if kind >> 8 != _SUBSYSTEM:
                continue
            if kind & 0xFF == _NEW_GENERATION:
                by = netlink.attributes(payload, _GENMSG_BYTES).get(_GENERATION_PID)
                foreign |= self._touched and by != self._pid
                self._touched = False
            elif not self._touched:  # ten thousand elements may come between two generations
                values = netlink.attributes(payload, _GENMSG_BYTES)
                self._touched = netlink.word(values.get(_TABLE_NAME)) in FAMILIES
        news, _ = self._links.heard()
        found = {links.gone(kind, payload) for kind, payload in news}
        return Changes(foreign, frozenset(index for index in found if index is not None))
