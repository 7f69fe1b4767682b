"""What is a bridge and what is not, and which index an interface's name has now: rtnetlink."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from broker.net import netlink
from broker.net.model import NetError, interface_name

_GETLINK, _NEWLINK, _DELLINK = 18, 16, 17
_IFNAME, _MASTER, _LINKINFO, _KIND = 3, 10, 18, 1
_IFINFO: Final = struct.Struct("=BxHiII")
LINK_GROUP: Final = 1
"""RTNLGRP_LINK."""


class Link(msgspec.Struct, frozen=True):
    """One interface: `kind` is the driver's word (`bridge`, `openvswitch`, `veth`) or empty."""

    index: int
    name: str
    kind: str
    master: int


class LinkTable:
    """The interfaces of the network namespace this is made in, read when asked."""

    def __init__(self) -> None:
        self._socket = netlink.NetlinkSocket(netlink.ROUTE)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def all(self) -> list[Link]:
        """Every interface.

        Raises:
            NetError: the kernel does not tell.
        """
        try:
            answers = self._socket.ask(_GETLINK, netlink.DUMP, _IFINFO.pack(0, 0, 0, 0, 0))
        except OSError as error:
            raise NetError(f"interfaces cannot be listed: {error}") from error
        return [_link(payload) for kind, payload in answers if kind == _NEWLINK]

    def named(self, name: str) -> Link | None:
        """The interface that has this name now, or None."""
        body = _IFINFO.pack(0, 0, 0, 0, 0) + netlink.text(_IFNAME, interface_name(name))
        return self._one(body)

    def get(self, index: int) -> Link | None:
        """The interface with this index, or None."""
        return self._one(_IFINFO.pack(0, 0, index, 0, 0))

    def _one(self, body: bytes) -> Link | None:
        try:
            answers = self._socket.ask(_GETLINK, netlink.ACK, body)
        except OSError:
            return None  # ENODEV
        return next((_link(payload) for kind, payload in answers if kind == _NEWLINK), None)

    def check_bridge(self, name: str) -> Link:
        """The Linux bridge of this name.

        Raises:
            NetError: there is none, or it is a switch that nftables' bridge family does not see.
        """
        link = self.named(name)
        if link is None:
            raise NetError(f"there is no bridge {name}: create it, or name another")
        if link.kind == "bridge":
            return link
        if link.kind == "openvswitch" or any(
            other.kind == "openvswitch" or other.name == "ovs-system" for other in self.all()
        ):
            raise NetError(
                f"{name} is not a Linux bridge but Open vSwitch's: its frames never pass "
                "nftables, so labels cannot be enforced there; use a Linux bridge "
                "(ip link add NAME type bridge) for guests"
            )
        raise NetError(f"{name} is not a Linux bridge but {link.kind or 'a plain interface'}")


def _link(payload: bytes) -> Link:
    _, _, index, _, _ = _IFINFO.unpack_from(payload)
    values = netlink.attributes(payload, _IFINFO.size)
    info = netlink.attributes(values.get(_LINKINFO, b""))
    return Link(
        index=index,
        name=netlink.word(values.get(_IFNAME)),
        kind=netlink.word(info.get(_KIND)),
        master=int.from_bytes(values.get(_MASTER, b""), "little"),
    )


def gone(kind: int, payload: bytes) -> int | None:
    """The index of the interface that this message of `LINK_GROUP` says is gone, or None.

    A port that only leaves its bridge is announced with AF_BRIDGE and is not gone.
    """
    if kind != _DELLINK or len(payload) < _IFINFO.size:
        return None
    family, _, index, _, _ = _IFINFO.unpack_from(payload)
    return int(index) if family == 0 else None
