"""The store's sockets: frames, bad peers, slow peers, guests' sockets, the program."""

from __future__ import annotations

import select
import signal
import socket
import struct
import subprocess
import sys

import pytest
from support.blocking import BlockingClient
from support.xenstoreds import start_store, wait_until

from broker.xenstore import wire
from broker.xenstore.errors import ConnectionLostError, NotFoundError

RUN = "import sys; from broker.xenstore.store.main import main; sys.exit(main())"
PROGRAM = [sys.executable, "-c", RUN]


@pytest.fixture
def daemon():
    daemon = start_store("embedded")
    yield daemon
    daemon.stop()


def frame(op, payload, request_id=1, tx=0):
    return struct.pack("<IIII", op, request_id, tx, len(payload)) + payload


def test_requests_cut_anywhere_are_answered_in_order(daemon):
    with BlockingClient(daemon.path) as client:
        data = b"".join(frame(wire.WRITE, b"/n/%d\0v" % n, n) for n in range(20))
        for start in range(0, len(data), 7):
            client.send(data[start : start + 7])
        assert [client.receive()[:2] for _ in range(20)] == [(wire.WRITE, n) for n in range(20)]


@pytest.mark.parametrize("length", [4097, 0xFFFFFFFF])
def test_a_malformed_frame_ends_its_connection_and_no_other(daemon, length):
    with BlockingClient(daemon.path) as good, BlockingClient(daemon.path) as bad:
        bad.send(frame(wire.WRITE, b"/n\0v") + struct.pack("<IIII", wire.WRITE, 2, 0, length))
        assert bad.receive()[0] == wire.WRITE
        with pytest.raises((ConnectionLostError, ConnectionResetError)):
            bad.receive()
        assert good.read("/n") == b"v"
    assert "malformed frame" in daemon.log_text()


def test_a_peer_that_leaves_in_mid_frame_and_with_all_open_leaves_nothing(daemon):
    with BlockingClient(daemon.path) as good:
        bad = BlockingClient(daemon.path)
        bad.watch("/", "t")
        bad.start()
        bad.send(b"\x02\0\0\0\x01")
        bad.close()
        good.write("/n", b"v")
        assert good.read("/n") == b"v"


def test_a_peer_that_never_reads_is_ended_and_harms_nobody(daemon):
    slow = BlockingClient(daemon.path)
    slow.watch("/", "t" * 1000)
    with BlockingClient(daemon.path) as writer:
        for number in range(12_000):
            writer.write(f"/n/{number % 11_000}", b"")
        assert writer.read("/n/0") == b""
        wait_until(lambda: "left unread" in daemon.log_text(), "the end of the slow peer")
    slow.close()


def test_requests_of_a_peer_that_never_reads_replies_are_held_back(daemon):
    with BlockingClient(daemon.path) as writer:
        writer.write("/big", b"x" * 4000)
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(daemon.path))
    peer.setblocking(False)
    request, sent = frame(wire.READ, b"/big\0"), 0
    while select.select([], [peer], [], 0.5)[1] and sent < 1 << 22:
        sent += peer.send(request * 100)
    assert sent < 1 << 22, "the store reads on although its replies are not read"
    with BlockingClient(daemon.path) as other:
        assert len(other.read("/big")) == 4000
    peer.close()


def test_a_guests_socket_speaks_as_that_domain_until_its_release(daemon):
    guest = daemon.guest(7)
    with BlockingClient(daemon.path) as dom0:
        client = BlockingClient(guest.path)
        client.write("x", b"1")
        assert dom0.get_perms("/local/domain/7/x") == ["n7"]
        dom0.release(7)
        with pytest.raises((ConnectionLostError, ConnectionResetError, BrokenPipeError)):
            client.read("x")
        client.close()
        wait_until(lambda: not guest.path.exists(), "the socket's removal")
        with pytest.raises(NotFoundError):
            dom0.read("/local/domain/7")


def start_program(path):
    process = subprocess.Popen([*PROGRAM, "--socket", str(path)], stderr=subprocess.PIPE, text=True)
    return process, process.stderr.readline() + process.stderr.readline()


def test_the_program_replaces_a_stale_socket_and_leaves_none(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    process, _ = start_program(path)
    wait_until(lambda: process.poll() is None and _answers(path), "an answer")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stderr.close()
    assert not path.exists()


def test_the_program_refuses_a_socket_in_use_a_file_and_a_long_path(tmp_path, daemon):
    (tmp_path / "file").write_text("precious")
    for path in (daemon.path, tmp_path / "file", tmp_path / ("x" * 120)):
        result = subprocess.run(
            [*PROGRAM, "--socket", str(path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert result.returncode == 3
        assert "cannot listen" in result.stderr
    assert (tmp_path / "file").read_text() == "precious"
    with BlockingClient(daemon.path) as client:
        assert "tool" in client.directory("/")


def _answers(path):
    try:
        with BlockingClient(path) as client:
            return "tool" in client.directory("/")
    except ConnectionRefusedError:
        return False
