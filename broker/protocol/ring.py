"""Polices the messages on one ring, from its table: copy, then validate the copy.

    ring = RingValidator(rings, "io", given={"sectors": 2048, …}, slots=32, abi="x86_64-abi")
    violation = ring.request(untrusted_slot)         # None is fine

A violation ends it: what follows a broken rule proves nothing about anybody, so the same
violation is returned until the ends connect anew and a new validator is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.protocol.ring_decode import Broken, Decoder, ListDecoder, decoders
from broker.protocol.ring_flight import ById, InOrder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.protocol.ring_decode import SideDecoder
    from broker.protocol.ring_table import Party, Ring, Rings, Rule

    Buffer = bytes | bytearray | memoryview

_U64: Final = 2**64 - 1


class Violation(msgspec.Struct, frozen=True):
    """A broken rule, and whose message broke it.

    `index` is the item's where it was one of a list, `value` the field's or id's where it was
    one (as an unsigned 64-bit number), else 0.
    """

    party: Party
    rule: str
    field: str
    evidence: str
    number: int
    index: int
    value: int


class RingMisuseError(Exception):
    """The caller broke the validator's rules, nobody a protocol's."""


class RingValidator:
    """One ring of one connection. `given` is what the ends agreed on in xenstore.

    Raises:
        RingMisuseError: there is no such ring, ABI or number of slots; something given is
            missing, unknown or out of its range.
    """

    def __init__(
        self, rings: Rings, ring: str, *, given: Mapping[str, int], slots: int, abi: str
    ) -> None:
        self._rings = rings
        self._table = _ring(rings, ring)
        _check_given(rings, given)
        if not 1 <= slots <= self._table.slots or slots & (slots - 1):
            raise RingMisuseError(f"{slots} slots: a power of two up to {self._table.slots}")
        if abi not in rings.abis:
            raise RingMisuseError(f"no ABI '{abi}'; known: {', '.join(rings.abis)}")
        self._slots = slots
        self._flight = InOrder() if self._table.in_order else ById()
        index = rings.abis.index(abi)
        self._requests = _Stream(decoders(self._table.requests, index), given)
        self._responses = _Stream(decoders(self._table.responses, index), given)
        self._pages: ListDecoder | None = None
        self._values: dict[str, int] = {}
        self.wants = 0
        """The bytes that `request_list` has to be given before anything else is looked at."""
        self.violation: Violation | None = None
        """What ended it."""

    def agree(self, given: Mapping[str, int]) -> None:
        """What is given has changed in xenstore, as when a disk is resized; it holds from now on.

        Raises:
            RingMisuseError: something is missing, unknown or out of its range; nothing changes.
        """
        _check_given(self._rings, given)
        self._requests.agree(given)
        self._responses.agree(given)

    @property
    def in_flight(self) -> int:
        """The number of requests that wait for a response."""
        return len(self._flight)

    def request(self, untrusted: Buffer) -> Violation | None:
        """The next slot that the frontend filled.

        Raises:
            RingMisuseError: it is shorter than a request, or a list is waited for.
        """
        self._no_list_wanted()
        copy = self._requests.copy(untrusted)
        if self.violation is None:
            try:
                self._request(copy)
            except Broken as broken:
                self._break(broken)
        return self.violation

    def request_list(self, untrusted: Buffer) -> Violation | None:
        """What lies in the pages granted by the last request: `wants` bytes.

        Raises:
            RingMisuseError: no list is waited for, or it has another length.
        """
        copy = bytes(untrusted)
        if self._pages is None or len(copy) != self.wants:
            raise RingMisuseError(f"a list of {len(copy)} bytes, where {self.wants} are wanted")
        try:
            self._pages.check(copy, self._values)
        except Broken as broken:
            self._break(broken)
        self._pages, self.wants = None, 0
        return self.violation

    def response(self, untrusted: Buffer) -> Violation | None:
        """The next slot that the backend filled.

        Raises:
            RingMisuseError: it is shorter than a response, or a list is waited for.
        """
        self._no_list_wanted()
        copy = self._responses.copy(untrusted)
        if self.violation is None:
            try:
                self._response(copy)
            except Broken as broken:
                self._break(broken)
        return self.violation

    def _no_list_wanted(self) -> None:
        if self._pages is not None:
            raise RingMisuseError(f"the last request's list, {self.wants} bytes, comes first")

    def _request(self, copy: bytes) -> None:
        message, values = self._requests.read(copy)
        message.check(copy, values)
        name = message.id_of(values)
        rule = self._table.twice
        if rule is not None and name is not None and name in self._flight:
            raise Broken(rule, value=name)
        if len(self._flight) >= self._slots:
            raise Broken(self._table.full)
        self._flight.put(name, message.remembered(values))
        pages, self.wants = message.pages(values)
        if pages is not None and not self.wants:
            pages.check(b"", dict(values))
        elif pages is not None:
            # The list is checked with what was known here, not where the packet goes on.
            self._pages, self._values = pages, dict(values)
        self._requests.go_on(message, values)

    def _response(self, copy: bytes) -> None:
        message, values = self._responses.read(copy)
        name = message.id_of(values)
        asked = self._flight.take(name)
        if asked is None:
            raise Broken(self._table.stray, value=name or 0)
        values["asked"] = asked
        message.check(copy, values)
        self._responses.go_on(message, values)

    def _break(self, broken: Broken) -> None:
        rule = broken.rule
        self._pages, self.wants = None, 0
        self.violation = Violation(
            rule.party,
            rule.name,
            rule.field,
            _evidence(rule, broken),
            rule.number,
            broken.index or 0,
            broken.value & _U64,
        )


class _Stream:
    """One end's messages, and where in a packet it is."""

    def __init__(self, side: SideDecoder, given: Mapping[str, int]) -> None:
        self._side = side
        self._given = dict(given)
        self._place = side.start
        self._kept = dict(side.kept)

    def agree(self, given: Mapping[str, int]) -> None:
        self._given = dict(given)

    def copy(self, untrusted: Buffer) -> bytes:
        copy = bytes(memoryview(untrusted)[: self._side.size])
        if len(copy) < self._side.size:
            raise RingMisuseError(f"{len(copy)} bytes, where a slot has {self._side.size}")
        return copy

    def read(self, copy: bytes) -> tuple[Decoder, dict[str, int]]:
        """The message, and its values with what is given and kept; the fields are checked.

        Raises:
            Broken: it is of no known kind, or a field is not what it may be.
        """
        message = self._side.message(self._place, copy)
        values = {**self._given, **self._kept}
        message.read(copy, values)
        return message, values

    def go_on(self, message: Decoder, values: dict[str, int]) -> None:
        """Keep what is kept, and step to where the packet goes on, or to the next packet."""
        kept = message.keep(values)
        values.update(kept)
        place = message.next(values)
        if place is None:
            self._place, self._kept = self._side.start, dict(self._side.kept)
        else:
            self._place = place
            self._kept.update(kept)


def _ring(rings: Rings, name: str) -> Ring:
    for ring in rings.rings:
        if ring.name == name:
            return ring
    known = ", ".join(ring.name for ring in rings.rings)
    raise RingMisuseError(f"no ring '{name}'; known: {known}")


def _check_given(rings: Rings, given: Mapping[str, int]) -> None:
    known = {one.name: one for one in rings.given}
    if given.keys() != known.keys():
        odd = ", ".join(sorted(given.keys() ^ known.keys()))
        raise RingMisuseError(f"given too much or too little: {odd}")
    for name, value in given.items():
        one = known[name]
        if not one.min <= value <= one.max:
            raise RingMisuseError(f"{name}={value}: it is from {one.min} to {one.max}")


def _evidence(rule: Rule, broken: Broken) -> str:
    said = f"must hold: {rule.text}"
    if rule.field:
        said += f"; {rule.field} is {broken.value}"
    elif broken.value:
        said += f"; the id is {broken.value}"
    if broken.index is not None:
        said += f"; item {broken.index}"
    return said
