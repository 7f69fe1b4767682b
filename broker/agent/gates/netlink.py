"""Network links by rtnetlink: read them, bridge them, bring them up and down.

Links are addressed by index, so that a rename or a re-creation under the same name between
looking and acting cannot put another link through a gate. Facts: linux/rtnetlink.h,
linux/if_link.h, linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_NLMSG: Final = struct.Struct("=IHHII")
_IFINFO: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_PARENT_DEV_NAME, _IFLA_PARENT_DEV_BUS_NAME = 56, 57
_IFLA_INFO_KIND = 1
_IFF_UP = 1
_RTMGRP_LINK = 1
_TYPE_MASK = 0x3FFF
"""Takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off an attribute's type."""
_NAME: Final = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")


class Link(msgspec.Struct, frozen=True):
    """One network link as the kernel shows it.

    `master` is the index of the bridge it is in, 0 for none; `kind` the driver's word for
    software links (`bridge`, `veth`), empty for others; `parent` is `bus/name` of the device it
    belongs to (`xen-backend/vif-3-0`; Linux 5.14 and later), else empty.
    """

    index: int
    name: str
    up: bool
    master: int
    kind: str
    parent: str


def link_name(untrusted_name: bytes) -> str | None:
    """`untrusted_name` as the name of a link (IFNAMSIZ, plain characters), or None."""
    return untrusted_name.decode("ascii") if _NAME.fullmatch(untrusted_name) else None


class Links:
    """The links of the network namespace in which this object was made.

    Every method raises `OSError` when the kernel refuses or does not answer within two seconds.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(2.0)
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def all(self) -> list[Link]:
        """Every link there is."""
        header = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return list(self._ask(_RTM_GETLINK, _NLM_F_DUMP, header))

    def get(self, index: int) -> Link | None:
        """The link with this index, or None."""
        return self._one(_IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0))

    def named(self, name: str) -> Link | None:
        """The link with this name, or None."""
        header = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return self._one(header + _attribute(_IFLA_IFNAME, name.encode("ascii") + b"\0"))

    def change(
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
        flags, mask = (0, 0) if up is None else (_IFF_UP if up else 0, _IFF_UP)
        body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, mask)
        if address is not None:
            body += _attribute(_IFLA_ADDRESS, address)
        if name is not None:
            body += _attribute(_IFLA_IFNAME, name.encode("ascii") + b"\0")
        if mtu is not None:
            body += _attribute(_IFLA_MTU, struct.pack("=I", mtu))
        if master is not None:
            body += _attribute(_IFLA_MASTER, struct.pack("=I", master))
        for _ in self._ask(_RTM_SETLINK, _NLM_F_ACK, body):
            pass

    def _one(self, body: bytes) -> Link | None:
        try:
            return next(iter(list(self._ask(_RTM_GETLINK, _NLM_F_ACK, body))), None)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[Link]:
        self._sequence += 1
        length = _NLMSG.size + len(body)
        header = _NLMSG.pack(length, kind, flags | _NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for answer, sequence, payload in _messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue  # the rest of an answer that an earlier error cut short
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    number = -int.from_bytes(payload[:4], "little", signed=True)
                    if number:
                        raise OSError(number, f"netlink: {os.strerror(number)}")
                    return
                if answer == _RTM_NEWLINK:
                    yield _link(payload)


class LinkMonitor:
    """A readable file descriptor that says when any link changes; for a Twisted reactor."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_LINK))

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def changed(self) -> tuple[Link, ...] | None:
        """The links that changed since the last call; None if some changes were lost."""
        links: list[Link] = []
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                return tuple(links)
            except OSError:
                return None  # ENOBUFS: the kernel dropped messages
            links += [
                _link(payload)
                for kind, _, payload in _messages(data)
                if kind in {_RTM_NEWLINK, _RTM_DELLINK}
            ]


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and payload of each netlink message in `data`."""
    while len(data) >= _NLMSG.size:
        length, kind, _, sequence, _ = _NLMSG.unpack_from(data)
        yield kind, sequence, data[_NLMSG.size : length]
        data = data[(length + 3) & ~3 :]


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    values = dict(_attributes(payload[_IFINFO.size :]))
    info = dict(_attributes(values.get(_IFLA_LINKINFO, b"")))
    bus, parent = values.get(_IFLA_PARENT_DEV_BUS_NAME), values.get(_IFLA_PARENT_DEV_NAME)
    return Link(
        index=index,
        name=_text(values.get(_IFLA_IFNAME, b"")),
        up=bool(flags & _IFF_UP),
        master=int.from_bytes(values.get(_IFLA_MASTER, b""), "little"),
        kind=_text(info.get(_IFLA_INFO_KIND, b"")),
        parent="" if bus is None or parent is None else f"{_text(bus)}/{_text(parent)}",
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def _attribute(kind: int, value: bytes) -> bytes:
    padded = value + b"\0" * (-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + padded


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
