"""Which records of the audit log somebody wants to see."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.audit.chain import Framed, unframe

if TYPE_CHECKING:
    from collections.abc import Mapping

_DECISION: Final = re.compile(r"/broker/v1/decision/([0-9]+)/[^/]+/([0-9]+)/[^/]+")
_CHANNEL: Final = re.compile(r"[^/ ]+/([0-9]+)/[^/ ]+ -> ([0-9]+)")
_UUID: Final = re.compile(r" uuid=([0-9a-f-]{36}) ")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is left out matches all.

    `events` are the kinds wanted. A record is about a domain if it names one of `domids` or of
    `names` (uuids, and names that labels are stored for). `subject` is what the subject begins
    with. `verdict` is that of a decision, so that nothing else matches.
    """

    events: frozenset[str] = frozenset()
    domids: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    subject: str = ""
    verdict: str = ""

    def matches(self, line: Framed) -> bool:
        """Whether a record is wanted."""
        if self.events and line.kind not in self.events:
            return False
        if not (self.domids or self.names or self.subject or self.verdict):
            return True
        told: dict[str, object] = msgspec.json.decode(line.event)
        if self.verdict and not (
            line.kind == "decided" and str(told.get("text")).startswith(f"{self.verdict} ")
        ):
            return False
        if self.subject and not str(told.get("subject", "")).startswith(self.subject):
            return False
        return not (self.domids or self.names) or self._about(told)

    def _about(self, told: Mapping[str, object]) -> bool:
        if told.get("domid") in self.domids:
            return True
        if told.get("uuid") in self.names or told.get("key") in self.names:
            return True
        for field, pattern in (("path", _DECISION), ("channel", _CHANNEL)):
            match = pattern.fullmatch(str(told.get(field, "")))
            if match is not None and self.domids & {int(match[1]), int(match[2])}:
                return True
        match = _UUID.search(str(told.get("text", "")))
        return match is not None and match[1] in self.names


def select(lines: list[bytes], query: Query) -> list[tuple[Framed, bytes]]:
    """Those of the log's lines that are wanted, each taken apart and as it is.

    Raises:
        ChainError: a line is none of the log's.
    """
    framed = [(unframe(line), line) for line in lines]
    return [pair for pair in framed if query.matches(pair[0])]
