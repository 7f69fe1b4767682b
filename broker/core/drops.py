"""What a backend's agent reports of refused packets: one bounded line, counted by label pair.

    at=1764000000 omitted=0 web>bank=12/840 ->shop=1/60

`-` stands for an interface without a label. The largest counts come first; what does not fit is
left out, and how many pairs that are is said. Counts go on from one report to the next, until the
host's tables are made anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.record import MAX_SIGNED_BYTES, RecordError, decode_value, encode_value
from broker.text.escape import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER: Final = r"(0|[1-9][0-9]{0,18})"
_HEAD: Final = re.compile(rf"at={_NUMBER} omitted={_NUMBER}")
_DROP: Final = re.compile(rf"([^ >=]{{1,600}})>([^ >=]{{1,600}})={_NUMBER}/{_NUMBER}")
_LARGEST: Final = 10**19 - 1
"""What the text has room for."""


class Drop(msgspec.Struct, frozen=True):
    """Refused packets from one label to another; None is an interface without one."""

    sender: str | None
    receiver: str | None
    packets: int
    bytes: int


class DropReport(msgspec.Struct, frozen=True):
    """One report; `at` is when it was made, seconds since 1970 by the agent's clock."""

    at: int
    drops: tuple[Drop, ...]
    omitted: int


def encode_drops(at: int, drops: Sequence[Drop]) -> str:
    """The report's text, no longer than a record."""
    ordered = sorted(drops, key=lambda it: (-it.packets, -it.bytes, str(it.sender)))
    parts: list[str] = []
    room = MAX_SIGNED_BYTES - len(f"at={_LARGEST} omitted={_LARGEST}")
    for drop in ordered:
        ends = f"{encode_value(drop.sender)}>{encode_value(drop.receiver)}"
        part = f" {ends}={min(drop.packets, _LARGEST)}/{min(drop.bytes, _LARGEST)}"
        if len(part) > room:
            break
        room -= len(part)
        parts.append(part)
    return f"at={at} omitted={len(ordered) - len(parts)}" + "".join(parts)


def parse_drops(untrusted_text: bytes) -> DropReport:
    """The report in a node's value; its labels are valid Unicode, whatever was written.

    Raises:
        RecordError: it is none.
    """
    if len(untrusted_text) > MAX_SIGNED_BYTES:
        raise RecordError(f"a report of {len(untrusted_text)} bytes")
    head, *rest = re.split(" (?=[^ ]*>)", untrusted_text.decode("latin-1"))
    first = _HEAD.fullmatch(head)
    if first is None:
        raise RecordError("not a report of refused packets")
    drops = []
    for text in rest:
        found = _DROP.fullmatch(text)
        if found is None:
            raise RecordError("not a count of refused packets")
        ends = _label(found[1]), _label(found[2])
        drops.append(Drop(*ends, packets=int(found[3]), bytes=int(found[4])))
    return DropReport(at=int(first[1]), drops=tuple(drops), omitted=int(first[2]))


def _label(text: str) -> str | None:
    label = decode_value(text)
    return None if label is None else readable(label)
