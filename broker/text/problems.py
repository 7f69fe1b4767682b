"""What is wrong with a file a person wrote, and where: all of it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing wrong at one place; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    message: str

    @property
    def where(self) -> str:
        """The place alone: `file:line:column`."""
        return f"{self.file}:{self.line}:{self.column}"

    def __str__(self) -> str:
        """As compilers write it: `file:line:column: message`."""
        return f"{self.where}: {self.message}"


class ProblemsError(Exception):
    """A file is refused; `problems` holds everything found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
