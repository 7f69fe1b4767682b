"""Which records of the audit log somebody wants to see."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from broker.audit.chain import ChainError, Framed, unframe

_DECISION: Final = re.compile(r"/broker/v1/decision/([0-9]+)/[^/]+/([0-9]+)/[^/]+")
_CHANNEL: Final = re.compile(r"[^/ ]+/([0-9]+)/[^/ ]+ -> ([0-9]+)")
_UUID: Final = re.compile(r" uuid=([0-9a-f-]{36}) ")


class _Told(msgspec.Struct, frozen=True):
    """What of any kind of record tells whom it is about."""

    t: float
    domid: int | None = None
    uuid: str | None = None
    key: str | None = None
    path: str = ""
    channel: str = ""
    text: str = ""
    subject: str = ""


_DECODER: Final = msgspec.json.Decoder(_Told)


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
        """Whether a record is wanted.

        Raises:
            msgspec.MsgspecError: it is none that the broker writes.
        """
        if self.events and line.kind not in self.events:
            return False
        told = _DECODER.decode(line.event)
        if self.verdict and not (
            line.kind == "decided" and told.text.startswith(f"{self.verdict} ")
        ):
            return False
        if not told.subject.startswith(self.subject):
            return False
        return not (self.domids or self.names) or self._about(told)

    def _about(self, told: _Told) -> bool:
        if told.domid in self.domids or {told.uuid, told.key} & self.names:
            return True
        for text, pattern in ((told.path, _DECISION), (told.channel, _CHANNEL)):
            match = pattern.fullmatch(text)
            if match is not None and self.domids & {int(match[1]), int(match[2])}:
                return True
        match = _UUID.search(told.text)
        return match is not None and match[1] in self.names


class Selected(msgspec.Struct, frozen=True):
    """The records that are wanted, each with its line, and how many lines did not read."""

    records: list[tuple[Framed, bytes]]
    unread: int


def select(lines: list[bytes], query: Query) -> Selected:
    """Those of the log's lines that are wanted."""
    records: list[tuple[Framed, bytes]] = []
    unread = 0
    for raw in lines:
        try:
            line = unframe(raw)
            if query.matches(line):
                records.append((line, raw))
        except (ChainError, msgspec.MsgspecError):
            unread += 1
    return Selected(records, unread)
