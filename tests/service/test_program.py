"""brokerd as a program: exit codes, messages, kills, the embedded store, the RPC."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from broker_host import POLICY, SPECS, Host, uuid_of
from support.blocking import BlockingClient
from support.xenstoreds import start_store, wait_until

from broker.xenstore import paths

BIN = Path(sys.executable).parent


class Program:
    """A directory with a configuration, and brokerd run on it."""

    def __init__(self, directory, store):
        self.directory = directory
        self.store = store
        self.process = None
        (directory / "policy.yaml").write_text(POLICY)
        (directory / "broker.yaml").write_text(
            f"policy: policy.yaml\nstate: state\nspecs: {SPECS}\nrpc: {{socket: rpc.sock}}\n"
        )

    def command(self, *options):
        store = ["--store", self.store]
        return [BIN / "brokerd", "--config", self.directory / "broker.yaml", *store, *options]

    def start(self, *options):
        self.log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(self.command(*options), stderr=self.log)

    def run(self, *options):
        return subprocess.run(
            self.command(*options), capture_output=True, text=True, timeout=20, check=False
        )

    def ctl(self, *arguments):
        socket = self.directory / "rpc.sock"
        return subprocess.run(
            [BIN / "brokerctl", "--socket", socket, *arguments],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    def stop(self, number=signal.SIGTERM):
        if self.process is not None:
            self.process.send_signal(number)
            code = self.process.wait(20)
            self.process = None
            self.log.close()
            return code
        return None


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="xb-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def program(directory):
    daemon = start_store("embedded")
    program = Program(directory, daemon.address)
    program.host = Host(daemon)
    yield program
    program.stop(signal.SIGKILL)
    program.host.close()
    daemon.stop()


def enforcing(host):
    wait_until(lambda: host.read(paths.STATE) == b"enforcing", "enforcing")


def test_a_first_start_without_init_is_refused_with_what_to_do(program):
    result = program.run()
    assert result.returncode == 1
    assert "refused to start" in result.stderr
    assert "--init" in result.stderr


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("broker.yaml", "nosuch: 1\n", "broker.yaml:1:1: "),
        ("broker.yaml", "store: nowhere\n", "nowhere"),
        ("policy.yaml", "policy: [\n", "policy.yaml:"),
    ],
)
def test_bad_input_is_refused_at_its_place(program, file, text, said):
    (program.directory / file).write_text(text)
    program.store = program.store if file != "broker.yaml" else "xenbus"
    command = program.command("--init")
    if "store" in text:
        command = [*command[:3], "--init"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2
    assert said in result.stderr


def test_the_program_serves_tls_to_certificates_and_warns_of_what_is_wrong(program):
    pki = program.directory / "pki"
    where = ["--dir", str(pki)]
    for words in (["init"], ["issue", "alice", "--role", "officer"]):
        assert program.ctl("pki", *words, *where).returncode == 0
    config = program.directory / "broker.yaml"
    listen = f"unix:{program.directory}/vchan.sock"
    tls = "tls: {certificate: pki/broker.crt, key: pki/broker.key, ca: pki/ca.crt, revoked: r}"
    said = config.read_text().replace("rpc.sock}", f'rpc.sock, listen: ["{listen}"], {tls}}}')
    config.write_text(said)
    program.start("--init")
    enforcing(program.host)
    words = ["--connect", f"tls-{listen}", "--cert", str(pki / "alice.crt")]
    words += ["--key", str(pki / "alice.key"), "--ca", str(pki / "ca.crt"), "status"]

    def ask():
        return subprocess.run(
            [BIN / "brokerctl", *words], capture_output=True, text=True, timeout=20, check=False
        )

    # Whose denylist does not read lets nobody in; and then the policy knows no such role.
    result = ask()
    assert (result.returncode, "denylist" in result.stderr) == (1, True)
    assert "the denylist does not read" in program.ctl("status").stdout
    (program.directory / "r").write_text("")
    result = ask()
    assert (result.returncode, "officer" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("rpc", "said"),
    [
        ('listen: ["tcp:7443"]', "listen needs tls"),
        ('listen: ["tcp:x"], tls: {certificate: c, key: k, ca: a}', "does not read"),
    ],
)
def test_a_listener_that_cannot_be_is_refused_at_the_start(program, rpc, said):
    config = program.directory / "broker.yaml"
    config.write_text(config.read_text().replace("rpc.sock}", f"rpc.sock, {rpc}}}"))
    result = program.run("--init")
    assert result.returncode == 2
    assert said in result.stderr


def test_a_clean_stop_leaves_the_records_and_exits_zero(program):
    host = program.host
    host.create(3)
    program.start("--init")
    enforcing(host)
    assert program.ctl("label", "set", uuid_of(3), "plain").returncode == 0
    vif = host.vif(3)
    host.report(vif)
    wait_until(lambda: host.verdict(vif) == "grant")
    before = host.text(vif)
    assert program.stop() == 0
    assert host.text(vif) == before
    assert host.read(paths.STATE) == b"stopped"


def test_a_killed_broker_goes_on_where_it_was(program):
    host = program.host
    host.create(3)
    program.start("--init")
    enforcing(host)
    assert program.ctl("label", "set", uuid_of(3), "plain").returncode == 0
    channels = [host.vif(3, device) for device in range(8)]
    seqs = dict.fromkeys(channels, 0)
    for round_ in range(4):
        for channel in channels:
            host.report(channel)
        time.sleep(0.01 * round_)
        program.stop(signal.SIGKILL)
        host.client.write(paths.STATE, b"")
        program.start()
        enforcing(host)
        wait_until(lambda: all(host.verdict(it) == "grant" for it in channels))
        for channel in channels:
            seq = host.record(channel).seq
            assert seq >= seqs[channel]
            seqs[channel] = seq


def test_sighup_loads_the_policy_and_a_bad_one_leaves_it(program):
    host = program.host
    program.start("--init")
    enforcing(host)
    digest = host.read(f"{paths.POLICY}/digest")
    policy = program.directory / "policy.yaml"
    policy.write_text("policy: corp\n")
    program.process.send_signal(signal.SIGHUP)
    wait_until(lambda: b"the policy in force stays" in (program.directory / "log").read_bytes())
    assert host.read(f"{paths.POLICY}/digest") == digest
    policy.write_text(POLICY + "# another\n")
    program.process.send_signal(signal.SIGHUP)
    wait_until(lambda: host.read(f"{paths.POLICY}/digest") != digest)


def test_the_embedded_store_is_served_beside_the_broker(directory):
    program = Program(directory, "embedded")
    program.start("--init")
    socket = directory / "state" / "store.sock"
    try:
        wait_until(lambda: socket.exists() and b"enforcing" in (directory / "log").read_bytes())
        with BlockingClient(socket) as client:
            assert client.read(paths.STATE) == b"enforcing"
    finally:
        assert program.stop() == 0
    assert str(socket).encode() in (directory / "log").read_bytes()
    assert (directory / "state").stat().st_mode & 0o777 == 0o700


def test_the_rpc_answers_from_the_command_line(program):
    host = program.host
    host.create(3, name="web")
    program.start("--init")
    enforcing(host)
    assert program.ctl("status").returncode == 0
    assert program.ctl("label", "set", "web", "plain").returncode == 0
    vif, vbd = host.vif(3), host.vbd(3)
    host.report(vif)
    wait_until(lambda: host.verdict(vif) == "grant" and host.verdict(vbd) == "deny")
    assert "plain" in program.ctl("domain", "list").stdout
    assert "grant" in program.ctl("channel", "list").stdout
    assert program.ctl("channel", "explain", "vif/web/0").returncode == 0
    assert program.ctl("channel", "explain", "vbd/web/51712").returncode == 1
    assert program.ctl("label", "get", "web").returncode == 0
    assert program.ctl("label", "set", "web", "nosuch").returncode == 2
    assert program.ctl("policy", "show").stdout == POLICY
    assert program.ctl("label", "rm", "web").returncode == 0
    wait_until(lambda: host.verdict(vif) == "deny")
