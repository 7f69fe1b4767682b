"""The header of a compiled ACM policy, read for inspection; nothing is imported from it."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from broker.text.problems import Problem, ProblemsError

MAGIC: Final = 0x0001DEBC
_HEADER: Final = struct.Struct("!10I20s")
_REFERENCE: Final = struct.Struct("!I")
_VERSION: Final = 4
_NULL: Final = 0
_CODES: Final = {_NULL: "NULL", 1: "CHWALL", 2: "STE", 15: "UNDEFINED"}
_LONGEST_NAME: Final = 4096


class BinaryHeader(msgspec.Struct, frozen=True):
    """What the header says; `xml_sha1` is of the policy's XML as one Python wrote it out."""

    policy: str
    version: tuple[int, int]
    length: int
    primary: str
    secondary: str
    xml_sha1: str
    remarks: tuple[str, ...]


def read_binary(data: bytes, source: str) -> BinaryHeader:
    """The header in `data`, big endian, format 4.

    Raises:
        ProblemsError: it is not one; the column is the byte, counted from 1.
    """
    if len(data) < _HEADER.size:
        raise _bad(source, len(data), f"too short: the header has {_HEADER.size} bytes")
    magic, form, length, reference, first, first_at, second, second_at, major, minor, sha1 = (
        _HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise _bad(source, 0, f"not a compiled ACM policy: it begins with {magic:08x}")
    if form != _VERSION:
        raise _bad(source, 4, f"format {form}; only format {_VERSION} is read")
    if length != len(data):
        raise _bad(source, 8, f"it says it has {length} bytes, but has {len(data)}")
    for at, offset in ((12, reference), (20, first_at), (28, second_at)):
        if not _HEADER.size <= offset <= length:
            raise _bad(source, at, f"offset {offset} lies outside the policy")
    for at, code in ((16, first), (24, second)):
        if code not in _CODES:
            raise _bad(source, at, f"component code {code} is unknown")
    return BinaryHeader(
        _name(data, reference, source),
        (major, minor),
        length,
        _CODES[first],
        _CODES[second],
        sha1.hex(),
        tuple(_remarks(first, second, second_at, length)),
    )


def _name(data: bytes, at: int, source: str) -> str:
    if at + _REFERENCE.size > len(data):
        raise _bad(source, at, "the policy's name is cut off")
    (length,) = _REFERENCE.unpack_from(data, at)
    start = at + _REFERENCE.size
    raw = data[start : start + length]
    if length > _LONGEST_NAME or len(raw) < length or not raw.endswith(b"\0"):
        raise _bad(source, at, "the policy's name is cut off")
    return raw[:-1].decode("utf-8", "backslashreplace")


def _remarks(first: int, second: int, second_at: int, length: int) -> list[str]:
    """Where the Python compiler's codes were not what the policy was."""
    remarks = []
    if 15 in (first, second):
        remarks.append("a component code is UNDEFINED: the hypervisor refused such a policy")
    if second == 2 and second_at >= length:
        remarks.append("the secondary component is said to be STE, and is not there")
    remarks.append("the components of a policy are derived from its XML, never from this header")
    return remarks


def _bad(source: str, at: int, message: str) -> ProblemsError:
    return ProblemsError([Problem(source, 1, at + 1, message)])
