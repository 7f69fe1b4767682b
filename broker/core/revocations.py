"""Grants taken back, until the backend's agent says that they are closed; who waits for that.

What opens next must not meet what was closed: a domain that was connected to red yesterday and is
to be connected to blue today gets blue when red is known to be gone, not when it was told to go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec

from broker.core.record import RecordError, decode_value
from broker.text.escape import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.core.channels import Decision

    ConflictOf = Callable[[str, str], bool]
    """Whether domains of two labels may not run together."""

Enforced = Literal["open", "closed", "suspended", "failed"]
_REPORT: Final = re.compile(
    r"(open|closed|suspended|failed) seq=(-|0|[1-9][0-9]{0,17}) "
    r"nonce=([^ ]{1,64}) reason=([^ ]{1,1000})"
)


class Report(msgspec.Struct, frozen=True):
    """What a backend's agent says it enforces: the last record it acted on, for which life."""

    state: Enforced
    seq: int | None
    nonce: str
    reason: str


class Revocation(msgspec.Struct, frozen=True):
    """One grant taken back by record `seq`: the life it was for, and what it led to."""

    seq: int
    nonce: str
    uuid: str | None
    label: str | None
    resource: str | None


def parse_report(untrusted_text: bytes | None) -> Report | None:
    """An agent's report, if it is one; its reason is valid Unicode, whatever was written."""
    match = _REPORT.fullmatch((untrusted_text or b"").decode("latin-1"))
    if match is None:
        return None
    try:
        reason = readable(decode_value(match[4]) or "")
    except RecordError:
        return None
    seq = None if match[2] == "-" else int(match[2])
    return Report(cast("Enforced", match[1]), seq, match[3], reason)


def taken_back(before: Decision | None, after: Decision, seq: int) -> Revocation | None:
    """The revocation that record `seq` is, if the one before it granted and this one does not."""
    if before is None or before.verdict != "grant" or after.verdict == "grant":
        return None
    if before.nonce is None:
        return None  # no agent opens on a record without a nonce
    return Revocation(seq, before.nonce, before.uuid, before.labels[0], before.resource)


def confirms(revocation: Revocation, nonce: str | None, report: Report | None) -> bool:
    """Whether the agent says that what was revoked is closed: by that record, or in another life.

    `nonce` is the one it reports now: it draws a new one only once the life before is over. A
    report for another life than that says nothing: it may be older.
    """
    if nonce is not None and nonce != revocation.nonce:
        return True
    if report is None or report.nonce != revocation.nonce:
        return False
    closed = report.state in ("closed", "suspended")
    return closed and report.seq is not None and report.seq >= revocation.seq


class Unconfirmed:
    """The revocations that are not known to be closed, by the path of their channel."""

    def __init__(self, revocations: Iterable[tuple[str, Revocation]] = ()) -> None:
        self.released = 0
        """How many are over: who waits for one looks again when this grows."""
        self._by_path: dict[str, Revocation] = {}
        self._of_uuid: dict[str, dict[str, None]] = {}
        self._of_resource: dict[str, dict[str, None]] = {}
        self._of_label: dict[str, dict[str, None]] = {}
        for path, revocation in revocations:
            self.add(path, revocation)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._by_path)

    def __eq__(self, other: object) -> bool:
        """Whether two hold the same, in the same order."""
        return isinstance(other, Unconfirmed) and self.items() == other.items()

    # It changes, so it is no key; that is how Python has it said.
    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, path: str) -> bool:
        """Whether one is awaited on a path."""
        return path in self._by_path

    def get(self, path: str) -> Revocation | None:
        """The one on a path."""
        return self._by_path.get(path)

    def items(self) -> list[tuple[str, Revocation]]:
        """All of them, the oldest first."""
        return list(self._by_path.items())

    def add(self, path: str, revocation: Revocation) -> None:
        """One more; where there is one on that path already, the older stands."""
        if path not in self._by_path:
            self._by_path[path] = revocation
            for index, key in self._places(revocation):
                index.setdefault(key, {})[path] = None

    def drop(self, path: str) -> None:
        """That one is closed, or needs to be no more."""
        revocation = self._by_path.pop(path, None)
        self.released += revocation is not None
        for index, key in () if revocation is None else self._places(revocation):
            del index[key][path]
            if not index[key]:
                del index[key]

    def clear(self) -> None:
        """Forget all."""
        for path in list(self._by_path):
            self.drop(path)

    def awaited(self, path: str, decision: Decision, conflict: ConflictOf) -> str:
        """The path whose closing a grant on `path` has to wait for; empty if there is none.

        It waits for what its own domain had open, for whoever had the same resource, and for
        those the Chinese Wall keeps apart from it. A channel does not wait for itself: its agent
        closes one life before it opens the next.
        """
        label = decision.labels[0]
        suspects = [
            self._of_uuid.get(decision.uuid or "", {}),
            self._of_resource.get(decision.resource or "", {}),
        ]
        if label is not None:
            walled = [held for other, held in self._of_label.items() if conflict(label, other)]
            suspects += walled
        for held in suspects:
            for other in held:
                if other != path:
                    return other
        return ""

    def _places(self, revocation: Revocation) -> list[tuple[dict[str, dict[str, None]], str]]:
        places = [
            (self._of_uuid, revocation.uuid),
            (self._of_resource, revocation.resource),
            (self._of_label, revocation.label),
        ]
        return [(index, key) for index, key in places if key is not None]
