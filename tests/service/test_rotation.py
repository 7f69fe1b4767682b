"""The audit log over many segments: found again, bounded, killed at every call, refused if bad."""

from __future__ import annotations

import errno
import os
import shutil

import msgspec
import pytest
from audit_box import POLICY, SMALL, UUID, Log, content, decided, names
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.chain import Head
from broker.audit.segments import older_segments, snapshot_name
from broker.core.filter_record import FilterRecord, ProfilesHead, sign_filter, sign_head
from broker.service import events
from broker.service.journal import Rotation
from broker.service.snapshot import SnapshotError, decode_snapshot, encode_snapshot
from broker.service.state import State
from broker.service.statedir import RefusedError, StateDir

CALLS = ("open", "write", "fsync", "fdatasync", "replace", "link", "unlink", "ftruncate")


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "s", init=True)


def again(log):
    log.close()
    return Log(log.path)


def test_a_state_over_many_segments_is_found_again_from_the_newest_alone(log):
    log.label("early")
    log.rotations(4)
    log.label("late")
    before = content(log.state)
    oldest = min(older_segments(log.path).values())
    oldest.write_bytes(b"not read\n")
    log = again(log)
    assert content(log.state) == before
    assert log.labels() == {"early", "late"}
    log.rotations()
    log.close()


def test_the_segments_kept_are_bounded_and_so_are_the_states(log):
    log.rotations(SMALL.keep + 3)
    assert len(names(log.path, "audit-*.jsonl")) == SMALL.keep
    assert len(names(log.path, "state-*.json")) == SMALL.keep + 1
    # A segment is closed by the first commit that makes it large enough.
    assert all(path.stat().st_size < SMALL.size + 2000 for path in log.path.glob("audit*"))
    assert not names(log.path, "*.new")
    log.close()


def filtered():
    """A line of each kind about filters."""
    key = Ed25519PrivateKey.generate()
    record = FilterRecord(
        seq=1, frontend=3, backend=0, device_class="vif", device="0", uuid=UUID, nonce="1" * 32
    )
    told = ProfilesHead(seq=2, digest=POLICY, bytes=1, chunks=1)
    yield events.FilterStored(1.0, "a", POLICY, None, "me")
    yield events.FilterAttached(1.0, "name", "web", "0", "a", {"IP": ("10.0.0.1",)}, "me")
    yield events.Filtered(1.0, "/broker/v1/filter/0/vif/3/0", sign_filter(record, key).decode())
    yield events.ProfilesTold(1.0, sign_head(told, key).decode())


def test_every_part_of_a_state_survives_a_snapshot():
    state = State()
    proposed = events.PolicyProposed(
        *(1.0, "5f0c9a12", "corp", "1.1", POLICY, None, "new.yaml", ("roles",)),
        *("ann", "governor", "ann", 9.0),
    )
    for line in (
        events.Started(1.0, "1"),
        events.LabelSet(1.0, "uuid", UUID, "a", "corp", "me", "admin"),
        events.LabelSet(1.0, "name", "caf\xe9", "b", None, "me"),
        events.Admitted(1.0, 3, UUID, "a"),
        events.Admitted(1.0, 2, None, None),
        events.PolicyLoaded(1.0, "corp", "1.0", POLICY, None, "me"),
        decided(4),
        decided(7, nonce="1" * 32, device="1"),
        decided(8, nonce="1" * 32, device="1", verdict="deny"),
        events.Beat(1.0, 31),
        events.Quarantined(1.0, UUID, 3, "why"),
        events.Sanctioned(1.0, decided(4).path, None, "close", "frontend", UUID, "why"),
        events.Damped(1.0, UUID, 2, 9.0),
        events.Observed(1.0, ("vif", "a", "b", None, "w"), "vif/3/0 -> 0"),
        events.Ordered(1.0, 5, UUID, "reset", "vif/3/0 -> 0", 3, UUID, "reset", "me"),
        proposed,
        *filtered(),
    ):
        state.apply(line)
    kept = msgspec.structs.asdict(state.filters.kept())
    assert all(kept.values()), "each part of what is durable of filters is tried here"
    empty = content(State())
    for name, value in content(state).items():
        assert value != empty[name], f"{name}: have snapshot.py keep it, and try it here"
    head = Head(10, b"a" * 64)
    read = decode_snapshot(encode_snapshot(state, head), head)
    assert content(read) == content(state)
    assert list(read.admissions) == [3, 2]
    for other in (Head(11, b"a" * 64), Head(10, b"b" * 64)):
        with pytest.raises(SnapshotError, match="as of line 10"):
            decode_snapshot(encode_snapshot(state, head), other)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"n":1}'])
def test_what_is_no_snapshot_is_refused(data):
    with pytest.raises(SnapshotError):
        decode_snapshot(data, Head())


def newest_snapshot(log):
    return log.path / snapshot_name(log.journal.first)


@pytest.mark.parametrize("how", ["lost", "corrupt", "older", "torn"])
def test_a_state_file_that_is_not_good_is_refused_and_made_again_with_init(log, how):
    log.label("early")
    log.rotations(2)
    log.label("late")
    log.close()
    before, kept = content(log.state), newest_snapshot(log)
    data = kept.read_bytes()
    older = log.path / names(log.path, "state-*.json")[-2]
    bad = {"corrupt": data.replace(b"early", b"earlx"), "torn": data[:-9]}
    if how == "lost":
        kept.unlink()
    else:
        kept.write_bytes(bad.get(how) or older.read_bytes())
    with pytest.raises(RefusedError, match=rf"{kept.name}.*--init"):
        StateDir(log.path, init=False)
    log = Log(log.path, init=True)
    assert content(log.state) == before
    log = again(log)
    assert content(log.state) == before
    log.close()


def test_with_every_state_file_lost_init_goes_on_from_a_log_that_is_whole(log):
    log.label("early")
    log.rotations(2)
    log.close()
    for path in log.path.glob("state-*.json"):
        path.unlink()
    log2 = Log(log.path, init=True)
    assert content(log2.state) == content(log.state)
    log2.close()


def test_with_all_lost_that_could_be_gone_on_from_init_starts_afresh_and_keeps_it_aside(log):
    log.rotations(SMALL.keep + 2)
    log.close()
    for path in log.path.glob("state-*.json"):
        path.unlink()
    log = Log(log.path, init=True)
    assert log.state.seq == 0
    assert log.journal.head.n == 1
    assert len(names(log.path, "audit*.corrupt-*")) == SMALL.keep + 1
    log.rotations(2)
    again(log).close()


@pytest.mark.parametrize("how", ["lost", "first line", "unchained"])
def test_a_newest_segment_that_is_gone_is_refused_and_init_goes_on_from_the_one_before(log, how):
    log.label("early")
    log.rotations(2)
    before = content(log.state)
    log.label("late")
    log.close()
    newest = log.path / "audit.jsonl"
    lines = newest.read_bytes().splitlines(keepends=True)
    if how == "lost":
        newest.unlink()
    elif how == "first line":
        newest.write_bytes(b"x" + b"".join(lines))
    else:
        newest.write_bytes(b"".join(lines).replace(b'"prev":"', b'"prev":"0', 1))
    with pytest.raises(RefusedError, match="--init"):
        StateDir(log.path, init=False)
    log = Log(log.path, init=True)
    assert content(log.state) == before
    log.rotations(2)
    assert again(log).labels() == {"early"}


def test_a_newest_segment_older_than_the_others_is_refused(log):
    log.rotations(2)
    old = (log.path / "audit.jsonl").read_bytes()
    log.rotations()
    before = content(log.state)
    log.close()
    (log.path / "audit.jsonl").write_bytes(old)
    with pytest.raises(RefusedError, match=r"audit\.jsonl is older than audit-0"):
        StateDir(log.path, init=False)
    log = Log(log.path, init=True)
    assert content(log.state) == before
    log.close()


def test_a_corrupt_line_of_an_older_segment_stops_no_start(log):
    log.rotations(2)
    log.close()
    oldest = min(older_segments(log.path).values())
    oldest.write_bytes(oldest.read_bytes().replace(b"why", b"why%"))
    Log(log.path).close()


def test_a_log_from_before_the_chain_says_what_it_is(tmp_path):
    Log(tmp_path, init=True).close()
    (tmp_path / "audit.jsonl").write_bytes(b'{"event":"started","t":1.0,"version":"1"}\n')
    with pytest.raises(RefusedError, match="before records were chained"):
        StateDir(tmp_path, init=False)


class Killed(BaseException):
    """The process ends here."""


class Fault:
    """Counts the calls that touch the disk, and lets one of them be the last, or fail."""

    def __init__(self, monkeypatch, at, how):
        self.calls = []
        self.at = at
        self.how = how
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name, real):
        def call(*args, **options):
            self.calls.append(name)
            if len(self.calls) == self.at:
                if name == "write" and self.how != "before":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                if self.how == "fails":
                    raise OSError(errno.ENOSPC, "No space left on device")
                raise Killed
            return real(*args, **options)

        return call


@pytest.fixture(scope="module")
def brink(tmp_path_factory):
    """A log whose next line rotates it, with one segment more than is kept after that."""
    path = tmp_path_factory.mktemp("brink") / "s"
    log = Log(path, init=True)
    log.label("early")
    log.rotations(SMALL.keep)
    while log.journal.offset < SMALL.size - 100:
        log.commit(events.Alarm(1.0, "x" * 60, "y"))
        assert log.journal.first > 1
    log.abandon()
    return path


def label_some(log, done):
    for number in range(4):
        name = f"n{number}"
        done += [name] if log.label(name) else []


def faulty(brink, path, monkeypatch, at, how):
    """Run onto the fault; the log, what was acknowledged, and whether it came so far."""
    shutil.copytree(brink, path)
    log, done = Log(path), ["early"]
    first = log.journal.first
    with monkeypatch.context() as patch:
        fault = Fault(patch, at, how)
        try:
            label_some(log, done)
        except Killed:
            log.abandon()
            return None, done, True
    assert log.journal.first > first
    return log, done, len(fault.calls) >= at


@pytest.mark.parametrize("how", ["before", "half"])
def test_a_kill_at_any_call_of_a_rotation_leaves_a_state_that_starts(
    brink, tmp_path, monkeypatch, how
):
    at, reached = 0, True
    while reached:
        at += 1
        path = tmp_path / str(at)
        log, done, reached = faulty(brink, path, monkeypatch, at, how)
        if log is not None:
            log.abandon()
        log = Log(path)
        assert log.labels() >= set(done), at
        assert len(log.labels()) <= len(done) + 1, at
        before = content(log.state)
        log = again(log)
        assert content(log.state) == before, at
        log.rotations(2)
        log.close()
        assert not names(path, "*.new"), at
        assert len(names(path, "audit-*.jsonl")) == SMALL.keep, at
        shutil.rmtree(path)
    assert at > 20


def test_a_call_that_fails_in_a_rotation_loses_nothing_and_stops_nothing_for_good(
    brink, tmp_path, monkeypatch
):
    at, reached, denied = 0, True, 0
    while reached:
        at += 1
        path = tmp_path / str(at)
        shutil.copytree(brink, path)
        log, done = Log(path), ["early"]
        with monkeypatch.context() as patch:
            fault = Fault(patch, at, "fails")
            label_some(log, done)
            reached = len(fault.calls) >= at
        denied += len(done) < 5
        log.label("after")
        assert not log.audit.broken
        assert log.labels() == {*done, "after"}
        before = content(log.state)
        log.abandon()
        log = Log(path)
        assert content(log.state) == before, at
        log.rotations()
        assert log.audit.unrotated is None
        log.close()
        shutil.rmtree(path)
    assert at > 20
    assert denied


def test_a_log_that_cannot_be_rotated_goes_on_and_says_so(log, monkeypatch):
    log.rotations()
    first = log.journal.first

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    while not log.audit.unrotated:
        log.decide()
    tries = []
    monkeypatch.setattr(os, "link", lambda *_: tries.append(1) or refuse())
    log.decide(16)
    assert len(tries) < 16
    assert log.journal.first == first
    assert "cannot be rotated" in log.audit.last_error[1]
    assert not names(log.path, "*.new")
    assert len(names(log.path, "audit-*.jsonl")) == 1
    monkeypatch.undo()
    log.rotations()
    assert log.audit.unrotated is None
    assert b"cannot be rotated" in max(older_segments(log.path).values()).read_bytes()
    log.close()


def test_a_stop_signs_the_end_and_a_second_one_has_nothing_to_sign(log):
    log.label("x")
    log.close()
    data = (log.path / "audit.jsonl").read_bytes()
    assert b'"event":"checkpoint"' in data.splitlines()[-1]
    Log(log.path).close()
    assert (log.path / "audit.jsonl").read_bytes() == data


def test_a_larger_size_takes_effect_at_a_restart(log):
    log.rotations()
    log.close()
    log = Log(log.path, rotation=Rotation(size=20_000, keep=3))
    log.decide(12)
    assert len(names(log.path, "audit-*.jsonl")) == 1
    log.close()
