"""How brokerctl writes: aligned columns for people, JSON lines for programs.

Text is escaped here, at the edge: nothing a guest wrote reaches a terminal as anything but
printable ASCII. JSON carries it as it is, in JSON's own escapes.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

import msgspec

from broker.text.escape import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP: Final = "  "
_LEAST_ROOM: Final = 20
_LONGEST: Final = 200
_NOTE: Final = _GAP * 2
_PIPE_WIDTH: Final = 80


def text(value: str | float | None, limit: int = _LONGEST) -> str:
    """A cell: `-` for what is absent or empty, everything else printable, `limit` bytes of it."""
    if value is None or value == "":
        return "-"
    return printable(str(value), limit)


def line(words: str) -> None:
    """One line of already safe text."""
    print(words)


def document(words: str) -> None:
    """A whole file for a program to read, in UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(words.encode("utf-8"))
    sys.stdout.buffer.flush()


def json_line(value: object) -> None:
    """One JSON value, one line; flushed, so that a reader of a stream sees it at once."""
    # ASCII alone, and no DEL: what JSON lets stand could still command a terminal.
    words = json.dumps(msgspec.to_builtins(value), separators=(",", ":"))
    print(words.replace("\x7f", "\\u007f"), flush=True)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | float | None]],
    notes: Iterable[str | None] = (),
) -> None:
    """Rows below a head, aligned: numbers stand right, the last column is wrapped.

    `notes` are, row by row, a line of their own below it, where not None.
    """
    raw = list(rows)
    cells = [[text(value) for value in row] for row in raw]
    columns = list(zip(*raw, strict=True)) or [()] * len(head)
    right = [bool(column) and all(isinstance(value, int) for value in column) for column in columns]
    widths = _widths(head, cells)
    before = sum(widths[:-1]) + len(_GAP) * (len(head) - 1)
    for row, note in zip_longest([list(head), *cells], [None, *notes]):
        start = "".join(
            (cell.rjust(width) if to_right else cell.ljust(width)) + _GAP
            for cell, width, to_right in zip(row[:-1], widths, right, strict=False)
        )
        _wrapped(start, row[-1], before)
        if note:
            _wrapped(_NOTE, text(note), len(_NOTE))


def terminal_width() -> int:
    """The columns there are."""
    return shutil.get_terminal_size((_PIPE_WIDTH, 0)).columns


def fits(head: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> bool:
    """Whether a table of these rows needs no wrapping."""
    widths = _widths(head, [[text(value) for value in row] for row in rows])
    return sum(widths) + len(_GAP) * (len(head) - 1) <= terminal_width()


def _widths(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max([len(name), *(len(row[at]) for row in cells)]) for at, name in enumerate(head)]


def _wrapped(start: str, words: str, indent: int) -> None:
    """Words beside `start`; one that is longer than the room stands further left, on its own."""
    room = max(_LEAST_ROOM, terminal_width() - indent)
    for part in textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False):
        if len(part) > room:
            if start.strip():
                print(start.rstrip())
            start = " " * max(0, indent + room - len(part))
        print(start + part)
        start = " " * indent


def item(start: str, words: str) -> None:
    """One of a list, of already safe text: two blanks in, wrapped below its own beginning."""
    _wrapped(f"{_GAP}{start}", words, len(_GAP) * 2)


def paragraph(name: str, words: str) -> None:
    """A name, and already safe text below it over the whole width."""
    print(name)
    _wrapped(_GAP, words, len(_GAP))


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """`name  value` lines, of already safe text; long values are wrapped."""
    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _wrapped(f"{name.ljust(width)}{_GAP}", value, width + len(_GAP))
