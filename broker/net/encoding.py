"""A content as the kernel itself stores it: to compare with what is read back, to write it. Pure.

Facts: linux/netfilter/nf_tables.h. Numbers in marks and priorities are in the host's byte order.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Final, cast

from broker.net import netlink
from broker.net.filters.compile import group_named
from broker.net.ruleset import Until
from broker.net.tables import MARK_BASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.net.filters.compile import Group
    from broker.net.ruleset import Combination, Content, Data, Value
    from broker.net.tables import SetSpec

_U32: Final = struct.Struct("=I")
_ELEMENT: Final = 1
"""NFTA_LIST_ELEM."""
_KEY, _DATA, _TIMEOUT = 1, 2, 4
"""NFTA_SET_ELEM_*."""
_VALUE, _VERDICT = 1, 2
"""NFTA_DATA_*."""
_CODE, _CHAIN = 1, 2
"""NFTA_VERDICT_*."""
_CODES: Final = {"accept": 1, "goto": -4}


def encoded(content: Content, table: str, spec: SetSpec) -> dict[bytes, bytes]:
    """The set's elements as the kernel stores them: key and data bytes (host byte order)."""
    elements = content.get((table, spec.name), {})
    if spec.key in {"pair", "group"}:
        return dict.fromkeys(encoded_keys(spec, elements), b"")
    return {key_bytes(spec, key): _data_bytes(data) for key, data in elements.items()}


def ending(content: Content, table: str, spec: SetSpec) -> dict[bytes, float]:
    """Those of the set's elements that go by themselves, and when."""
    return {
        key_bytes(spec, key): end.at
        for key, end in content.get((table, spec.name), {}).items()
        if isinstance(end, Until)
    }


def _data_bytes(data: Data) -> bytes:
    if isinstance(data, str):
        return data.encode("ascii")
    return _U32.pack(data) if isinstance(data, int) else b""


def encoded_keys(spec: SetSpec, keys: Iterable[Value]) -> list[bytes]:
    """Keys as the kernel stores them; of ten thousand pairs each number is encoded once."""
    if spec.key == "pair":
        pairs = cast("list[tuple[int, int]]", list(keys))
        part = {n: _U32.pack(MARK_BASE | n) for n in set(chain.from_iterable(pairs))}
        return [part[one] + part[other] for one, other in pairs]
    if spec.key == "group":
        group = group_named(spec.name)
        return [encoded_group(group, cast("tuple[int, Combination]", key)) for key in keys]
    return [encoded_key(key) for key in keys]


def key_bytes(spec: SetSpec, key: Value) -> bytes:
    """One key as the kernel stores it."""
    if spec.key == "group":
        return encoded_group(group_named(spec.name), cast("tuple[int, Combination]", key))
    return encoded_key(key)


def encoded_group(group: Group, key: tuple[int, Combination]) -> bytes:
    """A port with values: each padded to four bytes; where there may be ranges, the ends follow.

    In a set of ranges the kernel has the index big-endian.
    """
    index, values = key
    sizes = group.sizes
    head = index.to_bytes(4, "big") if group.spans else _U32.pack(index)
    low, high = (
        head
        + b"".join(
            value[end].to_bytes(size, "big").ljust((size + 3) & ~3, b"\0")
            for value, size in zip(values, sizes, strict=True)
        )
        for end in (0, 1)
    )
    return low + high if group.spans else low


def encoded_key(key: Value) -> bytes:
    """One key as the kernel stores it: each part padded to four bytes, names to sixteen."""
    if isinstance(key, int):
        return _U32.pack(key)
    if isinstance(key, str):
        return key.encode("ascii").ljust(16, b"\0")
    first, second = key
    if isinstance(second, str):
        return _U32.pack(first) + bytes.fromhex(second.replace(":", "")).ljust(8, b"\0")
    if isinstance(second, int):
        return _U32.pack(MARK_BASE | first) + _U32.pack(MARK_BASE | second)
    raise TypeError(f"not a key of a set of labels: {key!r}")


def element(spec: SetSpec, key: Value, data: Data, now: float) -> bytes:
    """One element's attributes, byte for byte as the kernel shows them (but for a time-out's rest).

    `now` is by the clock of leases' ends.
    """
    made = key_attribute(key_bytes(spec, key))
    if isinstance(data, Until):
        left = max(1, int((data.at - now) * 1000))
        return made + netlink.attribute(_TIMEOUT, left.to_bytes(8, "big"))
    if isinstance(data, str):
        verb, _, target = data.partition(" ")
        code = netlink.attribute(_CODE, _CODES[verb].to_bytes(4, "big", signed=True))
        told = code + (netlink.text(_CHAIN, target) if target else b"")
        return made + netlink.attribute(_DATA, netlink.attribute(_VERDICT, told))
    if data is not None:
        value = netlink.attribute(_VALUE, _U32.pack(data))
        return made + netlink.attribute(_DATA, value)
    return made


def element_attribute(parts: bytes) -> bytes:
    """One element in a list of them, by its attributes."""
    return netlink.attribute(_ELEMENT, parts)


def plain_elements(keys: Sequence[bytes]) -> bytes:
    """Elements that are a key each, all of one length, as the kernel lists them."""
    size = len(keys[0])
    value, key = netlink.attribute_head(_VALUE, size), netlink.attribute_head(_KEY, size + 4)
    head = netlink.attribute_head(_ELEMENT, size + 8) + key + value
    return head + head.join(keys)


def key_attribute(key: bytes) -> bytes:
    """An element's key, as the kernel shows it: its nests are not marked as such."""
    return netlink.attribute(_KEY, netlink.attribute(_VALUE, key))
