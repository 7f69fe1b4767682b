"""Any bytes as what two ends put on a ring: nothing fails, nothing grows, nobody else is blamed.

An input is a ring, a layout, its slots, a byte for each value given; then messages, each after a
byte that says whose it is.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from support.ring_messages import GIVEN, RINGS, TRAFFIC, rings_of

from broker.protocol.ring import RingValidator
from tools.fuzz.expected import UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.protocol.ring_table import Given, Ring, Rings

_TABLES = {name: rings_of(name) for name in ("vbd", "vif")}
_SHARES = 16
"""What is given is one of so many values over its range, or a likely one."""


class _Input:
    """Bytes, taken from the front; zeros after their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += size
        return part.ljust(size, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]


def run(data: bytes) -> None:
    """Play `data` on a ring.

    Raises:
        UnexpectedError: somebody else was blamed, or more is in flight than there are slots.
    """
    source = _Input(data)
    name, title = RINGS[source.byte() % len(RINGS)]
    rings = _TABLES[name]
    ring = _ring(rings, title)
    abi = source.byte() % len(rings.abis)
    slots = 1 << source.byte() % ring.slots.bit_length()
    given = {one.name: _value(one, source.byte(), GIVEN[name][one.name]) for one in rings.given}
    ours = RingValidator(rings, title, given=given, slots=slots, abi=rings.abis[abi])
    while source.left > 0:
        if ours.wants:
            party, said = "frontend", ours.request_list(source.take(ours.wants))
        elif source.byte() & 1:
            party, said = "backend", ours.response(source.take(ring.responses.size[abi]))
        else:
            party, said = "frontend", ours.request(source.take(ring.requests.size[abi]))
        if ours.in_flight > slots:
            raise UnexpectedError(f"{ours.in_flight} in flight on {slots} slots")
        if said is not None:
            if said.party != party or not said.evidence.isascii():
                raise UnexpectedError(str(said))
            return


def _ring(rings: Rings, title: str) -> Ring:
    return next(ring for ring in rings.rings if ring.name == title)


def _value(one: Given, byte: int, likely: int) -> int:
    if byte >= _SHARES:
        return likely
    return one.min + (one.max - one.min) * byte // (_SHARES - 1)


def seeds() -> Iterator[bytes]:
    """Good traffic of every ring."""
    for number, (name, title) in enumerate(RINGS):
        rings = _TABLES[name]
        for seed in range(20):
            draw = random.Random(seed)
            abi = seed % len(rings.abis)
            head = bytes((number, abi, 5)) + bytes((255,)) * len(rings.given)
            traffic = TRAFFIC[title](draw, GIVEN[name], 32, rings.abis[abi])
            steps = (traffic.step() for _ in range(seed + 4))
            yield head + b"".join(_step(*step) for step in steps)


def _step(operation: str, message: bytes) -> bytes:
    return message if operation == "L" else bytes((operation == "S",)) + message


def words() -> Iterator[bytes]:
    """Numbers at which rules change their mind."""
    for value in (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 17, 18, 512, 4095, 4096, 65535):
        yield value.to_bytes(2, "little")
        yield value.to_bytes(8, "little")
    yield bytes((255,)) * 8
