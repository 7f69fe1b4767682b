"""brokerd is confined: what it keeps, what it says of what it cannot give up, that it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from broker_host import POLICY, SPECS
from support.xenstoreds import wait_until

from broker.confine.landlock import DEVICE, LISTEN, READ, WRITE
from broker.service.config import load_settings
from broker.service.confinement import _late_ports, rules_for

BIN = Path(sys.executable).parent
CONFIG = f"policy: policy.yaml\nstate: state\nspecs: {SPECS}\nrpc: {{socket: run/rpc.sock}}\n"


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="xb-", dir="/tmp") as path:
        (Path(path) / "policy.yaml").write_text(POLICY)
        (Path(path) / "broker.yaml").write_text(CONFIG)
        yield Path(path)


def settings(directory, more="", store="embedded"):
    file = directory / "broker.yaml"
    file.write_text(CONFIG + more)
    return load_settings(file, store=store, state=None)


def options(directory):
    return ["--config", str(directory / "broker.yaml"), "--store", "embedded", "--init"]


@pytest.fixture
def started(directory):
    """Starts brokerd in the directory; says its process, once it answers."""
    running = []

    def start():
        process = subprocess.Popen(
            [BIN / "brokerd", *options(directory)], stderr=(directory / "log").open("wb")
        )
        running.append(process)
        wait_until(lambda: '"enforcing":true' in ctl(directory, "status").stdout, "enforcing")
        return process

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def ctl(directory, *words):
    return subprocess.run(
        [BIN / "brokerctl", "--socket", directory / "run/rpc.sock", "--json", *words],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_brokerd_runs_confined_unless_told_otherwise_and_says_so(directory, started):
    process = started()
    facts = Path(f"/proc/{process.pid}/status").read_text()
    assert "NoNewPrivs:\t1\n" in facts
    assert "Seccomp:\t2\n" in facts
    assert "CapPrm:\t0000000000000000\n" in facts
    assert "unconfined" not in ctl(directory, "status").stdout
    # Files that are replaced are other files under their old names.
    new = directory / "new.yaml"
    new.write_text(POLICY.replace('version: "1.0"', 'version: "1.1"'))
    new.rename(directory / "policy.yaml")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: '"1.1"' in ctl(directory, "policy", "show").stdout, "the newer policy")


def test_told_otherwise_it_says_so(directory, started):
    (directory / "broker.yaml").write_text(f"{CONFIG}confine: false\n")
    process = started()
    assert "Seccomp:\t0\n" in Path(f"/proc/{process.pid}/status").read_text()
    said = ctl(directory, "status").stdout
    assert '"unconfined"' in said
    assert "brokerd runs without confinement: broker.yaml says `confine: false`" in said
    assert "brokerd runs without confinement" in (directory / "log").read_text()


def refused(directory, patch):
    """What brokerd says when it starts after a change of its own code."""
    script = f"""
import sys
{patch}
from broker.service.main import main
sys.exit(main(sys.argv[1:]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *options(directory)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ("import broker.confine.landlock as it; it._ADD = 9999", "landlock: "),
        ("import broker.confine.seccomp as it; it._FILTER = 99", "seccomp: "),
        ("import broker.confine.process as it; it._VERSION = 9999", "capabilities: "),
    ],
)
def test_where_it_cannot_be_confined_it_does_not_start(directory, patch, said):
    code, text = refused(directory, patch)
    assert code == 2
    assert f"brokerd: cannot be confined: {said}" in text
    assert "Traceback" not in text


def test_it_writes_its_state_and_nothing_else(directory):
    rules = rules_for(settings(directory))
    writing = {path for path, rights in rules.items() if rights & (WRITE & ~READ & ~LISTEN)}
    assert writing == {directory.resolve() / "state", Path("/dev/null")}
    assert rules[directory.resolve() / "run"] == LISTEN
    assert rules[directory.resolve()] == READ
    assert rules[Path("/dev/null")] == DEVICE


def test_of_devices_it_has_the_stores_alone(directory):
    assert rules_for(settings(directory, store="xenbus"))[Path("/dev/xen/xenbus")] == DEVICE
    assert rules_for(settings(directory, store="xenbus:/dev/xb"))[Path("/dev/xb")] == DEVICE
    rules = rules_for(settings(directory, store="unix:/run/x"))
    assert [it for it in rules if str(it).startswith("/dev/")] == [Path("/dev/null")]


TLS = "  tls: {certificate: pki/a.crt, key: keys/a.key, ca: ca/ca.crt, revoked: out/revoked}\n"


def test_what_is_read_again_may_be_read_where_it_is(directory):
    text = f"rpc:\n  listen: ['unix:{directory}/tls/t.sock']\n{TLS}"
    file = directory / "broker.yaml"
    file.write_text(f"policy: policies/p.yaml\n{text}")
    rules = rules_for(load_settings(file, store="embedded", state=None))
    for name in ("pki", "keys", "ca", "out", "policies"):
        assert rules[directory.resolve() / name] == READ
    assert rules[directory.resolve() / "tls"] == LISTEN
    assert directory.resolve() not in rules


@pytest.mark.parametrize(
    ("late", "listen", "ports"),
    [
        ("false", "tcp:7443", []),
        ("true", "tcp:7443", [7443]),
        ("true", "tcp:port=7443:interface=127.0.0.1", [7443]),
        ("true", "tcp6:7444", [7444]),
        ("true", "unix:/run/7443", []),
        ("true", "systemd:domain=INET6:name=tls", []),
    ],
)
def test_it_listens_later_only_where_calls_come_late(directory, late, listen, ports):
    file = directory / "broker.yaml"
    file.write_text(f"rpc:\n  late: {late}\n  listen: ['{listen}']\n{TLS}")
    assert _late_ports(load_settings(file, store="embedded", state=None)) == ports
