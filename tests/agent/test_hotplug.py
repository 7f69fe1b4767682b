"""The real scripts, executed as xl does, against a running agent and without one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import pytest_twisted
from bed import Bed, start_agent, until
from support.xenstoreds import start_store
from twisted.internet import defer, reactor, threads

from broker.agent import hotplug
from broker.agent.hotplug import HotplugService, listen

SCRIPTS = Path(__file__).parents[2] / "etc" / "xen" / "scripts"
VIF, VBD = "vif/0", "vbd/51712"


class Host(Bed):
    """A store, an agent with its hotplug socket, and xl's way to call a script."""

    def __init__(self, daemon, directory):
        super().__init__(daemon)
        self.directory = directory
        self.socket = directory / "agent.sock"
        self.port = None

    def start(self, *, strict=False):
        self.start_beating()
        self.agent = start_agent(self.daemon.address, self.directory / "state")
        self.port = listen(HotplugService(self.agent, 0, strict=strict), self.socket, reactor)

    async def stop(self):
        await self.agent.stop()
        await defer.maybeDeferred(self.port.stopListening)

    def run(self, script, *arguments, path="backend/vif/3/0"):
        """A Deferred of (exit status, stderr)."""
        environment = {
            "PATH": os.environ["PATH"],
            "XENBUS_PATH": path,
            "XPB_AGENT_SOCKET": str(self.socket),
        }
        return threads.deferToThread(_run, [str(SCRIPTS / script), *arguments], environment)


def _run(command, environment):
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    return ran.returncode, ran.stderr


@pytest_twisted.async_yield_fixture
async def host(tmp_path):
    daemon = start_store("C")
    made = Host(daemon, tmp_path)
    yield made
    if made.port is not None:
        await made.stop()
    made.close()
    daemon.stop()


@pytest_twisted.ensureDeferred
async def test_a_script_ends_well_once_the_device_is_open(host):
    host.start()
    for slot, script, action, path in (
        (VIF, "vif-broker", "online", "backend/vif/3/0"),
        (VBD, "block-broker", "add", "/local/domain/0/backend/vbd/3/51712"),
    ):
        host.attach(slot)
        running = host.run(script, action, path=path)
        await host.nonce(slot)
        host.decide(slot)
        status, said = await running
        assert (status, "broker-agent: open" in said) == (0, True)
        assert host.gate(slot)


@pytest_twisted.ensureDeferred
async def test_a_refused_device_is_left_closed_and_the_script_ends_well(host):
    host.start()
    host.attach(VIF)
    running = host.run("vif-broker", "online", "type_if=vif")
    await host.nonce(VIF)
    host.decide(VIF, "deny", reason="no shared type \x1b[31m")
    status, said = await running
    assert status == 0
    assert "closed" in said
    assert "no shared type" in said
    assert "\x1b" not in said
    assert not host.gate(VIF)


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_fatal_only_in_strict_mode(host):
    host.start(strict=True)
    host.attach(VIF)
    running = host.run("vif-broker", "online")
    await host.nonce(VIF)
    host.decide(VIF, "deny")
    assert (await running)[0] == 1
    host.decide(VIF)
    await host.comes_to(VIF, "open")
    assert (await host.run("vif-broker", "online"))[0] == 0


@pytest_twisted.ensureDeferred
async def test_an_older_lifes_refusal_is_not_fatal(host, monkeypatch):
    monkeypatch.setattr(hotplug, "WAIT", 0.5)
    host.start(strict=True)
    host.attach(VIF)
    first = await host.nonce(VIF)
    host.decide(VIF, "deny")
    host.attach(VIF)
    await host.nonce(VIF, other_than=first)
    status, said = await host.run("vif-broker", "online")
    assert (status, "no answer yet" in said) == (0, True)


@pytest_twisted.ensureDeferred
async def test_without_an_answer_it_waits_five_seconds(host):
    host.start(strict=True)
    host.attach(VIF)
    began = time.monotonic()
    status, said = await host.run("vif-broker", "online")
    assert status == 0
    assert "no answer yet" in said
    assert 4.0 < time.monotonic() - began < 60
    assert not host.gate(VIF)


@pytest.mark.parametrize("script", ["vif-broker", "vif-broker-route", "block-broker"])
@pytest_twisted.ensureDeferred
async def test_without_an_agent_it_ends_well_at_once(host, script):
    status, said = await host.run(script, "online")
    assert (status, "no answer" in said) == (0, True)


@pytest.mark.parametrize(
    "reply", [b"", b"garbage\n", b"[]\n", b'{"exit": 1}\n', b'{"state": "\xff"}\n', b"1" * 70000]
)
@pytest_twisted.ensureDeferred
async def test_a_reply_that_is_none_ends_well(host, reply):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(host.socket))
    listener.listen(1)
    running = host.run("vif-broker", "online")
    connection, _ = await threads.deferToThread(listener.accept)
    connection.sendall(reply)
    connection.close()
    assert (await running)[0] == 0
    listener.close()


@pytest_twisted.ensureDeferred
async def test_an_answer_a_byte_at_a_time_gets_no_more_than_five_seconds(host):
    def dribble(listener):
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            peer.settimeout(0.25)
            for _ in range(80):
                peer.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    peer.recv(4096)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.socket))
        listener.listen()
        answering = threads.deferToThread(dribble, listener)
        began = time.monotonic()
        status, said = await host.run("vif-broker", "online")
        took = time.monotonic() - began
        await answering
    assert (status, "no answer" in said) == (0, True)
    assert took < 60


@pytest_twisted.ensureDeferred
async def test_a_handover_that_is_missing_ends_well(host, tmp_path):
    for name in ("vif-broker", "vif-broker-route", "block-broker"):
        lonely = tmp_path / name
        lonely.write_bytes((SCRIPTS / name).read_bytes())
        lonely.chmod(0o755)
        ran = await threads.deferToThread(subprocess.run, [str(lonely), "online"], timeout=20)
        assert ran.returncode == 0


@pytest_twisted.ensureDeferred
async def test_taking_a_device_away_releases_it(host):
    host.start()
    host.attach(VBD)
    await host.nonce(VBD)
    status, said = await host.run("block-broker", "remove", path="backend/vbd/3/51712")
    assert (status, "released" in said) == (0, True)
    status, said = await host.run("vif-broker", "offline", "type_if=vif", path="backend/vif/9/0")
    assert (status, "released" in said) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["online"], "backend/vif/3"),
        (["online"], "backend/vif/3/0/x"),
        (["online"], "../0/backend/vif/3/0"),
        (["online"], "/local/domain/7/backend/vif/3/0"),
        (["online"], ""),
        (["online"], "backend/vif/3/0\n"),
        (["frobnicate"], "backend/vif/3/0"),
        ([], "backend/vif/3/0"),
        (["add", "type_if=tap"], "backend/vif/3/0"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_names_no_device_of_ours_is_answered_and_opens_nothing(host, arguments, path):
    host.start()
    status, said = await host.run("vif-broker", *arguments, path=path)
    assert (status, "broker-agent: closed" in said) == (0, True)


@pytest_twisted.ensureDeferred
async def test_garbage_on_the_socket_is_survived(host):
    host.start()
    for line in (b"\n", b"{}\n", b"\xff\xfe\n", b'{"action": 1}\n', b"x" * 5000 + b"\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(host.socket))
            client.settimeout(5)
            client.sendall(line)
            reply = await threads.deferToThread(client.recv, 4096)
            assert reply == b"" or json.loads(reply)["state"] == "closed"
    host.attach(VIF)
    await host.nonce(VIF)


@pytest.mark.root
@pytest_twisted.ensureDeferred
async def test_the_socket_is_roots_alone(host):
    host.start()
    assert host.socket.stat().st_mode & 0o777 == 0o600
    host.socket.chmod(0o777)
    for parent in (host.socket.parent, *host.socket.parents):
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    code = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        "try:\n"
        '    s.sendall(b\'{"action": "online", "path": "backend/vif/3/0"}\\n\')\n'
        "    got = s.recv(100)\n"
        "except ConnectionError:\n"
        "    got = b''\n"
        "sys.exit(1 if got else 0)\n"
    )
    ran = await threads.deferToThread(
        subprocess.run,
        ["/usr/bin/python3", "-c", code, str(host.socket)],
        timeout=20,
        stderr=subprocess.PIPE,
    )
    assert ran.returncode == 0, ran.stderr


@pytest_twisted.ensureDeferred
async def test_a_script_that_gives_up_leaves_nothing_waiting(host):
    host.start()
    host.attach(VIF)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.socket))
        client.sendall(b'{"action": "online", "path": "backend/vif/3/0"}\n')
        await host.nonce(VIF)
    host.decide(VIF)
    await host.comes_to(VIF, "open")
    await until(lambda: not host.agent._waiting)
