"""The program itself: a real process with real gates, in a host of network namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from agent_host import COMMAND, Host, agent_host, config, pem
from records import KEY, OTHER_KEY, UUID
from support.xenstoreds import wait_until
from twisted.logger import globalLogBeginner

from broker.agent.config import load_config
from broker.agent.main import Agent, main
from broker.core.filter_record import FilterRecord, sign_filter
from broker.net.model import NetError
from broker.text.problems import ProblemsError

VIF, VBD = "vif/0", "vbd/51712"


@pytest.fixture
def host(tmp_path):
    with agent_host(Host, tmp_path) as made:
        yield made


def test_from_a_signed_grant_to_frames_and_blocks_and_back(host):
    host.start()
    host.attach(VIF)
    host.attach(VBD, params=str(host.image))
    wait_until(lambda: host.report(VIF, "nonce") and host.report(VBD, "nonce"), "nonces")
    assert not host.lab.passes()
    host.decide(VIF)
    host.decide(VBD)
    host.beat_until(lambda: host.enforced(VIF) == host.enforced(VBD) == "open", "both open")
    wait_until(host.lab.passes, "frames")
    assert len(host.loops()) == 1
    assert "xpb_" not in host.tables(), "no bridge is named: nftables is not touched"

    assert host.end(signal.SIGTERM) == 0
    wait_until(host.lab.passes, "frames")
    assert len(host.loops()) == 1
    assert "every gate stays as it is" in host.text()

    host.start()
    host.decide(VIF, "deny", reason="relabelled\x1b[2J")
    host.decide(VBD, "deny")
    wait_until(lambda: host.enforced(VIF) == "suspended", "vif suspended")
    wait_until(lambda: host.enforced(VBD) == "closed", "vbd closed")
    assert not host.lab.passes()
    assert host.loops() == []
    assert "suspended (seq 2): relabelled\\x1b[2J" in host.text()


def test_a_link_brought_up_by_somebody_else_is_closed(host):
    host.start()
    host.attach(VIF)
    wait_until(lambda: host.enforced(VIF) == "closed", "a report")
    host.lab.host.ip("link", "set", "vif3.0", "master", "xpbr0")
    host.lab.host.ip("link", "set", "vif3.0", "up")
    wait_until(lambda: host.lab.shown("vif3.0") == (False, False), "the link closed")


def test_a_link_that_comes_after_its_grant_is_opened(host):
    host.start()
    host.attach("vif/5")
    wait_until(lambda: host.report("vif/5", "nonce"), "a nonce")
    host.decide("vif/5")
    host.beat_until(lambda: b"not%20there" in (host.report("vif/5", "enforced") or b""), "the wait")
    assert host.enforced("vif/5") == "closed"
    host.lab.plug(3, "vif3.5", inner="eth5")
    host.beat_until(lambda: host.enforced("vif/5") == "open", "open")


def test_killed_at_any_point_it_leaves_gates_alone_and_recovers(host):
    """Killed a little later each time after a decision; the next start makes it come true."""
    host.start()
    host.attach(VIF)
    host.attach(VBD, params=str(host.image))
    wait_until(lambda: host.enforced(VIF) and host.enforced(VBD), "reports")
    nonce = host.report(VBD, "nonce")
    for step in range(8):
        verdict, wanted = (
            ("grant", {"open"}) if step % 2 == 0 else ("deny", {"suspended", "closed"})
        )
        host.decide(VIF, verdict)
        host.decide(VBD, verdict)
        host.send_beat()
        time.sleep(0.002 * step)  # the point at which it dies is what is varied
        host.end(signal.SIGKILL)
        before = host.lab.shown("vif3.0"), host.gate(VBD)
        assert (host.lab.shown("vif3.0"), host.gate(VBD)) == before
        host.start()
        host.beat_until(
            lambda wanted=wanted: {host.enforced(VIF), host.enforced(VBD)} <= wanted, verdict
        )
        if verdict == "grant":
            wait_until(host.lab.passes, "frames")
        else:
            assert not host.lab.passes()
        assert host.gate(VBD) == (verdict == "grant")
        assert len(host.loops()) == (1 if verdict == "grant" else 0)
        assert host.report(VBD, "nonce") == nonce


def run(path):
    ran = subprocess.run(
        [str(COMMAND), "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gates": "open"}, "agent.yaml:5:8"),
        ({"domid": -1}, "agent.yaml:2:8"),
        ({"domid": "zero"}, "agent.yaml:2:8"),
        ({"surprise": 1}, "agent.yaml:5:1"),
        ({"store": "tcp:1"}, "unix:PATH"),
        ({"domid": 3, "strict": "true"}, "domain 0's agent alone"),
        ({"broker_key": "."}, "Is a directory"),
        ({"helper": "{}"}, "either broker_uuid or broker_domid"),
        ({"helper": f"{{broker_uuid: {UUID}, broker_domid: 1}}"}, "either broker_uuid"),
        ({"broker_key": "agent.yaml"}, "agent.yaml holds no Ed25519 public key"),
        ({"bootstrap_devices": "[{uuid: x, class: vbd, devid: 1, params: p}]"}, "agent.yaml:5:"),
    ],
)
def test_a_configuration_that_is_not_good_is_refused_with_its_place(tmp_path, changes, said):
    status, text = run(config(tmp_path, **changes))
    assert status == 2
    assert said in text
    assert "Traceback" not in text


def test_a_net_helper_that_does_not_answer_is_no_fault_of_the_configuration(
    tmp_path, monkeypatch, capsys
):
    def late(*_):
        raise NetError("net helper: timed out")

    # systemd starts the unit again upon 1, and not upon 2.
    monkeypatch.setattr(Agent, "start", late)
    monkeypatch.setattr(globalLogBeginner, "beginLoggingTo", lambda *_, **__: None)
    assert main(["--config", str(config(tmp_path))]) == 1
    assert capsys.readouterr().err == "broker-agent: net helper: timed out\n"


def test_a_missing_configuration_is_refused(tmp_path):
    status, text = run(tmp_path / "none.yaml")
    assert (status, "none.yaml" in text, "Traceback" in text) == (2, True, False)


def test_bootstrap_devices_are_only_taken_from_roots_own_file(tmp_path):
    listed = f"[{{uuid: {UUID}, class: vbd, devid: 51712, params: /dev/x}}]"
    path = config(tmp_path, bootstrap_devices=listed)
    assert load_config(path).bootstrap_devices[0].params == "/dev/x"
    path.chmod(0o620)
    with pytest.raises(ProblemsError, match="root alone"):
        load_config(path)
    path.chmod(0o600)
    os.chown(path, 65534, 0)
    with pytest.raises(ProblemsError, match="root alone"):
        load_config(path)


def test_the_shipped_configuration_is_good():
    path = Path(__file__).parents[2] / "etc" / "agent.yaml"
    shipped = load_config(path)
    assert (shipped.gates, shipped.strict, shipped.helper) == ("real", False, None)


def test_records_of_another_broker_open_nothing(host):
    (host.directory / "broker.pub").write_bytes(pem(OTHER_KEY))
    host.start()
    host.attach(VIF)
    wait_until(lambda: host.report(VIF, "nonce"), "a nonce")
    host.decide(VIF)
    wait_until(lambda: b"signature" in (host.report(VIF, "enforced") or b""), "the refusal")
    assert not host.lab.passes()


def test_without_a_key_only_bootstrap_devices_open(host):
    listed = f"[{{uuid: {UUID}, class: vbd, devid: 51712, params: {host.image}}}]"
    host.config = config(host.directory, store=host.daemon.address, bootstrap_devices=listed)
    (host.directory / "broker.pub").unlink()
    host.start()
    host.attach(VIF)
    host.attach(VBD, params=str(host.image))
    wait_until(lambda: host.gate(VBD), "the bootstrap device to open")
    wait_until(lambda: host.report(VIF, "nonce"), "a nonce")
    host.decide(VIF)
    wait_until(lambda: b"signature" in (host.report(VIF, "enforced") or b""), "the refusal")
    assert not host.lab.passes()
    assert "broker.pub yet" in (host.directory / "log").read_text()


def test_strict_mode_destroys_the_refused_and_spares_who_must_live(tmp_path):
    """`xl` is a script that notes its arguments."""
    code = textwrap.dedent("""
        import sys
        from twisted.internet import reactor
        from broker.agent.destroy import Destroyer
        def begin():
            destroyer = Destroyer(reactor, {0, 1}, sys.argv[1])
            for domid in (0, 1, 7):
                destroyer.destroy(domid, "denied")
            look()
        def look():
            try:
                done = open(sys.argv[2]).read().endswith("\\n")
            except FileNotFoundError:
                done = False
            reactor.stop() if done else reactor.callLater(0.01, look)
        reactor.callWhenRunning(begin)
        reactor.run()
    """)
    xl, noted = tmp_path / "xl", tmp_path / "noted"
    xl.write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    xl.chmod(0o755)
    subprocess.run([sys.executable, "-c", code, str(xl), str(noted)], check=True, timeout=20)
    assert noted.read_text() == "destroy 7\n"


def test_where_no_profile_can_be_held_an_open_vif_that_gets_one_is_closed(host):
    host.start()
    host.attach(VIF)
    wait_until(lambda: host.report(VIF, "nonce"), "a nonce")
    host.decide(VIF)
    host.beat_until(lambda: host.enforced(VIF) == "open", "open")
    told = FilterRecord(
        seq=1, frontend=3, backend=0, device_class="vif", device="0", uuid=None,
        nonce=host.report(VIF, "nonce").decode(), profiles=("p",),
    )  # fmt: skip
    host.store.write("/broker/v1/filter/0/vif/3/0", sign_filter(told, KEY))
    host.beat_until(lambda: host.enforced(VIF) != "open", "closed")
    assert not host.lab.passes()
    assert b"cannot%20be%20held%20here" in host.report(VIF, "enforced")
