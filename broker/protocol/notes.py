"""The problems of one description, as its checkers find them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.protocol.states import BY_WORD
from broker.text.escape import escape
from broker.text.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.text.marked_yaml import Marked, Text


class Notes:
    """Collects problems; `source` is the file's name in them."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.problems: list[Problem] = []

    def bad(self, place: Text | Marked, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self._source, place.line, place.column, message))

    def show(self, text: str) -> str:
        """A text of the file, fit for a message."""
        return escape(text, 60)

    def states(self, texts: Iterable[Text]) -> bool:
        """Whether all of them are states; notes those that are not."""
        known = True
        for text in texts:
            if text not in BY_WORD:
                self.bad(text, f"unknown state '{self.show(text)}'; known: {', '.join(BY_WORD)}")
                known = False
        return known

    def one_of(self, text: Text, words: Iterable[str], what: str) -> bool:
        """Whether it is one of `words`; notes it if not."""
        listed = tuple(words)
        if text in listed:
            return True
        self.bad(text, f"unknown {what} '{self.show(text)}'; known: {', '.join(listed)}")
        return False
