"""Changes links by rtnetlink: bridges them, brings them up and down, routes to them.

Needs CAP_NET_ADMIN, so the privileged helper does it. Only links that can be a guest's are
touched: netback's and veths; never a bridge, an uplink or dom0's own card.
Facts: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h; vif-route of Xen's hotplug scripts.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, Final, Protocol

from broker.net import netlink
from broker.net.links import IFINFO, IFNAME, MASTER, UP
from broker.net.model import NetError, ip_address, ip_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.net.links import Link, LinkTable

_SETLINK, _NEWADDR, _GETADDR, _NEWROUTE = 19, 20, 22, 24
_CREATE, _REPLACE = 0x400, 0x100
_ADDRESS, _MTU, _AF_SPEC = 1, 4, 26
_IFADDR: Final = struct.Struct("=BBBBi")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_RTA_DESTINATION, _RTA_OUT, _RTA_PRIORITY, _RTA_SOURCE = 1, 4, 6, 7
_MAIN_TABLE, _BOOT, _LINK_SCOPE, _UNICAST = 254, 3, 253, 1
_METRIC: Final = 2
"""vif-route's, for a vif."""
_INET_CONF, _PROXY_ARP = 1, 3
"""IFLA_INET_CONF, and IPV4_DEVCONF_PROXY_ARP in it."""
_GUEST_KINDS: Final = frozenset({"", "veth"})
"""Of links without a parent: netback's have none before Linux 5.14."""
_GUEST_PARENT: Final = "xen-backend/vif-"
_LOOPBACK: Final = 1
"""LOOPBACK_IFINDEX."""


class LinkChanger(Protocol):
    """`LinkChanges` in this process, or a helper that has one. All raise `NetError`."""

    def change_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        master: int | None = None,
        name: str | None = None,
        mtu: int | None = None,
        address: bytes | None = None,
    ) -> None:
        """Change what is given and leave the rest; `master=0` takes it out of its bridge."""

    def route_to(self, index: int, networks: Sequence[str], through: str) -> None:
        """Bring this link up and have dom0 route to these networks by it, as vif-route does."""


class LinkChanges:
    """Changes the links of the network namespace in which this is made.

    Every function raises `NetError` when the link cannot be a guest's, or the kernel refuses.
    """

    def __init__(self, links: LinkTable) -> None:
        self._links = links
        self._socket = netlink.NetlinkSocket(netlink.ROUTE)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def change_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        master: int | None = None,
        name: str | None = None,
        mtu: int | None = None,
        address: bytes | None = None,
    ) -> None:
        """Change what is given and leave the rest; `master=0` takes it out of its bridge."""
        link = self._guest_link(index)
        if master:
            self._check_master(master)
        flags, mask = (0, 0) if up is None else (UP if up else 0, UP)
        body = IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, mask)
        if address is not None:
            body += netlink.attribute(_ADDRESS, address)
        if name is not None and name != link.name:
            body += netlink.text(IFNAME, name)
        if mtu is not None:
            body += netlink.attribute(_MTU, struct.pack("=I", mtu))
        if master is not None:
            body += netlink.attribute(MASTER, struct.pack("=I", master))
        self._ask(f"link {link.name}", _SETLINK, netlink.ACK, body)

    def route_to(self, index: int, networks: Sequence[str], through: str) -> None:
        """Bring this link up and have dom0 route to these networks by it, as vif-route does.

        The link gets the IPv4 address of the link `through` (without one it does not come up at
        all), answers ARP for what lies behind dom0, and becomes the way to each network; routes to
        networks of IPv6 have no source. Routes go when the link goes down.
        """
        link = self._guest_link(index)
        own = self._address_of(through)
        host = ipaddress.IPv4Address(own).packed
        self._ask(
            f"address of {link.name}",
            _NEWADDR,
            netlink.ACK | _CREATE | _REPLACE,
            _IFADDR.pack(socket.AF_INET, 32, 0, 0, index)
            + netlink.attribute(_IFA_LOCAL, host)
            + netlink.attribute(_IFA_ADDRESS, host),
        )
        answering = netlink.nested(
            _AF_SPEC,
            netlink.nested(
                socket.AF_INET,
                netlink.nested(_INET_CONF, netlink.attribute(_PROXY_ARP, struct.pack("=I", 1))),
            ),
        )
        head = IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        self._ask(f"proxy_arp of {link.name}", _SETLINK, netlink.ACK, head + answering)
        self.change_link(index, up=True)
        for text in networks:
            self._route(link, ipaddress.ip_network(ip_network(text)), host)

    def _route(
        self, link: Link, network: ipaddress.IPv4Network | ipaddress.IPv6Network, host: bytes
    ) -> None:
        four = network.version == 4
        family = socket.AF_INET if four else socket.AF_INET6
        scope = _LINK_SCOPE if four else 0
        body = (
            _RTMSG.pack(family, network.prefixlen, 0, 0, _MAIN_TABLE, _BOOT, scope, _UNICAST, 0)
            + netlink.attribute(_RTA_DESTINATION, network.network_address.packed)
            + netlink.attribute(_RTA_OUT, struct.pack("=I", link.index))
            + netlink.attribute(_RTA_PRIORITY, struct.pack("=I", _METRIC))
            + (netlink.attribute(_RTA_SOURCE, host) if four else b"")
        )
        flags = netlink.ACK | _CREATE | _REPLACE
        self._ask(f"route to {network} by {link.name}", _NEWROUTE, flags, body)

    def _guest_link(self, index: int) -> Link:
        link = self._links.get(index)
        if link is None:
            raise NetError(f"there is no link {index}")
        if link.parent.startswith(_GUEST_PARENT):
            return link
        if not link.parent and link.kind in _GUEST_KINDS and index != _LOOPBACK:
            return link
        what = link.kind or link.parent or "dom0's own"
        raise NetError(f"{link.name} is no guest's link but {what}: it is not touched")

    def _check_master(self, index: int) -> None:
        bridge = self._links.get(index)
        if bridge is None or bridge.kind != "bridge":
            raise NetError(f"link {index} is no bridge to join")

    def _address_of(self, name: str) -> str:
        """The first IPv4 address of a link: the kernel tells primary ones before the others."""
        link = self._links.named(name)
        if link is None:
            raise NetError(f"there is no link {name}, whose address routed vifs are to get")
        header = _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0)
        for _, payload in self._ask(f"addresses of {name}", _GETADDR, netlink.DUMP, header):
            *_, index = _IFADDR.unpack_from(payload)
            local = netlink.attributes(payload, _IFADDR.size).get(_IFA_LOCAL)
            if index == link.index and local:
                return ip_address(socket.inet_ntoa(local))
        raise NetError(f"{name} has no IPv4 address for routed vifs to get: is it up?")

    def _ask(self, what: str, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        try:
            return self._socket.ask(kind, flags, body)
        except OSError as error:
            raise NetError(f"{what}: {error}") from error
