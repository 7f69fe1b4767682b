"""docs/first-hour.md, followed to the letter: every command, and what it says it prints."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "first-hour.md"
BLOCK = re.compile(r"^```(bash|text)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
DEADLINE = 110
MARK = "@@ block {}"


@pytest.fixture
def directory():
    path = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def free_port():
    with socket.create_server(("localhost", 0)) as taken:
        return taken.getsockname()[1]


def blocks():
    """The command blocks, each with the lines that it is said to print."""
    found = []
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "bash":
            found.append((text, []))
        else:
            found[-1][1].extend(line.rstrip() for line in text.splitlines())
    return found


def test_the_first_hour_is_as_it_is_told(directory):
    told, port = blocks(), str(free_port())
    script = "set -eu\n" + "\n".join(
        f"echo '{MARK.format(number)}'\n{text}" for number, (text, _) in enumerate(told)
    )
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("XPB_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    # In a file, since what it prints comes from the background, too.
    with (directory / "printed").open("wb") as printed:
        shell = subprocess.Popen(
            ["/bin/bash", "-c", script.replace("7443", port)],
            cwd=directory, env=environment, stdout=printed, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(DEADLINE)
        finally:
            if shell.poll() is None or _has_members(shell.pid):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    output = (directory / "printed").read_text()
    assert code == 0, output
    parts = re.split(r"^@@ block \d+\n", output, flags=re.MULTILINE)[1:]
    assert len(parts) == len(told) >= 8
    for (text, lines), said in zip(told, parts, strict=True):
        for line in lines:
            assert line in said, f"{line!r} is not in what this printed:\n{text}\n{said}"


def _has_members(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
