"""An answer with its reasons."""

from __future__ import annotations

import msgspec


class Reason(msgspec.Struct, frozen=True):
    """One rule that spoke: its name (`channels[2]`), what it says, and where it is written.

    `where` is `file:line:column`, or empty where nothing in the policy is to be pointed at.
    """

    rule: str
    text: str
    where: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """Granted or not, and why: for a denial, everything that stands against it."""

    granted: bool
    reasons: tuple[Reason, ...]


def denied(rule: str, text: str, where: str = "") -> Verdict:
    """A denial for one reason."""
    return Verdict(granted=False, reasons=(Reason(rule, text, where),))
