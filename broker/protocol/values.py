"""The types a key's value can have: bytes from xenstore to what they say, or to nothing.

Numbers are decimal, without a sign. A value is guest-sourced until one of these has taken it.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[bytes], bool]

MAX_VALUE: Final = 512
"""Bytes of a value that are kept; what is longer has no type here."""
_REMEMBERED: Final = 256
"""Values whose reading is remembered, of each type: enough for many channels, bounded."""
_UINT: Final = re.compile(rb"[0-9]{1,20}")
_STATE: Final = re.compile(rb"[1-8]")

RANGES: Final = {
    "uint": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    # Grant reference 0 is valid, but never exposed (displif.h).
    "gref": (1, 2**32 - 1),
    # Ports of the FIFO event channels end here; 0 is never bound.
    "port": (1, 2**17 - 1),
    "mfn": (1, 2**52 - 1),
    "domid": (0, 0x7FEF),
}
"""Types that are decimal numbers, and what they can be at most."""

_PATTERNS: Final = {
    "bool": rb"[01]",
    "text": rb"[\x20-\x7e]{0,512}",
    "bytes": rb"(?s:.{0,512})",
    "path": rb"/?[\x21-\x7e]{1,511}",
    "mac": rb"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}",
    "uuid": rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    # major:minor, both hexadecimal
    "devno": rb"[0-9A-Fa-f]{1,8}:[0-9A-Fa-f]{1,8}",
    # domain:bus:slot.function; pciback writes the function of vdev-N with two digits
    "bdf": rb"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{1,2}",
    "bus": rb"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}",
    "hex": rb"(?:0x)?[0-9A-Fa-f]{1,16}",
    # host:channel:target:lun
    "hctl": rb"[0-9]{1,5}(?::[0-9]{1,20}){3}",
    "size": rb"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}",
}
STATE: Final = "xenbus-state"
WORDS: Final = "enum"
LISTED: Final = "list"
NAMES: Final = (*RANGES, *_PATTERNS, STATE, WORDS, LISTED)
"""Every type a description may give a key."""


@functools.lru_cache(maxsize=_REMEMBERED)
def number(untrusted_value: bytes | None) -> int | None:
    """The decimal number, or None where it is none."""
    if untrusted_value is None or not _UINT.fullmatch(untrusted_value):
        return None
    return int(untrusted_value)


def words(untrusted_value: bytes) -> list[bytes]:
    """The members of a comma-separated list."""
    return [word.strip() for word in untrusted_value.split(b",")]


@functools.cache  # as many as the descriptions have types
def check_of(
    name: str,
    bounds: tuple[int, int] | None = None,
    values: tuple[str, ...] = (),
    *,
    power_of_two: bool = False,
) -> Check:
    """Whether a value is of type `name`; `bounds` for numbers, `values` for enum and list.

    Raises:
        KeyError: there is no such type.
    """
    check = _check_of(name, bounds, values, power_of_two=power_of_two)
    return functools.lru_cache(maxsize=_REMEMBERED)(check)


def _check_of(
    name: str, bounds: tuple[int, int] | None, values: tuple[str, ...], *, power_of_two: bool
) -> Check:
    if name in RANGES:
        return _number_check(bounds or RANGES[name], power_of_two=power_of_two)
    if name == WORDS:
        return frozenset(word.encode() for word in values).__contains__
    if name == LISTED:
        return _list_check(frozenset(word.encode() for word in values))
    match = (_STATE if name == STATE else re.compile(_PATTERNS[name])).fullmatch

    def matches(untrusted_value: bytes) -> bool:
        return match(untrusted_value) is not None

    return matches


def _number_check(bounds: tuple[int, int], *, power_of_two: bool) -> Check:
    low, high = bounds
    match = _UINT.fullmatch

    def in_bounds(untrusted_value: bytes) -> bool:
        if not match(untrusted_value):
            return False
        value = int(untrusted_value)
        if power_of_two and value & (value - 1):
            return False
        return low <= value <= high

    return in_bounds


def _list_check(known: frozenset[bytes]) -> Check:
    """`known` empty: any printable words will do."""
    word_check = re.compile(rb"[\x21-\x7e]{1,64}").fullmatch

    def all_known(untrusted_value: bytes) -> bool:
        if len(untrusted_value) > MAX_VALUE:
            return False
        found = words(untrusted_value)
        return all(word in known if known else word_check(word) is not None for word in found)

    return all_known
