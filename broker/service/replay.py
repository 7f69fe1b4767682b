"""Reading the audit log at start: every line checked against the chain, and taken into the state.

A crash may tear the very last line; that one was never acted on, so it is cut off. Anything else
that does not read, or does not follow what is before it, is refused.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from broker.audit import checkpoint
from broker.audit.chain import ChainError, Framed, Head, unframe
from broker.audit.segments import first_line, read_segment, snapshot_name
from broker.service.events import decode_event
from broker.service.snapshot import SnapshotError, decode_snapshot
from broker.service.state import State
from broker.text.escape import escape

if TYPE_CHECKING:
    from pathlib import Path


class CorruptError(Exception):
    """The segment at `path` does not read on from byte `offset`."""

    def __init__(self, message: str, path: Path, offset: int) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset


class Replayed(msgspec.Struct, frozen=True):
    """What reading a segment found.

    `first` is the number of its first line, `head` its last good line, `offset` where that ends
    in bytes, `signed` the number of the last line that a checkpoint covers, itself included (0:
    none here), and `torn` how many bytes of a torn line follow.
    """

    first: int = 1
    head: Head = Head()
    offset: int = 0
    signed: int = 0
    torn: int = 0


def state_before(path: Path) -> tuple[State, Head]:
    """The state that a segment begins with, and the line it follows.

    Raises:
        CorruptError: the segment's first line, or the file with the state, is not good.
        OSError: a file cannot be read.
    """
    try:
        line = first_line(path)
        if line is None or line.n == 1:
            return State(), Head()
        segment = read_segment(line)
        head = Head(line.n - 1, segment.prev.encode("ascii", "replace"))
    except ChainError as error:
        raise CorruptError(f"{path}:1 (byte 0): {error}{_older_hint(path)}", path, 0) from None
    kept = path.with_name(snapshot_name(line.n))
    try:
        data = kept.read_bytes()
    except FileNotFoundError:
        raise CorruptError(
            f"{kept} is missing: the state that {path.name} goes on from", path, 0
        ) from None
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != segment.state:
        raise CorruptError(f"{kept} is not the state that {path}:1 names", path, 0)
    try:
        return decode_snapshot(data, head), head
    except SnapshotError as error:
        raise CorruptError(f"{kept}: {error}", path, 0) from None


def replay(path: Path, state: State, before: Head, *, end: int | None = None) -> Replayed:
    """Read a segment, at most to byte `end`, into `state`; its first line follows `before`.

    Raises:
        CorruptError: a line that is not the torn last one does not read, does not follow the one
            before it, or makes no sense.
        OSError: the file cannot be read.
    """
    head, offset, signed, number = before, 0, 0, 0
    first = before.n + 1
    with path.open("rb") as file:
        for raw in file:
            if end is not None and offset >= end:
                break
            if not raw.endswith(b"\n"):
                return Replayed(first, head, offset, signed, len(raw))
            number += 1
            try:
                line = _next(raw, head)
                state.apply(decode_event(line.event))
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
                raise CorruptError(
                    f"{path}:{number} (byte {offset}): {escape(str(error))}", path, offset
                ) from None
            if line.kind == checkpoint.KIND:
                signed = line.n
            head = line.head
            offset += len(raw)
    return Replayed(first, head, offset, signed, 0)


def _next(raw: bytes, head: Head) -> Framed:
    line = unframe(raw)
    if line.n != head.n + 1:
        raise ChainError(f"record {line.n} follows {head.n}")
    if not line.follows(head.hash):
        raise ChainError(f"record {line.n} was changed, or the one before it was")
    return line


def _older_hint(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(10) == b'{"event":"':
            return "; it was written before records were chained, by an unreleased version"
    return ""
