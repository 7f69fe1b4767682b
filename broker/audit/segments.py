"""The audit log's files: the newest segment, those before it, and the state each one begins with.

audit.jsonl                  the newest segment, which is written
audit-000000000001.jsonl     an older one, named by the number of its first line
state-000000041234.json      the broker's state at the beginning of the segment of that number
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.audit.chain import ChainError, unframe

if TYPE_CHECKING:
    from pathlib import Path

    from broker.audit.chain import Framed

NEWEST: Final = "audit.jsonl"
BEGUN: Final = "audit.jsonl.new"
"""A segment that is being made, until it takes the newest one's name."""
KIND: Final = "segment"
_OLDER: Final = re.compile(r"audit-([0-9]{12})\.jsonl")
_SNAPSHOT: Final = re.compile(r"state-([0-9]{12})\.json")


class Segment(msgspec.Struct, frozen=True, tag_field="event", tag=KIND, forbid_unknown_fields=True):
    """The first line of every segment but the very first.

    `prev` is the hash of the last line before it, `state` the `sha256:<hex>` of the file that
    holds the broker's state as of there. A checkpoint follows it.
    """

    t: float
    prev: str
    state: str


_DECODER: Final = msgspec.json.Decoder(Segment)


def read_segment(line: Framed) -> Segment:
    """The segment's beginning that a line is.

    Raises:
        ChainError: it is none.
    """
    try:
        return _DECODER.decode(line.event)
    except msgspec.MsgspecError:
        raise ChainError("not the beginning of a segment") from None


def older_name(first: int) -> str:
    """What the segment that begins with line `first` is called once it is not the newest."""
    return f"audit-{first:012d}.jsonl"


def snapshot_name(first: int) -> str:
    """What the file with the state at the beginning of that segment is called."""
    return f"state-{first:012d}.json"


def older_segments(directory: Path) -> dict[int, Path]:
    """The segments before the newest by the number of their first line, in order.

    Raises:
        OSError: the directory cannot be read.
    """
    return _numbered(directory, _OLDER)


def snapshots(directory: Path) -> dict[int, Path]:
    """The states kept by the number of the segment's first line, in order.

    Raises:
        OSError: the directory cannot be read.
    """
    return _numbered(directory, _SNAPSHOT)


def first_line(path: Path) -> Framed | None:
    """The first line of a segment, or None if the file has no whole line.

    Raises:
        ChainError: it is no line of an audit log.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        raw = file.readline()
    return unframe(raw) if raw.endswith(b"\n") else None


def _numbered(directory: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    found = {
        int(match[1]): path
        for path in directory.iterdir()
        if (match := pattern.fullmatch(path.name)) is not None
    }
    return dict(sorted(found.items()))
