"""The audit log's files at start: what a crash left of a rotation, and what `--init` can save."""

from __future__ import annotations

import filecmp
import time
from typing import TYPE_CHECKING

import msgspec

from broker.audit.chain import ChainError
from broker.audit.segments import BEGUN, NEWEST, first_line, older_segments, snapshots
from broker.service.durable import sync_directory, write_durably
from broker.service.replay import CorruptError, Replayed, replay, state_before
from broker.service.state import State

if TYPE_CHECKING:
    from pathlib import Path


class Recovered(msgspec.Struct, frozen=True):
    """What could be saved: the state and the newest segment's end; `note` says what was done.

    `restate`: the newest segment has no good state to begin with, so another has to be begun.
    """

    state: State
    replayed: Replayed
    restate: bool
    note: str


def aside(path: Path) -> Path:
    """Where a file is kept that does not read."""
    return path.with_name(f"{path.name}.corrupt-{int(time.time())}")


def tidy(directory: Path) -> None:
    """Finish what a crash cut short of a rotation: what did not come to count is removed.

    Raises:
        CorruptError: there are segments as new as the newest, or newer, or it is missing.
        OSError: a file cannot be read or removed.
    """
    newest, older = directory / NEWEST, older_segments(directory)
    try:
        line = first_line(newest) if newest.exists() else None
    except ChainError:
        return  # reading it says more
    if not newest.exists() and older:
        raise CorruptError(f"{newest} is missing, and older segments are there", newest, 0)
    first = 1 if line is None else line.n
    for number, path in older.items():
        if number == first and filecmp.cmp(path, newest, shallow=False):
            path.unlink()
        elif number >= first:
            raise CorruptError(
                f"{newest} is older than {path.name}, which begins at record {number}", newest, 0
            )
    for number, path in snapshots(directory).items():
        if number > first:
            path.unlink()
    (directory / BEGUN).unlink(missing_ok=True)


def recover(directory: Path, why: str) -> Recovered:
    """Go on from what can be read, after the operator said so; the rest is kept aside.

    Raises:
        OSError: a file cannot be read or moved.
    """
    files = _files(directory)
    for start in reversed(range(len(files))):
        paths, end = files[start:], None
        while paths:
            try:
                state, replayed = _fold(paths, end)
            except CorruptError as error:
                end = error.offset or None
                paths = paths[: paths.index(error.path) + (end is not None)]
                continue
            restate = len(paths) > 1
            _rearrange(directory, paths[-1], replayed, restate=restate)
            note = f"--init: went on from record {replayed.head.n}; what was wrong: {why}"
            return Recovered(state, replayed, restate, note)
    _rearrange(directory, None, Replayed(), restate=False)
    return Recovered(State(), Replayed(), restate=False, note=f"--init: started afresh: {why}")


def _files(directory: Path) -> list[Path]:
    """The segments in order; the newest only if it is newer than the others."""
    newest, older = directory / NEWEST, older_segments(directory)
    try:
        line = first_line(newest) if newest.exists() else None
    except ChainError:
        line = None
    if line is not None and line.n > max(older, default=0):
        return [*older.values(), newest]
    return list(older.values())


def _fold(paths: list[Path], end: int | None) -> tuple[State, Replayed]:
    """The state after these segments, of the last one only up to byte `end`."""
    state, head = state_before(paths[0])
    replayed = Replayed()
    for path in paths:
        replayed = replay(path, state, head, end=end if path == paths[-1] else None)
        head = replayed.head
    return state, replayed


def _rearrange(directory: Path, last: Path | None, replayed: Replayed, *, restate: bool) -> None:
    """Make `last` the newest segment; keep aside what is after it, and what is cut off it.

    With `restate` the state that it begins with is not good either.
    """
    newest = directory / NEWEST
    if last is not None and last.stat().st_size > replayed.offset:
        write_durably(aside(newest), last.read_bytes(), 0o600)
    surplus = [path for first, path in older_segments(directory).items() if first > replayed.first]
    good = replayed.first - restate
    surplus += [path for first, path in snapshots(directory).items() if first > good]
    if last is None:
        surplus += [*older_segments(directory).values(), *snapshots(directory).values()]
    if newest.exists() and last != newest:
        surplus.append(newest)
    for path in dict.fromkeys(surplus):
        target = aside(path)
        path.rename(target if not target.exists() else target.with_name(f"{target.name}-2"))
    if last is not None and last != newest:
        last.rename(newest)
    sync_directory(directory)
