"""Samples of refused packets, as the tables log them: at a bounded rate, cut to a few bytes.

Facts: linux/netfilter/nfnetlink_log.h. The group belongs to one reader at a time.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import msgspec

from broker.net import frame, netlink
from broker.net.model import NetError
from broker.net.tables import SAMPLE_BYTES, SAMPLE_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKET, _CONFIG = 4 << 8, (4 << 8) | 1
_GENMSG: Final = struct.Struct(">BBH")
_CONFIG_COMMAND, _CONFIG_MODE, _CONFIG_TIMEOUT = 1, 2, 4
_BIND, _COPY_PACKET = 1, 2
_DELAY: Final = struct.pack(">I", 10)
"""Hundredths of a second that the kernel may collect samples for."""
_HEADER, _MARK, _IN, _OUT, _PHYSICAL_IN, _PHYSICAL_OUT, _PAYLOAD = 1, 2, 4, 5, 6, 7, 9
_PREFIX, _LINK_HEADER = 10, 16
_VLAN, _VLAN_TCI = 20, 2
_BRIDGE_FAMILY: Final = 7


class Sample(msgspec.Struct, frozen=True):
    """One refused packet, in words; interfaces by index (0: none, it is dom0's own).

    `label` is the sender's, by its number (`label_ids`).
    """

    sender: int
    receiver: int
    label: int
    packet: str


class Logged(msgspec.Struct, frozen=True):
    """One packet as it was logged, behind its link header; interfaces by index, 0 for dom0."""

    prefix: str
    sender: int
    receiver: int
    packet: bytes


class Samples:
    """Receives samples in the network namespace this is made in; of another group: what it logs.

    Raises:
        NetError: the kernel has no nflog, or another process reads our group.
    """

    def __init__(self, group: int = SAMPLE_GROUP, size: int = SAMPLE_BYTES) -> None:
        self._socket = netlink.NetlinkSocket(netlink.NETFILTER)
        header = _GENMSG.pack(0, 0, group)
        mode = struct.pack(">IBx", size, _COPY_PACKET)
        try:
            for kind, value in (
                (_CONFIG_COMMAND, bytes([_BIND])),
                (_CONFIG_MODE, mode),
                (_CONFIG_TIMEOUT, _DELAY),
            ):
                body = header + netlink.attribute(kind, value)
                self._socket.ask(_CONFIG, netlink.ACK, body)
        except OSError as error:
            self._socket.close()
            raise NetError(f"samples of refused packets cannot be read: {error}") from error
        self._socket.listen()

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the group back."""
        self._socket.close()

    def packets(self) -> Iterator[Logged]:
        """What was logged since the last call, whole; some may have been lost."""
        for kind, payload in self._socket.heard()[0]:
            if kind == _PACKET:
                values = netlink.attributes(payload, _GENMSG.size)
                yield Logged(
                    prefix=netlink.word(values.get(_PREFIX)),
                    sender=_index(values, _PHYSICAL_IN, _IN),
                    receiver=_index(values, _PHYSICAL_OUT, _OUT),
                    packet=values.get(_PAYLOAD, b""),
                )

    def received(self) -> Iterator[Sample]:
        """Samples since the last call; some may have been lost."""
        for kind, payload in self._socket.heard()[0]:
            if kind == _PACKET:
                yield _sample(payload)


def _sample(payload: bytes) -> Sample:
    values = netlink.attributes(payload, _GENMSG.size)
    packet = values.get(_PAYLOAD, b"")
    ethertype = int.from_bytes(values.get(_HEADER, b"")[:2], "big")
    link = values.get(_LINK_HEADER, b"")
    if payload[0] == _BRIDGE_FAMILY and len(link) >= 14:
        words = frame.describe(link[:14] + packet)
        tag = netlink.attributes(values.get(_VLAN, b"")).get(_VLAN_TCI)
        if tag is not None:
            words = f"{words} (vlan {int.from_bytes(tag, 'big') & 0xFFF})"
    else:
        words = frame.describe_payload(ethertype or _ethertype(packet), packet)
    return Sample(
        sender=_index(values, _PHYSICAL_IN, _IN),
        receiver=_index(values, _PHYSICAL_OUT, _OUT),
        label=int.from_bytes(values.get(_MARK, b""), "big"),
        packet=words,
    )


def _ethertype(packet: bytes) -> int:
    return 0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800


def _index(values: netlink.Attributes, *kinds: int) -> int:
    """The first of these attributes that names an interface: a bridge's port before the bridge."""
    return next((int.from_bytes(values[kind], "big") for kind in kinds if kind in values), 0)
