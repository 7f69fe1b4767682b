"""What every target asks of whatever it fuzzes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.text.problems import ProblemsError


class UnexpectedError(Exception):
    """Something was let through, or said, that must not be."""


def refused_well(error: ProblemsError) -> None:
    """A file is refused for something, and that stands somewhere and can be printed.

    Raises:
        UnexpectedError: it is not so.
    """
    said = [str(one) for one in error.problems if one.line >= 1 and one.column >= 1]
    if not error.problems or len(said) != len(error.problems):
        raise UnexpectedError(f"no place: {error!a}")
    if not all(text.replace("\n", "").isprintable() for text in said):
        raise UnexpectedError(f"not printable: {error!a}")
