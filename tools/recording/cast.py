"""Recording a program's output as asciicast 2.

https://docs.asciinema.org/manual/asciicast/v2/
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS: Final = 80
ROWS: Final = 30
_LONGEST_PAUSE: Final = 0.8
"""Seconds without output that are kept; more is cut, as nobody wants to watch a store start."""

Moments = list[tuple[float, str]]


def record(command: Sequence[str]) -> Moments:
    """What the program writes to a terminal, and when; pauses are cut.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    begun = time.monotonic()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, close_fds=True
    )
    os.close(theirs)
    found: Moments = []
    at = last = 0.0
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
        now = time.monotonic() - begun
        at += min(now - last, _LONGEST_PAUSE)
        last = now
        found.append((at, data.decode("utf-8", "replace")))
    os.close(ours)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return found


def written(moments: Moments, *, title: str) -> str:
    """The file: a header, then an event a line."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": title}
    lines = [json.dumps(header)]
    lines += [json.dumps([round(at, 3), "o", text], ensure_ascii=False) for at, text in moments]
    return "\n".join(lines) + "\n"


def read(text: str) -> Moments:
    """The events of a file."""
    _, *lines = text.splitlines()
    return [(event[0], event[2]) for event in map(json.loads, lines)]
