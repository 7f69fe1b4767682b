"""The audit log: append-only JSON lines, one fdatasync a batch, replayed at start.

Nothing takes effect before its line is on the disk. A crash may tear the very last line; that
one was never acted on, so it is cut off. Anything else that does not read is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from broker.service.events import Event, decode_line, encode_line
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from broker.service.state import State


class JournalError(Exception):
    """The journal cannot be written: nothing may be granted until it can."""


class CorruptError(Exception):
    """The journal does not read; `offset` is where its readable part ends, in bytes."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Replayed(msgspec.Struct, frozen=True):
    """What a replay found: lines read, where the good part ends, bytes of a torn last line."""

    lines: int
    offset: int
    torn: int


def replay(path: Path, state: State, *, end: int | None = None) -> Replayed:
    """Read the journal, at most to byte `end`, into `state`.

    Raises:
        CorruptError: a line that is not the torn last one does not read, or makes no sense.
        OSError: the file cannot be read.
    """
    lines = offset = 0
    with path.open("rb") as file:
        for raw in file:
            if end is not None and offset >= end:
                break
            if not raw.endswith(b"\n"):
                return Replayed(lines, offset, len(raw))
            try:
                state.apply(decode_line(raw))
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
                raise CorruptError(
                    f"{path}:{lines + 1} (byte {offset}): {escape(str(error))}", offset
                ) from None
            lines += 1
            offset += len(raw)
    return Replayed(lines, offset, 0)


class Journal:
    """The open journal. `offset` is the length of what is known to be good."""

    def __init__(self, path: Path, offset: int, lines: int) -> None:
        """Open (or create) the file and cut it to `offset`: the rest was never acted on.

        Raises:
            OSError: it cannot be opened or cut.
        """
        self.path = path
        self.offset = offset
        self.lines = lines
        self.error: str | None = None
        self._unsynced = False
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, offset)
        os.lseek(self._file, offset, os.SEEK_SET)
        os.fsync(self._file)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)

    def commit(self, events: Sequence[Event]) -> None:
        """Append and make durable; on return every line before, too, is on the disk.

        Raises:
            JournalError: it is not; the file was cut back to what was there before, or will be
                before the next line.
        """
        self._append(events)
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._fail(error)
        self._settle(events)
        self._unsynced = False

    def note(self, events: Sequence[Event]) -> None:
        """Append without waiting for the disk: for outcomes, which the next commit carries.

        Raises:
            JournalError: as `commit`.
        """
        self._append(events)
        self._settle(events)
        self._unsynced = True

    def close(self) -> None:
        """Flush what `note` left and close the file."""
        if self._unsynced and self.error is None:
            os.fdatasync(self._file)
        os.close(self._file)

    def _append(self, events: Iterable[Event]) -> None:
        data = b"".join([encode_line(event) for event in events])
        try:
            if self.error is not None:
                os.ftruncate(self._file, self.offset)
                os.lseek(self._file, self.offset, os.SEEK_SET)
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._fail(error)
        self._pending = len(data)

    def _settle(self, events: Sequence[Event]) -> None:
        self.offset += self._pending
        self.lines += len(events)
        self.error = None

    def _fail(self, error: OSError) -> None:
        """Remember the failure, cut off what was half written, and raise."""
        self.error = f"{self.path}: {error.strerror}"
        try:
            os.ftruncate(self._file, self.offset)
            os.lseek(self._file, self.offset, os.SEEK_SET)
        except OSError as worse:
            self.error += f"; cutting it back failed: {worse.strerror}"
        raise JournalError(self.error) from error
