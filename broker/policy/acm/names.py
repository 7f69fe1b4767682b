"""Names: ACM allowed any text; policies here allow what fits everywhere a name is used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.policy.findings import MOST_NAME_BYTES, NAME
from broker.policy.rules import ANY
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.policy.findings import Findings
    from broker.text.marked_yaml import Text

UNLABELED: Final = "__UNLABELED__"
"""ACM's label, and type, of whatever has no label."""
NAMES: Final = "names"
UNLABELED_KIND: Final = "unlabeled"
_OTHER: Final = re.compile(r"[^A-Za-z0-9_.()-]+")


class Names:
    """Takes over names, or says what is wrong with them; `accept` holds what is let pass."""

    def __init__(self, accept: frozenset[str], findings: Findings, notes: Findings) -> None:
        self._accept = accept
        self._findings = findings
        self._notes = notes

    def take(self, text: Text, what: str) -> str:
        """The name that `text` has here, the same for the same text."""
        if text == UNLABELED:
            return self._unlabeled(text, what)
        if _good(text):
            return str(text)
        rewritten = _rewritten(text)
        shown = escape(text, 60)
        if NAMES in self._accept:
            self._notes.add(text, f"{what} '{shown}' is called '{rewritten}'")
            return rewritten
        why = "a colon parts the words of a label" if ":" in text else "it cannot be a name here"
        self._findings.add(
            text, f"{what} '{shown}': {why} (--accept {NAMES} calls it '{rewritten}')"
        )
        return str(text)

    def take_new(self, texts: Iterable[Text], what: str) -> dict[str, Text]:
        """The names that `texts` define, none of them twice; each with its first place."""
        taken: dict[str, Text] = {}
        for text in texts:
            name = self.take(text, what)
            before = taken.setdefault(name, text)
            if before is not text:
                place = self._findings.where(before)
                self._findings.add(text, f"{what} '{escape(name, 60)}' was defined at {place}")
        return taken

    def _unlabeled(self, text: Text, what: str) -> str:
        name = UNLABELED.strip("_")
        if UNLABELED_KIND in self._accept:
            self._notes.add(
                text,
                f"{what} {UNLABELED} is called {name}, and is one like any other: what has no "
                "label here gets nothing",
            )
        else:
            self._findings.add(
                text,
                f"{what} {UNLABELED}: ACM gave it to whatever had no label; here such domains get "
                f"nothing (--accept {UNLABELED_KIND} takes it over as '{name}')",
            )
        return name


def adopted(text: str, accept: frozenset[str]) -> str:
    """What a name of the ACM policy is called here, by the same rule, without a word."""
    if text == UNLABELED:
        return UNLABELED.strip("_")
    return _rewritten(text) if NAMES in accept and not _good(text) else str(text)


def _good(text: str) -> bool:
    fits = NAME.fullmatch(text) is not None and len(text) <= MOST_NAME_BYTES
    return fits and text != ANY


def _rewritten(text: str) -> str:
    name = _OTHER.sub("_", text)[:MOST_NAME_BYTES].strip("_") or "x"
    if not NAME.fullmatch(name):
        name = f"x{name}"
    return f"{name}_" if name == ANY else name
