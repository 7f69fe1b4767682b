"""Any bytes as an audit log: verified, read and looked through, or said to be wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.chain import ChainError, frame, in_force_field, unframe
from broker.audit.checkpoint import read_anchor
from broker.audit.query import Query, select
from broker.audit.segments import read_segment
from broker.audit.verify import Source, verify
from tools.fuzz.expected import UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
"""Nothing here is signed by it."""
_START = b"0" * 64


def run(data: bytes) -> None:
    """Take `data` as a log's newest segment.

    Raises:
        UnexpectedError: an unsigned log has a good checkpoint, or a problem has no place.
    """
    lines = data.splitlines(keepends=True)
    report = verify([Source("fuzz", None, lines)], [_KEY])
    if any(one.line < 1 or not str(one).isprintable() for one in report.problems):
        raise UnexpectedError(str(report.problems))
    for line in lines:
        for read in (unframe, lambda it: read_segment(unframe(it))):
            try:
                read(line)
            except ChainError:
                continue
        try:
            read_anchor(line, [_KEY])
        except ChainError:
            continue
        raise UnexpectedError(f"an anchor that nobody signed: {line!a}")
    select(lines, Query())


def seeds() -> Iterator[bytes]:
    """A few good lines, whole, cut, doubled and in another order."""
    force, before, lines = in_force_field("sha256:" + "0" * 64), _START, list[bytes]()
    for number in range(1, 5):
        event = b'{"event":"alarm","t":%d.0,"where":"a","what":"b"}' % number
        line, before = frame(number, before, event, force)
        lines.append(line)
    for count in range(1, 5):
        yield b"".join(lines[:count])
        yield b"".join(lines[:count])[:-9]
        yield b"".join(reversed(lines[:count]))
        yield lines[0] * count


def words() -> Iterator[bytes]:
    """The fields of a line."""
    for seed in seeds():
        yield from re.findall(rb'"[a-z_]+":?', seed)
    yield from (b'"event":"checkpoint"', b'"event":"segment"', b'"head":"', b'"sig":"', b'"n":')
