"""What a backend's agent reports of filter profiles: one bounded line, for people alone.

    at=1764000000 omitted=0/2 clean-traffic/1=12/840 vif3.0=10.0.0.5/1764003600

Packets and bytes that a profile's rule decided, on all vifs together; IPv4 addresses that were
learned for a vif, and until when. The largest counts come first; how many counts and addresses do
not fit is said. An agent can lie about itself and about nobody else.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.record import MAX_SIGNED_BYTES, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NUMBER: Final = r"(0|[1-9][0-9]{0,18})"
_ID: Final = r"(0|[1-9][0-9]{0,9})"
_TIME: Final = r"(0|[1-9][0-9]{0,10})"
"""Of this millennium or the next ones: people are shown a date."""
_HEAD: Final = re.compile(rf"at={_TIME} omitted={_NUMBER}/{_NUMBER}")
_RULE: Final = re.compile(rf"([a-z][a-z0-9-]{{0,47}}/(?:[0-9]{{1,4}}|default))={_NUMBER}/{_NUMBER}")
_LEASE: Final = re.compile(rf"vif{_ID}\.{_ID}=([0-9.]{{7,15}})/{_TIME}")
_LARGEST: Final = 10**19 - 1
"""What the text has room for."""
_LATEST: Final = 10**11 - 1
_HEAD_ROOM: Final = len(f"at={_LATEST} omitted={_LARGEST}/{_LARGEST}")


class RuleCount(msgspec.Struct, frozen=True):
    """What one rule of a filter profile (`profile/number`, `profile/default`) decided so far."""

    rule: str
    packets: int
    bytes: int


class Lease(msgspec.Struct, frozen=True):
    """An IPv4 address that was learned for a vif; it ends at `until`, seconds since 1970."""

    frontend: int
    device: str
    address: str
    until: int


class FilterReport(msgspec.Struct, frozen=True):
    """One report; `at` is when it was made, seconds since 1970 by the agent's clock."""

    at: int
    counts: tuple[RuleCount, ...]
    leases: tuple[Lease, ...]
    omitted_counts: int
    omitted_leases: int


def encode_filter_report(at: int, counts: Sequence[RuleCount], leases: Sequence[Lease]) -> str:
    """The report's text, no longer than a record; addresses take half of it at most."""
    room = MAX_SIGNED_BYTES - _HEAD_ROOM
    told = _fitting(
        (
            f" vif{it.frontend}.{it.device}={it.address}/{min(it.until, _LATEST)}"
            for it in sorted(leases, key=lambda it: (it.frontend, it.device, it.address))
        ),
        room // 2,
    )
    counted = _fitting(
        (
            f" {it.rule}={min(it.packets, _LARGEST)}/{min(it.bytes, _LARGEST)}"
            for it in sorted(counts, key=lambda it: (-it.packets, -it.bytes, it.rule))
        ),
        room - sum(map(len, told)),
    )
    omitted = f"{len(counts) - len(counted)}/{len(leases) - len(told)}"
    return f"at={at} omitted={omitted}" + "".join(counted) + "".join(told)


def _fitting(parts: Iterable[str], room: int) -> list[str]:
    """The first of `parts` that fit."""
    found: list[str] = []
    for part in parts:
        if len(part) > room:
            break
        room -= len(part)
        found.append(part)
    return found


def parse_filter_report(untrusted_text: bytes) -> FilterReport:
    """The report in a node's value.

    Raises:
        RecordError: it is none.
    """
    if len(untrusted_text) > MAX_SIGNED_BYTES:
        raise RecordError(f"a report of {len(untrusted_text)} bytes")
    at, _, rest = untrusted_text.decode("latin-1").partition(" ")
    omitted, *items = rest.split(" ")
    head = _HEAD.fullmatch(f"{at} {omitted}")
    if head is None:
        raise RecordError("not a report of filter profiles")
    counts: list[RuleCount] = []
    leases: list[Lease] = []
    for text in items:
        if (rule := _RULE.fullmatch(text)) is not None:
            counts.append(RuleCount(rule[1], int(rule[2]), int(rule[3])))
        elif (lease := _LEASE.fullmatch(text)) is not None:
            leases.append(Lease(int(lease[1]), lease[2], _address(lease[3]), int(lease[4])))
        else:
            raise RecordError("a count or an address is not as it should be")
    return FilterReport(int(head[1]), tuple(counts), tuple(leases), int(head[2]), int(head[3]))


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise RecordError("an address is none") from None
