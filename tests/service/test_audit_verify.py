"""`brokerctl audit verify` on what a broker's journal wrote."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time

import pytest
from audit_box import SMALL, Log, names

from broker.audit.segments import older_segments
from broker.cli.main import main
from broker.service.statedir import StateDir


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path / "s", init=True)
    log.rotations(2)
    return log


def verified(capsys, path, *options):
    code = main(["audit", "verify", "--json", str(path), *map(str, options)])
    return code, json.loads(capsys.readouterr().out)


def anchor(log, path):
    path.write_bytes(log.audit.checkpoint("anna", "auditor"))
    return path


def test_a_log_stopped_cleanly_is_whole_and_signed_to_its_end(log, capsys):
    log.close()
    code, told = verified(capsys, log.path)
    assert code == 0
    assert told["good"]
    assert (told["first"], told["last"]) == (1, log.journal.head.n)
    assert (told["files"], told["unsigned"], told["problems"]) == (3, 0, [])


def test_a_log_whose_oldest_segments_were_dropped_is_whole(log, capsys):
    log.rotations(SMALL.keep)
    code, told = verified(capsys, log.path)
    assert code == 0
    assert told["first"] > 1
    assert told["files"] == SMALL.keep + 1
    log.close()


def test_where_a_log_was_changed_is_said_by_file_and_line(log, capsys):
    log.close()
    oldest = min(older_segments(log.path).values())
    lines = oldest.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"grant", b"deny ")
    oldest.write_bytes(b"".join(lines))
    code, told = verified(capsys, log.path)
    assert code == 1
    assert [(it["file"], it["line"]) for it in told["problems"]] == [(str(oldest), 3)]
    assert main(["audit", "verify", str(log.path)]) == 1
    shown = capsys.readouterr()
    assert f"{oldest}:3:1: record 3 was changed" in shown.err
    assert "not whole" in shown.out


def test_a_cut_end_is_found_with_an_anchor_and_a_torn_one_without(log, tmp_path, capsys):
    saw = anchor(log, tmp_path / "anchor")
    log.close()
    newest = log.path / "audit.jsonl"
    lines = newest.read_bytes().splitlines(keepends=True)
    newest.write_bytes(b"".join(lines[:-1]))
    assert verified(capsys, log.path)[0] == 0
    code, told = verified(capsys, log.path, "--anchor", saw)
    assert code == 1
    assert "its end was cut off" in told["problems"][0]["message"]
    newest.write_bytes(b"".join(lines)[:-20])
    code, told = verified(capsys, log.path)
    assert code == 1
    assert "torn" in told["problems"][0]["message"]
    newest.write_bytes(b"".join(lines))
    code, told = verified(capsys, log.path, "--anchor", saw)
    assert (code, told["anchors"]) == (0, 1)


def test_anchors_all_from_before_the_oldest_record_verify_nothing(log, tmp_path, capsys):
    saw = anchor(log, tmp_path / "anchors")
    log.rotations(SMALL.keep + 1)
    code, told = verified(capsys, log.path, "--anchor", saw)
    assert code == 1
    assert "take a newer one" in told["problems"][0]["message"]
    newer = anchor(log, tmp_path / "newer")
    code, told = verified(capsys, log.path, "--anchor", saw, "--anchor", newer)
    assert code == 0
    assert told["anchors_too_old"] == [f"{saw}:1"]
    log.close()


def test_a_lost_newest_segment_is_found(log, capsys):
    log.close()
    (log.path / "audit.jsonl").unlink()
    code, told = verified(capsys, log.path)
    assert code == 1
    assert "newest segment" in told["problems"][-1]["message"]


def test_a_state_that_is_not_the_one_named_is_found_and_one_that_is_not_there_is_not(log, capsys):
    log.close()
    kept = log.path / names(log.path, "state-*")[-1]
    kept.write_bytes(kept.read_bytes() + b" ")
    code, told = verified(capsys, log.path)
    assert code == 1
    assert kept.name in told["problems"][0]["message"]
    assert told["problems"][0]["line"] == 1
    kept.unlink()
    assert verified(capsys, log.path)[0] == 0


def test_a_rotation_cut_short_between_its_names_is_whole(log, capsys):
    log.close()
    os.link(log.path / "audit.jsonl", log.path / f"audit-{log.journal.first:012d}.jsonl")
    code, told = verified(capsys, log.path)
    assert (code, told["files"]) == (0, 3)


def test_a_log_goes_on_whole_after_init_saved_what_could_be_read(log, capsys):
    log.close()
    newest = log.path / "audit.jsonl"
    newest.write_bytes(newest.read_bytes() + b"garbage\n")
    log = Log(log.path, init=True)
    log.label("x")
    log.close()
    assert verified(capsys, log.path)[0] == 0


def test_a_key_made_anew_needs_the_former_one_to_verify_what_that_signed(log, capsys):
    log.close()
    (log.path / "broker.key").write_bytes(b"garbage")
    StateDir(log.path, init=True).close()
    log = Log(log.path)
    log.rotations()
    log.close()
    code, told = verified(capsys, log.path)
    assert code == 1
    assert "--key" in told["problems"][0]["message"]
    former = log.path / names(log.path, "broker.pub.*")[0]
    assert verified(capsys, log.path, "--key", former, "--key", log.path / "broker.pub")[0] == 0


@pytest.mark.parametrize(
    ("gone", "said"),
    [("audit*.jsonl", "no audit log"), ("broker.pub", "--key"), ("*", "--key")],
)
def test_what_is_needed_and_missing_is_bad_input(log, capsys, gone, said):
    log.close()
    for path in log.path.glob(gone):
        path.unlink()
    assert main(["audit", "verify", str(log.path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("data", [None, b"", b"{}\n"])
def test_what_is_no_anchor_is_bad_input(log, tmp_path, capsys, data):
    log.close()
    path = tmp_path / "anchor"
    if data is not None:
        path.write_bytes(data)
    assert main(["audit", "verify", str(log.path), "--anchor", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_what_is_no_key_is_bad_input(log, capsys):
    log.close()
    shutil.copy(log.path / "broker.key", log.path / "broker.pub")
    assert main(["audit", "verify", str(log.path)]) == 2
    assert "no Ed25519 public key" in capsys.readouterr().err


def test_a_log_that_is_being_written_and_rotated_is_whole_at_any_time(log, capsys):
    stop = threading.Event()

    def write():
        while not stop.is_set():
            log.decide()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        first, end = log.journal.first, time.monotonic() + 20
        while log.journal.first == first and time.monotonic() < end:
            code, told = verified(capsys, log.path)
            assert code == 0, told["problems"]
    finally:
        stop.set()
        writing.join()
    log.close()
