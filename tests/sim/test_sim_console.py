"""`make demo-console`: it comes about, says how to get in, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

DEADLINE = 90


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def demo():
    """The demo, as it is started by make, and where its children are to be found."""
    words = ("-m", "broker.sim.console", "--domains", "5", "--port", str(free_port()))
    process = subprocess.Popen(
        # A shell has its background jobs ignore that signal, and children inherit it.
        ["env", "--default-signal=INT", sys.executable, "-u", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()


def children(session):
    """The processes of a session, by what the kernel says of them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_says_how_to_get_in_and_leaves_nothing_when_it_is_ended(demo, how):
    said = []
    for line in demo.stdout:
        said.append(line)
        if "Interrupt this" in line:
            break
    text = "".join(said)
    assert re.search(r"The console is at https://localhost:\d+/\n", text), text
    [authority] = re.findall(r"trust the authority (/\S+/pki/ca\.crt)", text)
    people = re.findall(r"  (/\S+\.p12): role (\w+), password (\S+)\n", text)
    assert [role for _, role, _ in people] == ["officer", "watcher", "red_team", "deployer"]
    assert all(Path(file).exists() for file in (authority, *(file for file, _, _ in people)))
    demo.send_signal(how)
    demo.communicate(timeout=DEADLINE)
    assert not Path(authority).parents[1].exists()
    assert children(demo.pid) == []
