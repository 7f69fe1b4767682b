"""Problems gathered while a policy is checked, and the checks of names that all share."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from broker.text.escape import escape
from broker.text.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from broker.text.marked_yaml import Marked, Text

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.()-]*")
"""What can name something in a policy."""
MOST_NAME_BYTES: Final = 128
"""Two labels and a resource must fit into a decision record, percent-encoded."""
_MOST_HINTED: Final = 200
"""Among more names than this no look-alike is searched for: it would take seconds."""


class Findings:
    """The problems of one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def add(self, place: Text | Marked, message: str) -> None:
        """Note a problem with what stands at `place`."""
        self.problems.append(Problem(self.source, place.line, place.column, message))

    def where(self, place: Text | Marked) -> str:
        """`file:line:column` of `place`."""
        return f"{self.source}:{place.line}:{place.column}"

    def name(self, text: Text, what: str) -> None:
        """Check that `text` can name something."""
        if not NAME.fullmatch(text):
            self.add(
                text,
                f"{what} '{escape(text, 60)}' is not a name: letters, digits and _.()-, "
                "beginning with a letter or digit",
            )
        elif len(text) > MOST_NAME_BYTES:
            self.add(text, f"{what} has {len(text)} characters; at most {MOST_NAME_BYTES} may be")

    def names(self, texts: Iterable[Text], what: str) -> None:
        """Check a list that defines names: each a name, none twice."""
        for text in self.once(texts, what):
            self.name(text, what)

    def once(self, texts: Iterable[Text], what: str) -> Iterator[Text]:
        """`texts` without repetitions, which are problems."""
        first: dict[str, Text] = {}
        for text in texts:
            before = first.setdefault(text, text)
            if before is text:
                yield text
            else:
                said = f"{what} '{escape(text, 60)}' was named already, at {self.where(before)}"
                self.add(text, said)

    def known(self, texts: Iterable[Text], names: Collection[str], what: str) -> tuple[str, ...]:
        """Those of `texts` that are in `names`; others, and repetitions, are problems."""
        found = []
        for text in self.once(texts, what):
            if text in names:
                found.append(str(text))
            else:
                self.add(text, f"unknown {what} '{escape(text, 60)}'{_hint(text, names)}")
        return tuple(found)


def _hint(text: str, names: Collection[str]) -> str:
    if len(names) > _MOST_HINTED:
        return ""
    close = difflib.get_close_matches(text[:60], names, 1)
    return f"; did you mean '{close[0]}'?" if close else ""
