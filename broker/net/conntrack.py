"""Cuts conntrack entries between addresses that may not talk (any more).

Our own chains look at every packet and know no connections, so an entry opens nothing by itself;
but dom0's administrator may have rules, NAT above all, that trust established connections, and
entries of a revoked pair should not wait for their time-out. Only ports whose addresses are known
(the toolstack's `ip`) can be cut. Facts: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING, Final

from broker.net import netlink
from broker.net.model import NetError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from broker.net.model import Target

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_GENMSG: Final = struct.Struct("=BBH")
_TUPLE_ORIGINAL, _TUPLE_IP, _ID, _ZONE = 1, 1, 12, 18
_SOURCES: Final = (1, 3)
_DESTINATIONS: Final = (2, 4)
"""CTA_IP_V4_*, CTA_IP_V6_*."""


class Conntrack:
    """The entries of the network namespace this is made in."""

    def __init__(self) -> None:
        self._socket = netlink.NetlinkSocket(netlink.NETFILTER)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def cut_of(self, target: Target, gone: Collection[str]) -> None:
        """Delete the entries of addresses that are `gone`, or whose ports may not talk.

        Raises:
            NetError: as `cut`.
        """
        by_address = {ip: port for port in target.ports.values() for ip in port.ips}

        def unwanted(source: str, destination: str) -> bool:
            if source in gone or destination in gone:
                return True
            one, other = by_address.get(source), by_address.get(destination)
            return (
                one is not None
                and other is not None
                and (one.number, other.number) not in target.pairs
            )

        if gone or by_address:
            self.cut(unwanted)

    def cut(self, unwanted: Callable[[str, str], bool]) -> int:
        """Delete every entry from `a` to `b` with `unwanted(a, b)`; answers how many.

        Raises:
            NetError: conntrack cannot be listed, or an entry not deleted.
        """
        try:
            found = list(_unwanted(self._socket, unwanted))
            for request in found:
                try:
                    self._socket.ask(_DELETE, netlink.ACK, request)
                except FileNotFoundError:
                    continue  # it ended by itself
        except OSError as error:
            raise NetError(f"conntrack entries cannot be cut: {error}") from error
        return len(found)


def _unwanted(
    socket: netlink.NetlinkSocket, unwanted: Callable[[str, str], bool]
) -> Iterator[bytes]:
    """A deletion request for each entry that is to go."""
    for _, payload in socket.ask(_GET, netlink.DUMP, _GENMSG.pack(0, 0, 0)):
        values = netlink.attributes(payload, _GENMSG.size)
        original = values.get(_TUPLE_ORIGINAL, b"")
        addresses = netlink.attributes(netlink.attributes(original).get(_TUPLE_IP, b""))
        source, destination = _first(addresses, _SOURCES), _first(addresses, _DESTINATIONS)
        if source and destination and unwanted(source, destination):
            kept = ((kind, values[kind]) for kind in (_ZONE, _ID) if kind in values)
            yield (
                _GENMSG.pack(payload[0], 0, 0)
                + netlink.nested(_TUPLE_ORIGINAL, original)
                + b"".join(netlink.attribute(kind, value) for kind, value in kept)
            )


def _first(addresses: netlink.Attributes, kinds: tuple[int, ...]) -> str | None:
    raw = next((addresses[kind] for kind in kinds if kind in addresses), None)
    return None if raw is None else str(ipaddress.ip_address(raw))
