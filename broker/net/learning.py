"""Binds addresses to ports as their guests get them from DHCP: what `filters.snoop` finds, done.

A server is dom0's own, or stands behind an uplink, or is a guest to which its address is bound by
its own configuration; whom a guest may hear at all is for its profiles to say.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from broker.net.filters.programs import LEARN_BYTES, LEARN_GROUP
from broker.net.filters.snoop import MAX_ADDRESSES, Snoop
from broker.net.model import NetError
from broker.net.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.net.enforcer import PortEnforcer
    from broker.net.filters.snoop import Lease


class Learning:
    """Hears DHCP of the ports that learn, in the network namespace this is made in.

    Raises:
        NetError: the kernel has no nflog, or another process reads our group.
    """

    def __init__(self, enforcer: PortEnforcer, alarm: Callable[[str], None]) -> None:
        self._enforcer = enforcer
        self._alarm = alarm
        self._snoop = Snoop()
        self._logged = Samples(LEARN_GROUP, LEARN_BYTES)

    def fileno(self) -> int:
        """What to wait on."""
        return self._logged.fileno()

    def close(self) -> None:
        """Give the group back."""
        self._logged.close()

    def forget(self, index: int) -> None:
        """The port is gone."""
        self._snoop.forget(index)

    def hear(self) -> None:
        """Act upon what was heard since the last call."""
        now = time.monotonic()
        for logged in self._logged.packets():
            if logged.prefix.endswith("from"):
                lease = self._snoop.asked(logged.sender, logged.packet, now)
            else:
                server = partial(self._is_server, logged.sender, logged.receiver)
                lease = self._snoop.answered(logged.receiver, logged.packet, now, server)
            if lease is not None:
                self._put(lease)

    def _is_server(self, sender: int, receiver: int, source: int) -> bool:
        if sender == receiver:
            return False
        if not sender:
            return True
        port = self._enforcer.target.ports.get(sender)
        return port is not None and (port.uplink or self._enforcer.has_address(port, source))

    def _put(self, lease: Lease) -> None:
        index, address = lease.index, lease.address
        if not self._enforcer.learns(index):
            return
        try:
            if not lease.seconds:
                self._enforcer.unlearn(index, address)
                return
            held = self._enforcer.learned().get(index, {})
            if address not in held and len(held) >= MAX_ADDRESSES:
                self._enforcer.unlearn(index, min(held, key=lambda it: held[it]))
            self._enforcer.learn(index, address, lease.seconds)
        except NetError as error:
            self._alarm(str(error))
