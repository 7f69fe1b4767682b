"""Sets of names as bits of one integer: sharing a type is one `&`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Numbering:
    """Names numbered in their order; a set of them is an integer with those bits set."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._bits = {name: 1 << number for number, name in enumerate(self.names)}
        self.everything = (1 << len(self.names)) - 1
        self._sets: dict[int, int] = {}

    def mask(self, names: Iterable[str]) -> int:
        """The set of `names`.

        Raises:
            KeyError: a name that is not numbered.
        """
        mask = 0
        for name in names:
            mask |= self._bits[name]
        # Equal sets are one object: with thousands of labels that keeps them near the processor.
        return self._sets.setdefault(mask, mask)

    def named(self, mask: int) -> list[str]:
        """The names in a set, in their order."""
        return [self.names[number] for number in bits(mask)]


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set, ascending."""
    numbers = []
    while mask:
        lowest = mask & -mask
        numbers.append(lowest.bit_length() - 1)
        mask ^= lowest
    return numbers
