"""Reading the audit log of a running broker, a block at a time, forward or backward.

No file is kept open between two blocks, and nothing is held but a place: a reader that falls
behind holds neither memory nor, once its segment is dropped, disk.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.audit.chain import MAX_LINE_BYTES
from broker.audit.segments import older_name, older_segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK: Final = 1 << 15
"""Bytes read at once; more only for a line that is longer."""


_NUMBER: Final = re.compile(rb'\{"n":([1-9][0-9]{0,15}),')


class End(msgspec.Struct, frozen=True):
    """Where the log ends: the newest segment's first number, its length, the last number."""

    first: int
    offset: int
    last: int


class Place(msgspec.Struct, frozen=True):
    """A place between two lines: `offset` bytes into the segment `first`, after line `n`."""

    first: int
    offset: int
    n: int


class Block(msgspec.Struct, frozen=True):
    """Whole lines, in the log's order, and where reading goes on.

    `lost` is how many lines are gone that would have come before these.
    """

    lines: list[bytes]
    place: Place
    lost: int = 0


class LogReader:
    """Reads the log in `directory`; `end` tells how far it was written, and is good."""

    def __init__(self, newest: Path, end: Callable[[], End]) -> None:
        self._newest = newest
        self._end = end

    @property
    def end(self) -> End:
        """Where the log ends now."""
        return self._end()

    def after(self, n: int) -> Place:
        """The place after the line `n`; after the last one if it is beyond that.

        A line that was dropped is a place too: reading on from it tells what is lost.

        Raises:
            OSError: the log cannot be read.
        """
        end = self._end()
        if n >= end.last:
            return Place(end.first, end.offset, end.last)
        first = max((it for it in self._firsts() if it <= n + 1), default=n + 1)
        if first == n + 1:
            return Place(first, 0, n)
        with self._path(first).open("rb") as file:
            low, high = 0, self._length(first)
            # Lines that begin before `low` are at most n.
            while low < high:
                middle = (low + high) // 2
                file.seek(middle)
                if middle:
                    file.readline()
                start = file.tell()
                line = file.readline()
                number = number_of(line) if start < high else None
                if number is not None and number <= n:
                    low = file.tell()
                else:
                    high = middle
            file.seek(low)
            offset = low
            for line in file:
                number = number_of(line)
                if number is None or number > n:
                    break
                offset += len(line)
        return Place(first, offset, n)

    def forward(self, place: Place) -> Block:
        """The lines from a place on; none where the log ends.

        Raises:
            OSError: the log cannot be read.
        """
        try:
            lines = self._read(place)
        except FileNotFoundError:
            following = [it for it in self._firsts() if it > place.n]
            first = min(following, default=self._end().first)
            return Block([], Place(first, 0, first - 1), lost=max(0, first - place.n - 1))
        if not lines:
            if place.first < self._end().first:
                return Block([], Place(place.n + 1, 0, place.n))
            return Block([], place)
        size = sum(map(len, lines))
        last = number_of(lines[-1]) or place.n + len(lines)
        return Block(lines, Place(place.first, place.offset + size, last))

    def backward(self, place: Place) -> Block:
        """The lines before a place, as many as make a block; none where the log begins.

        Raises:
            OSError: the log cannot be read.
        """
        if place.offset == 0:
            older = [it for it in self._firsts() if it < place.first]
            if not older:
                return Block([], place)
            place = Place(max(older), -1, place.n)
        try:
            return self._read_back(place)
        except FileNotFoundError:
            return Block([], place)  # dropped meanwhile, and so is all before it

    def _read_back(self, place: Place) -> Block:
        """Whole lines before a place in one segment (-1: its end), at least one."""
        want = BLOCK
        with self._path(place.first).open("rb") as file:
            end = place.offset if place.offset >= 0 else self._length(place.first)
            while True:
                start = max(0, end - want)
                file.seek(start)
                data = file.read(end - start)
                cut = 0 if start == 0 else data.find(b"\n") + 1
                if start == 0 or 0 < cut < len(data):
                    break
                want *= 2
        lines = data[cut:].splitlines(keepends=True)
        first = number_of(lines[0]) if lines else place.n + 1
        before = (first or max(1, place.n - len(lines) + 1)) - 1
        return Block(lines, Place(place.first, start + cut, before))

    def _read(self, place: Place) -> list[bytes]:
        """Whole lines from a place on, at least one if there is one."""
        with self._path(place.first).open("rb") as file:
            left = self._length(place.first) - place.offset
            want = min(BLOCK, left)
            while want > 0:
                file.seek(place.offset)
                data = file.read(want)
                whole = data.rfind(b"\n") + 1
                if whole or want in (left, MAX_LINE_BYTES):
                    return data[:whole].splitlines(keepends=True)
                want = min(want * 2, left, MAX_LINE_BYTES)
        return []

    def _firsts(self) -> list[int]:
        """The number of each segment's first line."""
        return [*older_segments(self._newest.parent), self._end().first]

    def _path(self, first: int) -> Path:
        if first == self._end().first:
            return self._newest
        return self._newest.with_name(older_name(first))

    def _length(self, first: int) -> int:
        end = self._end()
        return end.offset if first == end.first else self._path(first).stat().st_size


def number_of(line: bytes) -> int | None:
    """The number of a line, or None if it is none of the log's."""
    match = _NUMBER.match(line)
    return None if match is None else int(match[1])
