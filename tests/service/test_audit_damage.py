"""Any one file of the audit log damaged: refused with words, or started; `--init` always starts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from audit_box import Log, content
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.service.statedir import RefusedError, StateDir


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A log of four segments, and its state."""
    path = tmp_path_factory.mktemp("whole") / "s"
    log = Log(path, init=True)
    log.label("early")
    log.rotations(3)
    log.label("late")
    log.close()
    return path, content(log.state)


def damage(path, which, how, at):
    """Damage one file of the log, or exchange it for another; whether that changed anything."""
    files = sorted([*path.glob("audit*.jsonl"), *path.glob("state-*.json")])
    file, other = files[which % len(files)], files[at % len(files)]
    data = file.read_bytes()
    at %= len(data)
    damaged = {
        "lost": None,
        "empty": b"",
        "cut": data[:at],
        "flipped": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        "longer": data + b"\0" * at,
        "other": other.read_bytes(),
    }[how]
    if damaged is None:
        file.unlink()
    else:
        file.write_bytes(damaged)
    return file


HOW = ["lost", "empty", "cut", "flipped", "longer", "other"]


@given(st.integers(0, 6), st.sampled_from(HOW), st.integers(0, 20_000))
@example(3, "lost", 0)
@example(3, "empty", 0)
@example(3, "other", 0)
@example(6, "lost", 0)
@settings(max_examples=60, deadline=None)
def test_whatever_happened_to_one_file_no_other_state_is_taken_for_the_right_one(
    whole, which, how, at
):
    source, right = whole
    path = Path(tempfile.mkdtemp(prefix="xs-")) / "s"
    try:
        shutil.copytree(source, path)
        file = damage(path, which, how, at)
        try:
            statedir = StateDir(path, init=False)
        except RefusedError as error:
            assert "--init" in str(error)
        else:
            # A cut at a line's end is seen by what is published (freshness), not here.
            cut = how == "cut" and file.name == "audit.jsonl"
            assert cut or content(statedir.state) == right
            statedir.close()
        log = Log(path, init=True)
        log.label("after")
        log.rotations(2)
        before = content(log.state)
        log.close()
        log = Log(path)
        assert content(log.state) == before
        log.close()
    finally:
        shutil.rmtree(path.parent)
