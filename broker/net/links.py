"""The network's links by rtnetlink: what they are, and which have changed. Needs no right.

Links are known by index, so that a rename or a re-creation under the same name between looking
and acting cannot put another link in a link's place. Facts: linux/rtnetlink.h, linux/if_link.h.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

import msgspec

from broker.net import netlink
from broker.net.model import NetError, interface_name

GETLINK, NEWLINK, DELLINK = 18, 16, 17
IFNAME, MASTER, LINKINFO, KIND = 3, 10, 18, 1
DATA, BRIDGE_OPTIONS = 2, 46
"""IFLA_INFO_DATA, and IFLA_BR_MULTI_BOOLOPT in it."""
OPTIONS: Final = struct.Struct("=II")
"""struct br_boolopt_multi: which are on, and which are meant."""
NO_LINK_LOCAL_LEARNING: Final = 1
"""1 << BR_BOOLOPT_NO_LL_LEARN, since Linux 5.0."""
_PARENT_NAME, _PARENT_BUS = 56, 57
UP: Final = 1
"""IFF_UP."""
IFINFO: Final = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, which flags change."""
LINK_GROUP: Final = 1
"""RTNLGRP_LINK."""


class Link(msgspec.Struct, frozen=True):
    """One link as the kernel shows it.

    `kind` is the driver's word for software links (`bridge`, `openvswitch`, `veth`), empty for
    others; `master` the index of the bridge it is in, 0 for none; `parent` is `bus/name` of the
    device it belongs to (`xen-backend/vif-3-0`; Linux 5.14 and later), else empty.
    `learns_link_local`: a bridge that learns where a MAC is from frames that it never bridges.
    """

    index: int
    name: str
    kind: str
    master: int
    up: bool
    parent: str
    learns_link_local: bool = False


class LinkTable:
    """The links of the network namespace this is made in, read when asked.

    Every function raises `NetError` when the kernel does not tell.
    """

    def __init__(self) -> None:
        self._socket = netlink.NetlinkSocket(netlink.ROUTE)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def all(self) -> list[Link]:
        """Every link there is."""
        return self._ask(netlink.DUMP, IFINFO.pack(0, 0, 0, 0, 0))

    def named(self, name: str) -> Link | None:
        """The link that has this name now, or None.

        Raises:
            InvalidError: `name` is no link's.
        """
        body = IFINFO.pack(0, 0, 0, 0, 0) + netlink.text(IFNAME, interface_name(name))
        return next(iter(self._ask(netlink.ACK, body)), None)

    def get(self, index: int) -> Link | None:
        """The link with this index, or None."""
        return next(iter(self._ask(netlink.ACK, IFINFO.pack(0, 0, index, 0, 0))), None)

    def _ask(self, flags: int, body: bytes) -> list[Link]:
        try:
            answers = self._socket.ask(GETLINK, flags, body)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return []
            raise NetError(f"links cannot be read: {error}") from error
        return [_link(payload) for kind, payload in answers if kind == NEWLINK]

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
        if any(it.kind == "openvswitch" or it.name == "ovs-system" for it in self.all()):
            raise NetError(
                f"{name} is not a Linux bridge but Open vSwitch's: its frames never pass "
                "nftables, so labels cannot be enforced there; use a Linux bridge "
                "(ip link add NAME type bridge) for guests"
            )
        raise NetError(f"{name} is not a Linux bridge but {link.kind or 'a plain interface'}")


class LinkMonitor:
    """A readable file descriptor that says when any link changes."""

    def __init__(self) -> None:
        self._socket = netlink.NetlinkSocket(netlink.ROUTE, (LINK_GROUP,))

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def changed(self) -> tuple[Link, ...] | None:
        """The links that changed since the last call; None if some changes were lost."""
        heard, lost = self._socket.heard()
        if lost:
            return None
        return tuple(_link(payload) for kind, payload in heard if kind in {NEWLINK, DELLINK})


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    values = netlink.attributes(payload, IFINFO.size)
    info = netlink.attributes(values.get(LINKINFO, b""))
    kind = netlink.word(info.get(KIND))
    options = netlink.attributes(info.get(DATA, b"")).get(BRIDGE_OPTIONS, b"") if info else b""
    on = OPTIONS.unpack_from(options)[0] if len(options) >= OPTIONS.size else 0
    bus, parent = values.get(_PARENT_BUS), values.get(_PARENT_NAME)
    return Link(
        index=index,
        name=netlink.word(values.get(IFNAME)),
        kind=kind,
        master=int.from_bytes(values.get(MASTER, b""), "little"),
        up=bool(flags & UP),
        parent="" if not bus or not parent else f"{netlink.word(bus)}/{netlink.word(parent)}",
        learns_link_local=kind == "bridge" and not on & NO_LINK_LOCAL_LEARNING,
    )


def gone(kind: int, payload: bytes) -> int | None:
    """The index of the interface that this message of `LINK_GROUP` says is gone, or None.

    A port that only leaves its bridge is announced with AF_BRIDGE and is not gone.
    """
    if kind != DELLINK or len(payload) < IFINFO.size:
        return None
    family, _, index, _, _ = IFINFO.unpack_from(payload)
    return int(index) if family == 0 else None
