"""Programs that know nothing of this project run on the embedded store."""

from __future__ import annotations

import subprocess

import pytest
from pyxs import Client
from support.xenstoreds import XEN, start_store


@pytest.fixture
def daemon():
    daemon = start_store("embedded")
    yield daemon
    daemon.stop()


def test_xens_own_test_program_passes(daemon):
    result = subprocess.run(
        [XEN / "test-xenstore", "--iterations", "20"],
        env={"XENSTORED_PATH": str(daemon.path)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ta err" in result.stdout


def test_pyxs_client_reads_writes_lists_and_removes(daemon):
    with Client(unix_socket_path=str(daemon.path)) as client:
        client.write(b"/pyxs/a", b"1")
        assert client.read(b"/pyxs/a") == b"1"
        assert client.read(b"/pyxs/none", b"default") == b"default"
        assert client.list(b"/pyxs") == [b"a"]
        client.mkdir(b"/pyxs/b")
        client.set_perms(b"/pyxs/b", [b"n0", b"r5"])
        assert client.get_perms(b"/pyxs/b") == [b"n0", b"r5"]
        assert client.exists(b"/pyxs/b")
        client.delete(b"/pyxs")
        assert not client.exists(b"/pyxs")


def test_pyxs_client_commits_rolls_back_and_meets_conflicts(daemon):
    with Client(unix_socket_path=str(daemon.path)) as client:
        client.transaction()
        client.write(b"/t", b"1")
        assert client.commit()
        client.transaction()
        client.write(b"/t", b"2")
        client.rollback()
        assert client.read(b"/t") == b"1"
    with (
        Client(unix_socket_path=str(daemon.path)) as one,
        Client(unix_socket_path=str(daemon.path)) as two,
    ):
        one.transaction()
        one.write(b"/t", one.read(b"/t") + b"0")
        two.write(b"/t", b"3")
        assert not one.commit()
        assert two.read(b"/t") == b"3"


def test_pyxs_client_introduces_a_domain(daemon):
    with Client(unix_socket_path=str(daemon.path)) as client:
        assert client.get_domain_path(5) == b"/local/domain/5"
        client.introduce_domain(5, 1, 1)
        assert client.is_domain_introduced(5)
        assert not client.is_domain_introduced(6)


def test_pyxs_monitor_gets_events(daemon):
    with Client(unix_socket_path=str(daemon.path)) as client:
        monitor = client.monitor()
        monitor.watch(b"/m", b"token")
        events = monitor.wait()
        assert next(events) == (b"/m", b"token")
        client.write(b"/m/x", b"1")
        assert next(events) == (b"/m/x", b"token")
        monitor.unwatch(b"/m", b"token")
