"""Text as groff's man macros want it. man(7)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Page:
    """One manual page, written from top to bottom."""

    def __init__(self, name: str, section: int, brief: str, version: str) -> None:
        self._lines = [
            f'.TH {escaped(name.upper())} {section} "" "xen-policy-broker {version}"',
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{escaped(name)} \\- {escaped(brief)}",
        ]

    def heading(self, words: str) -> None:
        """A section."""
        self._lines.append(f".SH {escaped(words.upper())}")

    def subheading(self, words: str) -> None:
        """A part of a section."""
        self._lines.append(f'.SS "{escaped(words)}"')

    def paragraph(self, words: str) -> None:
        """Running text."""
        self._lines += [".PP", escaped(words)]

    def item(self, term: str, words: str) -> None:
        """A term, and what is to be said of it."""
        self._lines += [".TP", f"\\fB{escaped(term)}\\fR", escaped(words) or "\\&"]

    def verbatim(self, text: str) -> None:
        """Lines as they are."""
        self._lines += [".PP", ".nf", *map(escaped, textwrap.dedent(text).splitlines()), ".fi"]

    def text(self) -> str:
        """The page."""
        return "\n".join(self._lines) + "\n"


def escaped(words: str) -> str:
    """Text without a command in it: no line of it begins with a dot or an apostrophe."""
    text = (
        words.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("^", "\\(ha")
    )
    lines = [f"\\&{line}" if line[:1] in (".", "'") else line for line in text.split("\n")]
    return "\n".join(lines)


def see_also(page: Page, others: Iterable[str]) -> None:
    """The last section."""
    page.heading("See also")
    page.paragraph(", ".join(others))
