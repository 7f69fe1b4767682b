"""The journal and the state directory: torn, corrupt, missing, locked, killed at any byte."""

from __future__ import annotations

import errno
import os

import msgspec
import pytest
from audit_box import KEY, UUID, decided

from broker.audit.chain import Head
from broker.service import events
from broker.service.journal import Journal, JournalError, Rotation
from broker.service.replay import CorruptError, Replayed, replay
from broker.service.state import Admission, State
from broker.service.statedir import RefusedError, StateDir

LINES = [
    events.Started(1.0, "1"),
    events.LabelSet(1.0, "uuid", UUID, "a", "corp", "me"),
    events.Admitted(1.0, 3, UUID, "a"),
    decided(1),
    decided(2, nonce="1" * 32),
    events.Beat(1.0, 31),
]


def opened(path, replayed=None):
    return Journal(path, replayed or Replayed(), KEY, Rotation())


def written(path, lines=LINES):
    """A log of these lines, with a checkpoint at its end."""
    path.unlink(missing_ok=True)
    journal = opened(path)
    journal.commit(lines)
    journal.close()
    return path.read_bytes()


def state_of(path):
    state = State()
    return state, replay(path, state, Head())


def test_what_was_committed_is_found_again(tmp_path):
    written(tmp_path / "j")
    state, replayed = state_of(tmp_path / "j")
    assert (replayed.head.n, replayed.signed) == (len(LINES) + 1, len(LINES) + 1)
    assert (state.seq, state.beat) == (2, 31)
    assert state.label_of(UUID, None) == "a"
    assert state.admissions == {3: Admission(UUID, "a")}
    assert [entry.seq for entry in state.ledger.values()] == [2]


def test_a_kill_at_any_byte_of_the_last_batch_loses_only_what_was_never_acted_on(tmp_path):
    path = tmp_path / "j"
    whole = written(path, LINES)
    first = b"".join(whole.splitlines(keepends=True)[:4])
    for length in range(len(first), len(whole) + 1):
        path.write_bytes(whole[:length])
        state, replayed = state_of(path)
        assert state.seq >= 1
        journal = opened(path, replayed)
        journal.commit([events.Stopped(1.0)])
        journal.close()
        again, _ = state_of(path)
        assert (again.seq, again.beat) == (state.seq, state.beat)


def test_a_line_that_does_not_read_is_corrupt_wherever_it_stands(tmp_path):
    path = tmp_path / "j"
    whole = written(path)
    lines = whole.splitlines(keepends=True)
    for index, bad in [(0, b"\0\n"), (3, b"{}\n"), (4, b'{"event":"nosuch","t":1.0}\n')]:
        path.write_bytes(b"".join([*lines[:index], bad, *lines[index + 1 :]]))
        with pytest.raises(CorruptError, match=rf"j:{index + 1} ") as caught:
            state_of(path)
        assert caught.value.offset == sum(map(len, lines[:index]))


@pytest.mark.parametrize(
    "lines",
    [
        [decided(2), decided(2, device="1")],
        [decided(2), decided(1)],
        [msgspec.structs.replace(decided(2), path="/broker/v1/decision/0/vif/4/0")],
        [msgspec.structs.replace(decided(2), text="grant")],
    ],
)
def test_decisions_that_cannot_follow_one_another_are_corrupt(tmp_path, lines):
    written(tmp_path / "j", lines)
    with pytest.raises(CorruptError):
        state_of(tmp_path / "j")


def test_a_nonce_serves_one_life_on_one_path(tmp_path):
    written(tmp_path / "j")
    state, _ = state_of(tmp_path / "j")
    path = decided(1).path
    assert state.spent_on("1" * 32, path, UUID) == ""
    assert state.spent_on("2" * 32, path, UUID) == ""
    assert "earlier life" in state.spent_on("0" * 32, path, UUID)
    assert "earlier life" in state.spent_on("1" * 32, path, UUID.replace("3", "4"))
    assert path in state.spent_on("1" * 32, path.replace("/3/", "/4/"), UUID)


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_a_failed_write_leaves_the_journal_as_it_was(tmp_path, monkeypatch, failing):
    path = tmp_path / "j"
    before = written(path)
    journal = opened(path, state_of(path)[1])
    real = os.write

    def fail(file, data=b""):
        if data:
            real(file, bytes(data)[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    for _ in range(2):
        with pytest.raises(JournalError, match="No space left"):
            journal.commit([events.Stopped(1.0)])
    assert journal.error
    assert path.read_bytes() == before
    monkeypatch.undo()
    journal.commit([events.Stopped(1.0)])
    journal.close()
    assert journal.error is None
    assert state_of(path)[1].head.n == len(LINES) + 3


def made(path):
    statedir = StateDir(path, init=True)
    statedir.journal.commit(LINES)
    statedir.close()


def test_a_missing_state_is_refused_without_init(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(RefusedError, match="--init"):
            StateDir(path, init=False)


@pytest.mark.parametrize("name", ["audit.jsonl", "broker.key"])
def test_a_state_that_lacks_a_file_is_refused_without_init(tmp_path, name):
    made(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(RefusedError, match=name):
        StateDir(tmp_path, init=False)
    StateDir(tmp_path, init=True).close()


@pytest.mark.parametrize("name", ["audit.jsonl", "broker.key"])
@pytest.mark.parametrize("data", [b"", b"garbage\n", b"\0" * 100])
def test_a_state_with_a_corrupt_file_is_refused_without_init(tmp_path, name, data):
    made(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RefusedError, match=name):
        StateDir(tmp_path, init=False)
    StateDir(tmp_path, init=True).close()


def test_init_goes_on_from_before_the_corrupt_line_and_keeps_the_file(tmp_path):
    made(tmp_path)
    journal = tmp_path / "audit.jsonl"
    journal.write_bytes(journal.read_bytes() + b"garbage\n")
    statedir = StateDir(tmp_path, init=True)
    assert statedir.state.seq == 2
    assert list(tmp_path.glob("audit.jsonl.corrupt-*"))
    statedir.close()


def test_init_on_a_good_state_changes_nothing(tmp_path):
    made(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    StateDir(tmp_path, init=True).close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_brokers_never_share_a_state(tmp_path):
    made(tmp_path)
    first = StateDir(tmp_path, init=False)
    with pytest.raises(RefusedError, match="another broker"):
        StateDir(tmp_path, init=False)
    first.close()
    StateDir(tmp_path, init=False).close()


def test_the_key_is_for_root_alone(tmp_path):
    made(tmp_path)
    assert (tmp_path / "broker.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
