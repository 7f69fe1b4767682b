"""What the kernel counts refused packets by: a number for each label, drawn from its name.

It needs no memory: whoever knows the labels knows the numbers, across restarts and policies. Two
labels in a hundred thousand policies of a hundred share one; they would be counted as one.
Nothing is decided by it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from broker.net.tables import MARK_BASE

NOBODY: Final = 0
"""An interface without a label."""
DOM0: Final = MARK_BASE
"""dom0 itself: the class that nobody has."""


def label_id(name: str) -> int:
    """The number of the label (or `uplink:NAME`): never a class's, `NOBODY` or `DOM0`."""
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    for at in range(0, len(digest), 4):
        number = int.from_bytes(digest[at : at + 4], "big")
        if number and class_of(number) is None:
            return number
    raise ValueError(f"no number for the label {name!a}")


def class_of(number: int) -> int | None:
    """The class that the number stands for (0: dom0 itself), where only that was known."""
    return number - MARK_BASE if number >> 16 == MARK_BASE >> 16 else None
