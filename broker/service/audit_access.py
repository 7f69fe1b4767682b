"""The audit log as administrators read it: a page of it, or as it is written.

Whoever follows the log is served from the disk, one block in turn: followers together cost the
broker at most a block each `PAUSE`, and one that does not read costs nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from broker.audit.chain import unframe
from broker.audit.query import Query, select
from broker.audit.reading import End, LogReader
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service.journal import JournalError
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

    from broker.audit.chain import Framed
    from broker.audit.reading import Place
    from broker.rpc.stream import Sender
    from broker.service.audit import Audit

PAUSE: Final = 0.005
"""Seconds between two blocks that are read for administrators."""
LOOKED_THROUGH: Final = 256
"""Blocks that one page looks through (8 MiB); the next page goes on from there."""


class AuditAccess:
    """Reads the log of a running broker."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._clock = audit.clock
        journal = audit.journal
        self._reader = LogReader(
            journal.path, lambda: End(journal.first, journal.offset, journal.head.n)
        )
        self._waiting: deque[Follower] = deque()
        self._call: IDelayedCall | None = None

    async def page(self, query: Query, last: int, before: int | None) -> methods.AuditPage:
        """The `last` records that match, of those before the record `before`.

        Raises:
            RpcError: `internal`, the log cannot be read.
        """
        self._audit.flush()
        end = self._reader.end.last
        try:
            place = self._reader.after(end if before is None else min(before - 1, end))
            start, found, more, unread = place.n, list[methods.AuditRecord](), True, 0
            for _ in range(LOOKED_THROUGH):
                block = self._reader.backward(place)
                more = block.place != place
                if not more:
                    break
                place = block.place
                selected = select(block.lines, query)
                found[:0] = [_record(*pair) for pair in selected.records]
                unread += selected.unread
                if len(found) >= last:
                    break
                await self._pause()
        except OSError as error:
            raise RpcError("internal", f"the audit log cannot be read: {error}") from None
        surplus = len(found) - last
        if surplus > 0:
            del found[:surplus]
        oldest = found[0].n if surplus > 0 else place.n + 1
        more = more and oldest > 1
        return methods.AuditPage(
            records=tuple(found), oldest=oldest, last=start, more=more, unread=unread
        )

    def follow(self, query: Query, since: int | None, send: Sender) -> Callable[[], None]:
        """Send what matches from the record after `since` on, until the answer is called.

        Raises:
            RpcError: `bad_input`, there is no record `since` yet; `internal`, the log cannot be
                read.
        """
        self._audit.flush()
        last = self._reader.end.last
        if since is not None and since > last:
            raise RpcError("bad_input", f"the audit log ends with record {last}")
        try:
            place = self._reader.after(last if since is None else since)
        except OSError as error:
            raise RpcError("internal", f"the audit log cannot be read: {error}") from None
        follower = Follower(query, place, send)

        def wake() -> None:
            if not follower.waiting:
                follower.waiting = True
                self._waiting.append(follower)
                self._soon()

        def stop() -> None:
            self._audit.readers.remove(wake)
            if follower.waiting:
                self._waiting.remove(follower)

        self._audit.readers.append(wake)
        send.on_ready = wake
        wake()
        return stop

    def checkpoint(self, subject: str, role: str) -> methods.AuditRecord:
        """Sign a checkpoint of the log as it is now, for somebody.

        Raises:
            RpcError: `unavailable`, the log cannot be written.
        """
        try:
            line = self._audit.checkpoint(subject, role)
        except JournalError as error:
            raise RpcError("unavailable", f"the audit log cannot be written: {error}") from None
        return _record(unframe(line), line)

    def _soon(self) -> None:
        if self._call is None and self._waiting:
            self._call = self._clock.callLater(PAUSE, self._serve)

    def _serve(self) -> None:
        """Serve whoever waited longest."""
        self._call = None
        if self._waiting:
            follower = self._waiting.popleft()
            follower.waiting = False
            try:
                if follower.serve(self._reader):
                    follower.waiting = True
                    self._waiting.append(follower)
            except OSError as error:
                # It stays where it is, and is served again when the next line is written.
                self._audit.alarm("audit log", f"cannot be read: {escape(str(error))}")
        self._soon()

    def _pause(self) -> Deferred[None]:
        pause: Deferred[None] = Deferred()
        self._clock.callLater(0, pause.callback, None)
        return pause


class Follower:
    """One client and its place in the log; `waiting` to be served."""

    def __init__(self, query: Query, place: Place, send: Sender) -> None:
        self.waiting = False
        self._query = query
        self._place = place
        self._send = send

    def serve(self, reader: LogReader) -> bool:
        """Send a block, if the client reads; whether there is more to read at once.

        Raises:
            OSError: the log cannot be read.
        """
        if not self._send.ready:
            return False
        block = reader.forward(self._place)
        selected = select(block.lines, self._query)
        moved, self._place = block.place != self._place, block.place
        if block.lost or selected.unread:
            self._send.lagged(block.lost + selected.unread)
        for line, raw in selected.records:
            self._send(_record(line, raw), line.n)
        return moved


def _record(line: Framed, raw: bytes) -> methods.AuditRecord:
    return methods.AuditRecord(n=line.n, event=line.kind, line=raw.rstrip(b"\n").decode("ascii"))
