"""docs/policy.md: its files are written, its commands run, and they print what is printed there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker.policy.form import PolicyForm

DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (\S+)")


def blocks():
    return BLOCK.findall(DOCUMENT.read_text())


def sessions():
    """Each console block: its commands, each with what is printed after it."""
    for kind, _, text in blocks():
        if kind != "console":
            continue
        session = []
        for line in text.splitlines():
            if line.startswith("$ "):
                session.append(([line[2:]], []))
            elif line.startswith("> ") and not session[-1][1]:
                session[-1][0].append(line[2:])
            else:
                session[-1][1].append(line)
        yield [("\n".join(command), "\n".join(output)) for command, output in session]


@pytest.fixture
def shell(tmp_path):
    for _, name, text in blocks():
        first_line = FILE.match(text)
        if name or first_line:
            (tmp_path / (name or first_line[1])).write_text(text)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(command):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={"PATH": path, "COLUMNS": "80", "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.rstrip("\n")

    return run


def test_the_example_runs_as_printed(shell):
    assert sum(map(len, sessions())) > 12
    for session in sessions():
        for command, printed in session:
            assert (command, shell(command)) == (command, printed)


def test_every_key_of_the_language_is_in_the_table():
    text = DOCUMENT.read_text()
    for name in PolicyForm.__struct_fields__:
        if name not in ("line", "column", "partial"):
            key = "from" if name == "replaces" else name
            assert f"\n| `{key}` |" in text, key


def test_no_line_is_longer_than_a_terminal_is_wide():
    prose = BLOCK.sub("", DOCUMENT.read_text())
    assert max(len(line) for line in prose.splitlines()) <= 110
