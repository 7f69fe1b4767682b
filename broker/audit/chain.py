"""A line of the audit log, and how it is chained to the one before: exact text, both ways.

    {"n":17,"event":"decided",…,"in_force":"sha256:…","hash":"…"}

`n` counts lines from 1 and never starts over. `in_force` is the digest of the policy in force
(null: none). `hash` is the SHA-256, in hex, of the line before's hash followed by this line up to
`,"hash"`. The text is printable ASCII, and there is exactly one way to write a line.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

GENESIS: Final = b"0" * 64
"""What stands for the hash before the first line."""
MAX_LINE_BYTES: Final = 4 << 20
"""The longest line that is read."""

_START: Final = re.compile(rb'\{"n":([1-9][0-9]{0,15}),("event":"([a-z_]{1,40})",)')
_END: Final = re.compile(rb',"in_force":(null|"sha256:[0-9a-f]{64}"),"hash":"([0-9a-f]{64})"\}\n')
_HASH_BYTES: Final = len(b',"hash":"') + 64 + len(b'"}\n')
_ENDS: Final = tuple(len(b',"in_force":') + it + _HASH_BYTES for it in (len("null"), 73))


class ChainError(ValueError):
    """A line is not one that is written here, or does not follow the one before."""


class Head(msgspec.Struct, frozen=True):
    """The last line of a chain: its number and hash; what the next one follows."""

    n: int = 0
    hash: bytes = GENESIS


class Framed(msgspec.Struct, frozen=True):
    """A line taken apart. `event` is the JSON of what it says, `body` what its hash covers."""

    n: int
    kind: str
    event: bytes
    in_force: str | None
    body: bytes
    hash: bytes

    @property
    def head(self) -> Head:
        """What the next line has to follow."""
        return Head(self.n, self.hash)

    def follows(self, before: bytes) -> bool:
        """Whether its hash is right after a line with the hash `before`."""
        return chained(before, self.body) == self.hash


def chained(before: bytes, body: bytes) -> bytes:
    """The hash, in hex, of a line that follows one with the hash `before`."""
    return hashlib.sha256(before + body).hexdigest().encode("ascii")


def in_force_field(digest: str | None) -> bytes:
    """The part of a line that names the policy in force; the same for many, so made once."""
    return b',"in_force":' + (b"null" if digest is None else b'"%b"' % digest.encode("ascii"))


def frame(n: int, before: bytes, event: bytes, in_force: bytes) -> tuple[bytes, bytes]:
    """The line number `n`, newline included, and its hash.

    `event` is a JSON object that begins with its `event`, in printable ASCII; `in_force` is made
    by `in_force_field`.
    """
    body = b'{"n":%d,%b%b' % (n, event[1:-1], in_force)
    digest = hashlib.sha256(before + body).hexdigest().encode("ascii")
    return b'%b,"hash":"%b"}\n' % (body, digest), digest


def unframe(line: bytes) -> Framed:
    """Take a line apart, its newline included; its hash is not looked at.

    Raises:
        ChainError: it is not written as `frame` does.
    """
    start = _START.match(line)
    size = len(line)
    end = _END.fullmatch(line, size - _ENDS[1]) or _END.fullmatch(line, size - _ENDS[0])
    if start is None or end is None or start.end() >= end.start():
        raise ChainError("not a record of the audit log")
    if not (line.isascii() and line[:-1].decode("ascii").isprintable()):
        raise ChainError("not printable ASCII, as all records of the audit log are")
    in_force, digest = end.groups()
    return Framed(
        n=int(start[1]),
        kind=start[3].decode("ascii"),
        event=b"{%b}" % line[start.start(2) : end.start()],
        in_force=None if in_force == b"null" else in_force[1:-1].decode("ascii"),
        body=line[:-_HASH_BYTES],
        hash=digest,
    )
