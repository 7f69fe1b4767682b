"""The audit log as it is written: chained lines, one fdatasync a batch, rotated by size.

Nothing takes effect before its line is on the disk. Every so many lines, at each rotation and at
a clean stop, a checkpoint is signed (`broker.audit.checkpoint`).

A rotation first makes what it needs beside the log: the state so far and the new segment's first
two lines, on the disk. Then it gives the old segment its second name, and then the new one takes
the name of the newest, in one step: before it nothing has happened, after it all has.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from broker.audit.chain import Head, frame, in_force_field
from broker.audit.checkpoint import sign_checkpoint
from broker.audit.segments import (
    BEGUN,
    Segment,
    older_name,
    older_segments,
    snapshot_name,
    snapshots,
)
from broker.core.histogram import Histogram
from broker.service.durable import sync_directory, write_all, write_new
from broker.service.events import Event, encode_event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from broker.service.replay import Replayed

CHECKPOINT_EVERY: Final = 1000
"""Lines after which a checkpoint is written."""
_ITSELF: Final = ("", "")
"""Who asks for a checkpoint where the broker does so by itself."""
_TRIES: Final = 8
"""A segment that cannot be rotated is tried again each time it grew by this part of its size."""


class JournalError(Exception):
    """The journal cannot be written: nothing may be granted until it can."""


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """How large a segment gets, in bytes, and how many are kept besides the newest."""

    size: int = 32 << 20
    keep: int = 16


class Journal:
    """The open journal; `head` is the last line known to be good, `offset` where it ends."""

    def __init__(
        self, path: Path, replayed: Replayed, key: Ed25519PrivateKey, rotation: Rotation
    ) -> None:
        """Open (or create) the newest segment and cut off what was never acted on.

        Raises:
            OSError: it cannot be opened or cut.
        """
        self.path = path
        self.first = replayed.first
        self.head = replayed.head
        self.offset = replayed.offset
        self.error: str | None = None
        self._signed = replayed.signed
        self._key = key
        self._rotation = rotation
        self._rotate_at = rotation.size
        self._in_force = in_force_field(None)
        self._unsynced = False
        self.written = 0
        """Bytes appended since the start."""
        self.failures = 0
        self.syncs = Histogram()
        """Seconds that each `fdatasync` took."""
        self._renamed = False
        self._pending: tuple[Head, int, int] = (self.head, self.offset, self._signed)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, self.offset)
        os.lseek(self._file, self.offset, os.SEEK_SET)
        os.fsync(self._file)
        sync_directory(path.parent)

    @property
    def full(self) -> bool:
        """Whether it is time to rotate."""
        return self.offset >= self._rotate_at

    def set_in_force(self, digest: str | None) -> None:
        """The policy under which lines are written from now on."""
        self._in_force = in_force_field(digest)

    def commit(self, events: Sequence[Event], *, sign: tuple[str, str] | None = None) -> None:
        """Append and make durable; on return every line before, too, is on the disk.

        With `sign`, the subject and the role of who asked for it, a checkpoint follows.

        Raises:
            JournalError: it is not; the file was cut back to what was there before, or will be
                before the next line.
        """
        self._append(events, sign=sign)
        begun = time.perf_counter()
        try:
            os.fdatasync(self._file)
            if self._renamed:
                sync_directory(self.path.parent)
        except OSError as error:
            self._fail(error)
        self.syncs.add(time.perf_counter() - begun)
        self._settle()
        self._unsynced = self._renamed = False

    def note(self, events: Sequence[Event]) -> None:
        """Append without waiting for the disk: for outcomes, which the next commit carries.

        Raises:
            JournalError: as `commit`.
        """
        self._append(events)
        self._settle()
        self._unsynced = True

    def checkpoint(self, subject: str, role: str) -> bytes:
        """Write a checkpoint that somebody asked for, durably; answers its line.

        Raises:
            JournalError: as `commit`.
        """
        before = self.offset
        self.commit((), sign=(subject, role))
        with self.path.open("rb") as file:
            file.seek(before)
            return file.readline()

    def sign(self) -> None:
        """Write a checkpoint if there are lines that none covers yet.

        Raises:
            JournalError: as `commit`.
        """
        if self._signed != self.head.n:
            self.commit((), sign=_ITSELF)

    def close(self) -> None:
        """Flush what `note` left, sign the end, and close the file."""
        try:
            if self.error is None:
                self.sign()
        finally:
            os.close(self._file)

    def rotate(self, snapshot: bytes) -> None:
        """Begin a new segment, which goes on from the state `snapshot`, and drop the oldest.

        Raises:
            OSError: it could not be done. The journal goes on in the segment it has, and is
                `full` again when that has grown some more.
            JournalError: it was done, but may not outlive a crash; nothing may be granted until
                a commit succeeds.
        """
        self._rotate_at = self.offset + max(1, self._rotation.size // _TRIES)
        first, directory = self.head.n + 1, self.path.parent
        older = directory / older_name(self.first)
        kept = directory / snapshot_name(first)
        begun = directory / BEGUN
        file = -1
        try:
            if self._unsynced:
                os.fdatasync(self._file)
            os.close(write_new(kept, snapshot, 0o600))
            data, head = self._beginning(snapshot)
            file = write_new(begun, data, 0o600)
            os.link(self.path, older)
            sync_directory(directory)
            begun.replace(self.path)
        except OSError:
            if file != -1:
                os.close(file)
            with suppress(OSError):
                begun.unlink(missing_ok=True)
                if older.exists() and older.samefile(self.path):
                    older.unlink()
                kept.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = file
        self.first, self.head, self.offset, self._signed = first, head, len(data), head.n
        self._rotate_at = max(self._rotation.size, self.offset + 1)
        self._unsynced = False
        try:
            sync_directory(directory)
        except OSError as error:
            self._renamed = True
            self._fail(error)
        self._drop_oldest()

    def _beginning(self, snapshot: bytes) -> tuple[bytes, Head]:
        """The first two lines of the segment after this one, and the second as a head."""
        now, (n, before) = time.time(), (self.head.n, self.head.hash)
        state = f"sha256:{hashlib.sha256(snapshot).hexdigest()}"
        segment = Segment(now, before.decode("ascii"), state)
        first, before = frame(n + 1, before, encode_event(segment), self._in_force)
        signed = encode_event(sign_checkpoint(Head(n + 1, before), now, self._key))
        second, before = frame(n + 2, before, signed, self._in_force)
        return first + second, Head(n + 2, before)

    def _drop_oldest(self) -> None:
        """Drop the segments, and the states they began with, beyond those to keep."""
        older = older_segments(self.path.parent)
        surplus = list(older)[: max(0, len(older) - self._rotation.keep)]
        oldest = next((first for first in older if first not in surplus), self.first)
        with suppress(OSError):  # at the next rotation they are found again
            for first in surplus:
                older[first].unlink()
            for first, path in snapshots(self.path.parent).items():
                if first < oldest:
                    path.unlink()

    def _append(self, events: Sequence[Event], *, sign: tuple[str, str] | None = None) -> None:
        n, before, signed = self.head.n, self.head.hash, self._signed
        lines: list[bytes] = []
        for event in events:
            n += 1
            line, before = frame(n, before, encode_event(event), self._in_force)
            lines.append(line)
        if sign or n - signed >= CHECKPOINT_EVERY:
            who = sign or _ITSELF
            checkpoint = sign_checkpoint(Head(n, before), time.time(), self._key, *who)
            n = signed = n + 1
            line, before = frame(n, before, encode_event(checkpoint), self._in_force)
            lines.append(line)
        data = b"".join(lines)
        try:
            if self.error is not None:
                os.ftruncate(self._file, self.offset)
                os.lseek(self._file, self.offset, os.SEEK_SET)
            write_all(self._file, data)
        except OSError as error:
            self._fail(error)
        self._pending = (Head(n, before), self.offset + len(data), signed)

    def _settle(self) -> None:
        self.written += self._pending[1] - self.offset
        self.head, self.offset, self._signed = self._pending
        self.error = None

    def _fail(self, error: OSError) -> None:
        """Remember the failure, cut off what was half written, and raise."""
        self.failures += 1
        self.error = f"{self.path}: {error.strerror}"
        try:
            os.ftruncate(self._file, self.offset)
            os.lseek(self._file, self.offset, os.SEEK_SET)
        except OSError as worse:
            self.error += f"; cutting it back failed: {worse.strerror}"
        raise JournalError(self.error) from error
