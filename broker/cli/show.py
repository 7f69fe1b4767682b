"""How brokerctl writes: aligned columns for people, JSON lines for programs.

Text that came from a domain is escaped here: nothing a guest wrote reaches a terminal as
anything but printable ASCII.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

import msgspec

from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP: Final = "  "
_LEAST_ROOM: Final = 20
_NOTE: Final = _GAP * 2
_PIPE_WIDTH: Final = 80


def text(value: str | float | None) -> str:
    """A cell: `-` for what is absent or empty, everything else escaped."""
    if value is None or value == "":
        return "-"
    return escape(str(value))


def line(words: str) -> None:
    """One line of already safe text."""
    print(words)


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
    widths = [
        max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(head)
    ]
    before = sum(widths[:-1]) + len(_GAP) * (len(head) - 1)
    for row, note in zip_longest([list(head), *cells], [None, *notes]):
        start = "".join(
            (cell.rjust(width) if to_right else cell.ljust(width)) + _GAP
            for cell, width, to_right in zip(row[:-1], widths, right, strict=False)
        )
        _wrapped(start, row[-1], before)
        if note:
            _wrapped(_NOTE, text(note), len(_NOTE))


def _wrapped(start: str, words: str, indent: int) -> None:
    room = max(_LEAST_ROOM, shutil.get_terminal_size((_PIPE_WIDTH, 0)).columns - indent)
    for index, part in enumerate(
        textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False)
    ):
        print((" " * indent if index else start) + part)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """`name  value` lines, of already safe text; long values are wrapped."""
    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _wrapped(f"{name.ljust(width)}{_GAP}", value, width + len(_GAP))
