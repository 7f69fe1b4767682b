"""Which port each address is bound to: on one bridge, one address has one port at a time. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from broker.filters.values import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.filters.model import Bound

OWN: Final = ("MAC", "IP", "IPV6")
"""The variables that say who the guest itself is; others name its peers."""
_ADDRESS: Final = "IP"
"""What DHCP gives."""


class Bindings:
    """Addresses of ports, by bridge; ports are known by index."""

    def __init__(self) -> None:
        self._single: dict[tuple[str, str, int], int] = {}
        self._ranges: dict[int, list[tuple[str, str, Span]]] = {}
        self._of: dict[int, list[tuple[str, str, int]]] = {}

    def conflict(
        self, index: int, bridge: str, bound: Mapping[str, Bound]
    ) -> tuple[int, str] | None:
        """Another port that has one of these addresses on this bridge, and the address."""
        for name, span in _own(bound):
            holder = self._holder(index, bridge, name, span)
            if holder is not None:
                return holder, shown(name, span.low)
        return None

    def holder(self, bridge: str, address: int) -> int | None:
        """The port that this IPv4 address is bound to."""
        return self._holder(0, bridge, _ADDRESS, Span(address, address))

    def _holder(self, index: int, bridge: str, name: str, span: Span) -> int | None:
        if span.low == span.high:
            single = [self._single.get((bridge, name, span.low))]
        else:
            single = [
                it
                for (where, of, value), it in self._single.items()
                if where == bridge and of == name and span.holds(value)
            ]
        for holder in single:
            if holder is not None and holder != index:
                return holder
        for other, ranges in self._ranges.items():
            for where, of, held in ranges:
                overlaps = span.low <= held.high and held.low <= span.high
                if other != index and where == bridge and of == name and overlaps:
                    return other
        return None

    def bind(self, index: int, bridge: str, bound: Mapping[str, Bound]) -> None:
        """The port has these, and no others."""
        self.release(index)
        for name, span in _own(bound):
            if span.low == span.high:
                self._single[bridge, name, span.low] = index
                self._of.setdefault(index, []).append((bridge, name, span.low))
            else:
                self._ranges.setdefault(index, []).append((bridge, name, span))

    def release(self, index: int) -> None:
        """The port has none any more."""
        for key in self._of.pop(index, []):
            self._single.pop(key, None)
        self._ranges.pop(index, None)


def shown(name: str, value: int) -> str:
    """An address as people write it."""
    if name == "MAC":
        return value.to_bytes(6, "big").hex(":")
    return str(ipaddress.IPv4Address(value) if name == _ADDRESS else ipaddress.IPv6Address(value))


def _own(bound: Mapping[str, Bound]) -> Iterator[tuple[str, Span]]:
    for name in OWN:
        values = bound.get(name, ())
        for span in values if isinstance(values, tuple) else ():
            yield name, span
