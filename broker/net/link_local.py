"""Has governed bridges learn nothing from frames to 01:80:c2:00:00:00 to 0f.

A bridge does not forward these (LLDP, 802.1X, LACP), so they pass no `prerouting` hook, and to 0e
no hook at all; yet it takes their source MAC for the port's. A guest that sends one with another's
MAC would draw the other's frames to itself. Facts: br_handle_frame() in net/bridge/br_input.c,
linux/if_link.h, linux/if_bridge.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.net import netlink
from broker.net.links import (
    BRIDGE_OPTIONS,
    DATA,
    IFINFO,
    KIND,
    LINKINFO,
    NEWLINK,
    NO_LINK_LOCAL_LEARNING,
    OPTIONS,
)
from broker.net.model import NetError

if TYPE_CHECKING:
    from broker.net.links import Link, LinkTable


class BridgeLearning:
    """Bridges of the network namespace this is made in. Needs CAP_NET_ADMIN."""

    def __init__(self, links: LinkTable) -> None:
        self._links = links
        self._socket = netlink.NetlinkSocket(netlink.ROUTE)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def hold(self, bridge: Link) -> None:
        """Nothing more is learned from such frames.

        Raises:
            NetError: the kernel does not do it.
        """
        if not bridge.learns_link_local:
            return
        options = OPTIONS.pack(NO_LINK_LOCAL_LEARNING, NO_LINK_LOCAL_LEARNING)
        data = netlink.nested(DATA, netlink.attribute(BRIDGE_OPTIONS, options))
        info = netlink.nested(LINKINFO, netlink.text(KIND, "bridge"), data)
        try:
            self._socket.ask(NEWLINK, netlink.ACK, IFINFO.pack(0, 0, bridge.index, 0, 0) + info)
        except OSError as error:
            raise NetError(f"{bridge.name} cannot be told what to learn from: {error}") from error
        now = self._links.get(bridge.index)
        if now is None or now.learns_link_local:
            raise NetError(
                f"{bridge.name} goes on learning from frames that it does not forward, so that a "
                "guest could draw another's frames to itself: Linux 5.0 or later is needed"
            )
