"""Whether an audit log is whole: every edit, cut, insertion and reorder is found, and where.

The chain shows each of these by itself, as long as not all that follows was chained anew. That
only the broker can sign: checkpoints show a log written anew up to the last of them, and an
anchor, a checkpoint kept elsewhere, also an end that was cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.audit import checkpoint, segments
from broker.audit.chain import GENESIS, ChainError, Framed, chained, unframe
from broker.text.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MOST_PROBLEMS: Final = 100
"""Problems told one by one; more are only counted."""


class Source(msgspec.Struct, frozen=True):
    """One segment: its file's name, the first line's number by that name (None: the newest)."""

    name: str
    first: int | None
    lines: Iterable[bytes]


class Anchor(msgspec.Struct, frozen=True):
    """A checkpoint kept elsewhere, and where (`file:line`)."""

    where: str
    line: Framed


class Report(msgspec.Struct, kw_only=True):
    """What was found. Records `first` to `last` are there; both 0 if none is.

    `unsigned` counts the records after the last checkpoint, `more` the problems beyond the
    `MOST_PROBLEMS` that are told, `anchors` those that were found in the log, and `too_old` are
    those from before its beginning.
    """

    problems: list[Problem] = []
    more: int = 0
    files: int = 0
    first: int = 0
    last: int = 0
    checkpoints: int = 0
    unsigned: int = 0
    anchors: int = 0
    too_old: list[str] = []

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    sources: Iterable[Source], keys: Sequence[Ed25519PublicKey], anchors: Iterable[Anchor] = ()
) -> Report:
    """Read a log from its oldest segment to its newest."""
    verifier = Verifier(keys, anchors)
    for source in sources:
        verifier.begin(source)
        for number, raw in enumerate(source.lines, 1):
            verifier.line(number, raw)
    return verifier.finish()


class Verifier:
    """Takes a log line by line; after something wrong it goes on with what can follow that."""

    def __init__(self, keys: Sequence[Ed25519PublicKey], anchors: Iterable[Anchor]) -> None:
        self.report = Report()
        self._keys = keys
        self._anchors: dict[int, list[Anchor]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.line.n, []).append(anchor)
        self._file = ""
        self._number = 0
        self._named: int | None = None
        # The number that comes next (0: any), and what may be the hash before it (none: unknown).
        self._next = 0
        self._before: tuple[bytes, ...] = ()
        self._unread = 0
        self._signed = 0

    def begin(self, source: Source) -> None:
        """The next segment."""
        self.report.files += 1
        self._file, self._number, self._named = source.name, 0, source.first

    def problem(self, message: str) -> None:
        """Something is wrong with the line at hand."""
        if len(self.report.problems) == MOST_PROBLEMS:
            self.report.more += 1
        else:
            self.report.problems.append(Problem(self._file, max(1, self._number), 1, message))

    def line(self, number: int, raw: bytes) -> Framed | None:
        """The next line of the segment, its newline included."""
        self._number = number
        try:
            line = unframe(raw)
        except ChainError as error:
            torn = not raw.endswith(b"\n")
            self.problem("torn: the line has no end" if torn else f"{error}, or changed")
            self._unread += 1
            return None
        if number == 1:
            self._first_of_segment(line)
        elif line.kind == segments.KIND:
            self.problem("the beginning of a segment, amid one")
        elif number == 2 and line.kind != checkpoint.KIND and line.n > 2:
            self.problem("a segment's second record has to be a checkpoint")
        self._placed(line)
        return line

    def finish(self) -> Report:
        """The log ends here."""
        report = self.report
        if not report.last:
            self.problem("no record is here")
        for at, anchors in self._anchors.items():
            for anchor in anchors:
                if at > report.last:
                    self.problem(
                        f"the log ends with record {report.last}, and {anchor.where} saw record "
                        f"{at}: its end was cut off"
                    )
                elif at < report.first:
                    report.too_old.append(anchor.where)
        report.unsigned = report.last - self._signed if self._signed else 0
        if report.last and not self._signed:
            report.unsigned = report.last - report.first + 1
        return report

    def _first_of_segment(self, line: Framed) -> None:
        if self._named not in (None, line.n):
            self.problem(f"record {line.n} is the first here, not {self._named} as the name says")
        if line.n == 1:
            self._open(line, GENESIS)
            return
        try:
            prev = segments.read_segment(line).prev.encode("ascii", "replace")
        except ChainError as error:
            self.problem(f"{error}: records before this one were cut off")
            return
        if self._open(line, prev):
            return
        if self._next == line.n and prev not in self._before:
            self.problem(f"record {line.n} names another record before it than is there")

    def _open(self, line: Framed, before: bytes) -> bool:
        """Begin with this line, if nothing was there yet."""
        if self._next or self._unread:
            return False
        self._next, self._before = line.n, (before,)
        return True

    def _placed(self, line: Framed) -> None:
        """A line that reads: its number, its hash, what it is checked for by its kind."""
        expected, unread = self._next or line.n, self._unread
        gap = line.n - expected
        if gap < 0:
            self.problem(
                f"record {line.n} stands after record {expected - 1}: repeated, inserted or moved"
            )
            return
        before = self._before if gap == 0 else ()
        if gap > unread:
            which = f"records {expected} to {line.n - 1} are"
            if gap == 1:
                which = f"record {expected} is"
            self.problem(f"{which} missing before record {line.n}")
        follows = not before or any(line.follows(it) for it in before)
        if not follows:
            self.problem(f"record {line.n} was changed, or is not the one that stood here")
        if line.kind == checkpoint.KIND:
            self._checkpoint(line, before)
        self._anchored(line)
        # If it was the hash that was changed, what follows still goes on from the right one.
        changed = () if follows else tuple(chained(it, line.body) for it in before[:1])
        self._before = (line.hash, *changed)
        self._next, self._unread = line.n + 1, 0
        self.report.first = self.report.first or line.n
        self.report.last = line.n

    def _checkpoint(self, line: Framed, before: tuple[bytes, ...]) -> None:
        try:
            found = checkpoint.read_checkpoint(line)
        except ChainError as error:
            self.problem(str(error))
            return
        if before and found.head.encode("ascii", "replace") not in before:
            self.problem(f"checkpoint {line.n} is of another record than stands before it")
        elif any(checkpoint.is_signed(line, found, key) for key in self._keys):
            self.report.checkpoints += 1
            self._signed = line.n
        else:
            self.problem(
                f"checkpoint {line.n} is not signed by the broker's key: what is before it was "
                "written anew, or another broker's log (see --key)"
            )

    def _anchored(self, line: Framed) -> None:
        for anchor in self._anchors.get(line.n, ()):
            if anchor.line.hash == line.hash:
                self.report.anchors += 1
            else:
                self.problem(
                    f"record {line.n} is not the one that {anchor.where} saw: the log was "
                    "written anew"
                )
