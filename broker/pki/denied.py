"""The serial denylist: certificates that are good no more, one hexadecimal serial a line.

What follows the serial on its line, and lines that begin with `#`, are for people.
"""

from __future__ import annotations

import re
from typing import Final

_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")


class DeniedListError(ValueError):
    """The list does not read, so that nobody can be let in by it; the message says where."""


def read_denied(data: bytes, source: str) -> frozenset[int]:
    """The serials that are denied; `source` is the file's name in messages.

    Raises:
        DeniedListError: a line is not as it should be: a serial that is misread would let in
            whom somebody wanted out.
    """
    serials: set[int] = set()
    for number, raw in enumerate(data.splitlines(), 1):
        line = raw.decode("ascii", "replace").strip()
        if not line or line.startswith("#"):
            continue
        serial = line.split()[0].lower()
        if not _SERIAL.fullmatch(serial):
            raise DeniedListError(
                f"{source}:{number}: {serial[:60]!a} is no serial number (up to 40 hex digits)"
            )
        serials.add(int(serial, 16))
    return frozenset(serials)


def serial_text(serial: int) -> str:
    """A serial as it is written everywhere."""
    return f"{serial:x}"
