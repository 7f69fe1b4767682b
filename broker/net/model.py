"""What the kernel is told: ports, bridges, class pairs, as validated values.

Everything that reaches an nft command passes through these constructors; a value that does not
match its pattern is refused here, so no text of foreign origin is ever formatted into a command.
"""

from __future__ import annotations

import ipaddress
import re
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec

from broker.net.classes import MAX_CLASS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_INTERFACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
"""At most IFNAMSIZ - 1 characters; no quote, no space, no `*` (nft's wildcard)."""
_DIGITS: Final = re.compile(r"[0-9]+")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_INDEX: Final = 0x7FFFFFFF
_MAX_LABEL: Final = 0xFFFFFFFF
MAX_PORTS: Final = 16384
"""Ports of one network namespace, at most."""
MAX_MACS: Final = 64
"""MAC addresses of one port, at most."""


class NetError(Exception):
    """The network cannot be made to hold what was asked; says what and what to do."""


class InvalidError(NetError, ValueError):
    """A value is not an interface name, an index, a MAC or a class number."""


def interface_name(text: str) -> str:
    """`text` if it is a network interface's name that is safe to write into a command.

    A name of digits alone is refused: nft reads such a word as a name or as an index.

    Raises:
        InvalidError: it is not.
    """
    if not _INTERFACE.fullmatch(text) or _DIGITS.fullmatch(text):
        raise InvalidError(f"not an interface name that can be governed: {text[:40]!a}")
    return text


def mac_address(text: str) -> str:
    """`text` in lower case if it is a MAC address of one station (not a group's, not zero).

    Raises:
        InvalidError: it is not.
    """
    mac = text.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise InvalidError(f"not the MAC address of a station: {text[:40]!a}")
    return mac


def ip_address(text: str) -> str:
    """The canonical text of an IPv4 or IPv6 address.

    Raises:
        InvalidError: it is none.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidError(f"not an IP address: {text[:60]!a}") from error


def ip_network(text: str) -> str:
    """The canonical text of an address or network, IPv4 or IPv6; host bits are cut off.

    Raises:
        InvalidError: it is none.
    """
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise InvalidError(f"not an IP address or network: {text[:60]!a}") from error


class PortFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port's filter profiles, all of which must accept a frame, and its variables' values."""

    profiles: tuple[str, ...]
    variables: dict[str, tuple[str, ...]] = {}


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One interface with a label's class: a bridge port, or a routed interface.

    It is known to the kernel by `index`, which is not used again after the interface is gone and
    does not change when it is renamed; `name` is for people. `number` is its label's class, `label`
    what refused packets are counted by (`label_ids`).
    `host` tells whether its label may exchange frames with dom0 itself. `bridge` is the bridge it
    is (to be) a port of, or None for a routed one. `uplink`: it leads out of this host, and must
    not send with a local port's MAC as source. `macs` are the stations behind a port that is no
    uplink, `ips` their addresses where the toolstack knows them (to cut conntrack entries).
    `filter` is what else a bridged guest's frames are held to; None: nothing.
    """

    name: str
    index: int
    number: int
    host: bool = False
    bridge: str | None = None
    uplink: bool = False
    macs: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    label: int = 0
    filter: PortFilter | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be written into a command, or would not mean what it says."""
        interface_name(self.name)
        if self.bridge is not None:
            interface_name(self.bridge)
        if not 1 <= self.index <= _MAX_INDEX:
            raise InvalidError(f"{self.name}: not an interface index: {self.index}")
        if not 1 <= self.number <= MAX_CLASS:
            raise InvalidError(f"{self.name}: not a class number: {self.number}")
        if not 0 <= self.label <= _MAX_LABEL:
            raise InvalidError(f"{self.name}: not a label's number: {self.label}")
        if len(self.macs) > MAX_MACS:
            raise InvalidError(f"{self.name}: more than {MAX_MACS} MAC addresses")
        if any(mac_address(mac) != mac for mac in self.macs):
            raise InvalidError(f"{self.name}: MAC addresses must be in lower case")
        if len(self.ips) > MAX_MACS or any(ip_address(ip) != ip for ip in self.ips):
            raise InvalidError(f"{self.name}: not canonical addresses, or too many: {self.ips!a}")
        if self.uplink and self.macs:
            raise InvalidError(f"{self.name}: an uplink's stations are not known by MAC")
        if self.filter is not None and (self.uplink or self.bridge is None):
            what = "an uplink" if self.uplink else "a routed interface"
            raise InvalidError(
                f"{self.name}: filter profiles hold frames of bridged guests, and it is {what}"
            )


def check_pairs(pairs: Iterable[tuple[int, int]]) -> None:
    """Refuse what is not pairs of class numbers.

    Raises:
        InvalidError: one is none.
    """
    for number in set(chain.from_iterable(pairs)):
        if not 1 <= number <= MAX_CLASS:
            raise InvalidError(f"not a class number in a pair of classes: {number}")


class Target(msgspec.Struct, frozen=True):
    """All the kernel should hold: governed bridges, ports by index, allowed pairs of classes.

    `profiles` are the texts of the filter profiles that ports name, by where they come from.
    """

    bridges: frozenset[str] = frozenset()
    ports: dict[int, Port] = {}
    pairs: frozenset[tuple[int, int]] = frozenset()
    profiles: Mapping[str, bytes] = {}
