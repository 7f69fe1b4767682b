"""Values of fields: from a profile's or a parameter's text, and back."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.filters.fields import Kind

_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_NUMBER: Final = re.compile(r"0x[0-9A-Fa-f]{1,8}|0|[1-9][0-9]{0,9}")
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})(bytes|kbytes|mbytes)?/(second|minute|hour)")
MULTICAST: Final = 0x010000000000
"""The bit of a MAC that makes it a group's."""
_BITS: Final[dict[str, int]] = {
    "mac": 48,
    "ipv4": 32,
    "ipv6": 128,
    "port": 16,
    "vlan": 12,
    "ethertype": 16,
    "protocol": 8,
}


class Span(msgspec.Struct, frozen=True, order=True):
    """All values from `low` to `high`, both among them; a single one has both alike."""

    low: int
    high: int

    def holds(self, value: int) -> bool:
        """Whether `value` is one of them."""
        return self.low <= value <= self.high


class Masked(msgspec.Struct, frozen=True, order=True):
    """All values whose bits under `mask` are those of `value`."""

    value: int
    mask: int

    def holds(self, value: int) -> bool:
        """Whether `value` is one of them."""
        return value & self.mask == self.value


Value = Span | Masked


class Rate(msgspec.Struct, frozen=True):
    """So many packets or bytes in one second, minute or hour; each rule, port and direction alone.

    `amount` is in packets or bytes. A burst of a fifth of a second's worth (for packets at least
    5, for bytes at least 16 KiB) passes at once.
    """

    amount: int
    unit: str
    per: str

    def __str__(self) -> str:
        """As in a profile."""
        bytes_word = "bytes" if self.unit == "bytes" else ""
        return f"{self.amount}{bytes_word}/{self.per}"

    @property
    def burst(self) -> int:
        """How much passes at once, in the rate's own unit."""
        seconds = {"second": 1, "minute": 60, "hour": 3600}[self.per]
        return max(self.amount // (5 * seconds), 16384 if self.unit == "bytes" else 5)


def parse_value(kind: Kind | str, text: str, words: Mapping[str, int], bits: int) -> Value:
    """One value: a constant, a word, a range `a-b`, a prefix, a MAC under a mask.

    Raises:
        ValueError: `text` is none; says what is wrong.
    """
    if text in words:
        return Span(words[text], words[text])
    if kind == "word":
        raise ValueError(f"expected {' or '.join(words)}, not '{escape(text, 60)}'")
    if kind in ("mac", "lladdr"):
        return _mac_value(text)
    if kind in ("ipv4", "ipv6"):
        return _address_value(kind, text)
    low, dash, high = text.partition("-")
    first = _number(low, bits, words)
    return _span(first, _number(high, bits, words) if dash else first, text)


def variable_value(kind: str, text: str) -> Span:
    """One value of a variable of type `kind`: no masks.

    Raises:
        ValueError: as `parse_value`.
    """
    value = parse_value(kind, text, {}, _BITS[kind])
    if isinstance(value, Span):
        return value
    raise ValueError(f"a variable takes addresses and ranges, no masks: '{escape(text, 60)}'")


def parse_rate(text: str) -> Rate:
    """`100/second`, `512kbytes/second`, `30/minute`; kbytes are 1,024 bytes.

    Raises:
        ValueError: `text` is no rate, or more than 4 GiB in its time.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"not a rate: '{escape(text, 60)}'; write 100/second, 512kbytes/second, 30/minute"
        )
    unit = "bytes" if match[2] else "packets"
    amount = int(match[1]) * {"kbytes": 1024, "mbytes": 1 << 20}.get(match[2] or "", 1)
    if amount > 0xFFFFFFFF:
        raise ValueError(f"more than 4 GiB: '{escape(text, 60)}'")
    return Rate(amount, unit, match[3])


def show(kind: str, value: Value, words: Mapping[str, int]) -> str:
    """A value as a profile writes it."""
    if isinstance(value, Masked):
        return f"{_one(kind, value.value)}/{_one(kind, value.mask)}"
    names = {number: word for word, number in words.items()}
    if value.low == value.high:
        return names.get(value.low) or _one(kind, value.low)
    if kind in ("ipv4", "ipv6"):
        address = ipaddress.IPv4Address if kind == "ipv4" else ipaddress.IPv6Address
        networks = list(ipaddress.summarize_address_range(address(value.low), address(value.high)))
        if len(networks) == 1:
            return str(networks[0])
    return f"{_one(kind, value.low)}-{_one(kind, value.high)}"


def _one(kind: str, number: int) -> str:
    if kind in ("mac", "lladdr"):
        return number.to_bytes(6).hex(":")
    if kind == "ipv4":
        return str(ipaddress.IPv4Address(number))
    if kind == "ipv6":
        return str(ipaddress.IPv6Address(number))
    return f"{number:#06x}" if kind == "ethertype" else str(number)


def _span(low: int, high: int, text: str) -> Span:
    if low > high:
        raise ValueError(f"the range '{escape(text, 90)}' is empty: its end comes before its start")
    return Span(low, high)


def _number(text: str, bits: int, words: Mapping[str, int]) -> int:
    if not _NUMBER.fullmatch(text):
        known = f", or {', '.join(words)}" if words else ""
        raise ValueError(f"expected a number{known}, not '{escape(text, 60)}'")
    number = int(text, 0)
    if number >= 1 << bits:
        raise ValueError(f"{text} does not fit into {bits} bits")
    return number


def _mac_value(text: str) -> Value:
    if text == "multicast":
        return Masked(MULTICAST, MULTICAST)
    address, slash, mask = text.partition("/")
    if slash:
        value, bits = _mac(address), _mac(mask)
        if value & ~bits:
            raise ValueError(f"'{escape(text, 60)}' never matches: it has bits outside its mask")
        return Masked(value, bits)
    low, dash, high = text.partition("-")
    first = _mac(low)
    return _span(first, _mac(high) if dash else first, text)


def _mac(text: str) -> int:
    if not _MAC.fullmatch(text):
        raise ValueError(f"not a MAC address: '{escape(text, 60)}'")
    return int(text.replace(":", ""), 16)


def _address_value(kind: str, text: str) -> Span:
    if "/" in text:
        try:
            net = (ipaddress.IPv4Network if kind == "ipv4" else ipaddress.IPv6Network)(text)
        except ValueError as error:
            raise ValueError(f"not an {kind} network: {escape(str(error), 90)}") from None
        return Span(int(net[0]), int(net[-1]))
    low, dash, high = text.partition("-")
    first = _address(kind, low)
    return _span(first, _address(kind, high) if dash else first, text)


def _address(kind: str, text: str) -> int:
    try:
        address = (ipaddress.IPv4Address if kind == "ipv4" else ipaddress.IPv6Address)(text)
    except ValueError:
        address = None
    if address is None or getattr(address, "scope_id", None) is not None:
        raise ValueError(f"not an {kind} address: '{escape(text, 60)}'")
    return int(address)
