"""A process that writes and rotates the audit log, killed again and again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from audit_box import SMALL, Log, names

from broker.audit.directory import read_key, verify_directory

ROUNDS = 6
WRITER = """
import sys
from pathlib import Path
from audit_box import Log
log = Log(Path(sys.argv[1]))
number = len(log.labels())
while True:
    assert log.label(f"n{number}")
    print(number, flush=True)
    number += 1
    log.decide()
"""


def test_a_process_killed_while_it_writes_and_rotates_loses_nothing_it_said_was_written(tmp_path):
    path = tmp_path / "s"
    Log(path, init=True).close()
    keys = [read_key(path / "broker.pub")]
    last = -1
    for killed_after in range(5, 5 + ROUNDS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent,
        )
        for _ in range(killed_after * 3):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read().split()
        writer.wait()
        last = int(said[-1]) if said else last
        log = Log(path)
        assert {f"n{number}" for number in range(last + 1)} <= log.labels()
        assert len(log.labels()) <= last + 2
        log.close()
        report = verify_directory(path, keys)
        assert report.good, report.problems
    assert len(names(path, "audit-*.jsonl")) == SMALL.keep
