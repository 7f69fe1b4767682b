"""Labels on the bridge, the whole way: the program, its net helper, and frames on veths."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from agent_host import COMMAND, agent_host, config
from bridged_host import OPEN, SHUT, Bridged, digest
from netns import ETHERTYPE
from support.xenstoreds import wait_until

from broker.core.drops import parse_drops

pytestmark = pytest.mark.root

RCVBUFFORCE = 33
"""asm-generic/socket.h: SO_RCVBUFFORCE."""


class Stream:
    """Frames from vif3.0 to vif4.0 all the while, a thousand a second; how many were `lost`."""

    def __init__(self, lab):
        self._sender, self._receiver = lab.sockets[3], lab.sockets[4]
        self._receiver.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 16 << 20)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = self.lost = 0

    def _send(self):
        head = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + ETHERTYPE.to_bytes(2, "big")
        while not self._over.wait(0.001):
            self._sender.send(head + b"stream".ljust(46))
            self.sent += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._receiver.settimeout(1.0)  # a crowded kernel delivers late
        received = 0
        with contextlib.suppress(TimeoutError):
            while received < self.sent:
                received += b"stream" in self._receiver.recv(2048)
        self.lost = self.sent - received


@pytest.fixture
def host(tmp_path):
    with agent_host(Bridged, tmp_path) as made:
        yield made


def test_labels_decide_who_hears_whom_and_follow_their_domain(host):
    host.begin({3: "web", 4: "shop"})
    host.beat_until(host.passes, "frames between web and shop")
    host.be_labelled(vif3="web", vif4="shop")
    shown = host.net_show()
    assert "vif3.0" in shown
    assert "shop" in shown

    host.send_beat()
    host.grant(4, "bank")
    host.be_labelled(vif4="bank")
    assert not host.leaks()
    assert host.lab.shown("vif4.0") == (True, True)
    assert "suspended" not in host.text()

    host.grant(4, "shop")
    host.beat_until(host.passes, "frames again")
    assert "suspended" not in host.text()


def test_killed_and_started_again_open_pairs_pass_and_others_do_not(host):
    host.begin({3: "web", 4: "shop"})
    host.beat_until(host.passes, "frames between web and shop")
    host.end(signal.SIGKILL)
    wait_until(host.passes, "frames without an agent")
    # Without a store the agent can ask nobody: what it remembers is all it has.
    host.config = config(
        host.directory,
        store="unix:/nowhere",
        bridges="[xpbr0]",
        policies="policies",
        net_report="net.json",
    )
    host.report_file.unlink()
    with Stream(host.lab) as stream:
        host.start()
        wait_until(host.report_file.exists, "the bridges taken over")
    # One may have been on its way between two chains as the rules were taken over.
    assert stream.lost <= 1
    assert stream.sent > 100
    wait_until(host.passes, "frames of what was taken over")
    host.end(signal.SIGKILL)

    # A link that somebody else brings up meanwhile is nobody's, whatever its name.
    host.lab.host.ip("link", "del", "vif4.0")
    host.lab.plug(4, "vif4.0")
    host.lab.sockets[4].close()
    host.lab.sockets[4] = host.lab.guests[4].packet_socket("eth0")
    host.lab.host.ip("link", "set", "vif4.0", "master", "xpbr0")
    host.lab.host.ip("link", "set", "vif4.0", "up")
    host.report_file.unlink()
    host.start()
    wait_until(host.report_file.exists, "the bridges taken over")
    assert not host.leaks()
    assert host.labels() == {"vif3.0": "web"}


def test_relabelled_while_it_was_away_the_old_label_is_not_taken_up(host):
    host.begin({3: "web", 4: "shop"})
    host.end(signal.SIGKILL)
    host.grant(4, "bank")
    host.start()
    host.beat_until(lambda: host.labels().get("vif4.0") == "bank", "the new label")
    host.come_to("open", 3, 4)
    assert not host.leaks()
    assert "cannot be acted upon yet" in host.text()  # not before the broker is known to live


def test_without_the_policys_file_nothing_opens_and_with_it_all_does(host):
    (shown,) = host.policies.iterdir()
    shown.rename(host.directory / "kept")
    host.start()
    for fe in (3, 4):
        host.attach("vif/0", fe=fe, mac=f"00:16:3e:00:00:{fe:02x}")
        wait_until(lambda fe=fe: host.report("vif/0", "nonce", fe), "a nonce")
        host.grant(fe, "web" if fe == 3 else "shop")
    host.come_to("failed", 3, 4)
    assert digest(OPEN)[7:] in host.reason(3)
    assert host.lab.shown("vif3.0") == (False, False)
    wait_until(lambda: digest(OPEN) in host.shown()["problem"], "the report")
    (host.directory / "kept").rename(shown)
    host.come_to("open", 3, 4)
    wait_until(host.passes, "frames")


def test_another_policy_is_followed_and_one_without_a_file_closes(host):
    host.begin({3: "web", 4: "shop"})
    host.beat_until(host.passes, "frames between web and shop")
    host.put(SHUT)
    host.grant(3, "web", SHUT)  # one record is enough: a host has one policy
    host.follow(SHUT)
    assert not host.leaks()
    assert host.lab.shown("vif3.0") == host.lab.shown("vif4.0") == (True, True)
    host.grant(4, "shop", SHUT)
    assert not host.leaks()
    # An older record brings no older policy back, nor where none was seen before.
    host.attach("vif/9")
    wait_until(lambda: host.report("vif/9", "nonce"), "a nonce")
    host.decide("vif/9", labels=("web", "dom0"), policy=digest(OPEN), seq=0)
    host.beat_until(lambda: b"seq=0 " in (host.report("vif/9", "enforced") or b""), "it is read")
    assert not host.leaks()

    renamed = OPEN.replace("shop:", "mall:").replace("name: open", "name: renamed")
    host.put(renamed)
    host.grant(3, "web", renamed)
    host.beat_until(lambda: host.lab.shown("vif4.0") == (False, False), "the label is gone")
    assert host.lab.shown("vif3.0") == (True, True)
    host.grant(4, "mall", renamed)
    host.come_to("open", 3, 4)
    host.beat_until(host.passes, "frames between web and mall")

    gone = OPEN.replace('"1.0"', '"1.1"')
    host.grant(3, "web", gone)
    host.beat_until(
        lambda: host.lab.shown("vif3.0") == host.lab.shown("vif4.0") == (False, False), "closed"
    )
    host.put(gone)
    host.come_to("open", 3)


def test_flushed_rules_come_back_with_an_alarm(host):
    host.begin({3: "web", 4: "bank"})
    assert not host.leaks()
    host.run("nft", "flush", "ruleset")
    wait_until(lambda: "whole again" in host.text(), "the alarm")
    assert "xpb_bridge" in host.run("nft", "list", "tables")
    assert not host.leaks()
    wait_until(lambda: any("whole" in it for it in host.shown()["alarms"]), "the report")
    assert "whole again" in host.net_show()


def test_a_helper_that_ends_opens_nothing_and_is_started_anew(host):
    host.begin({3: "web", 4: "bank"})
    subprocess.run(["kill", "-9", str(host.helper())], check=True)
    host.decide("vif/0", "deny", fe=4)
    wait_until(lambda: host.lab.shown("vif4.0") == (False, False), "the denied closed")
    assert not host.leaks()
    wait_until(lambda: "helper has ended" in host.text(), "the alarm")
    host.grant(4, "shop")
    host.come_to("open", 3, 4)
    host.beat_until(host.passes, "frames between web and shop")


def test_a_bridge_that_is_none_is_refused_at_the_start(host):
    host.config.write_text(host.config.read_text().replace("[xpbr0]", "[vif3.0]"))
    host.start()
    assert host.process.wait(10) == 1
    assert "vif3.0 is not a Linux bridge but veth" in host.text()


@pytest.mark.parametrize(
    "changes",
    [
        {"bridges": "[xpbr0]"},
        {"bridges": "[xpbr0]", "policies": "p", "gates": "simulated"},
        {"bridges": '["a/b"]', "policies": "p"},
    ],
)
def test_bridges_that_cannot_be_held_to_labels_are_refused(tmp_path, changes):
    path = config(tmp_path, **changes)
    ran = subprocess.run(
        [str(COMMAND), "--config", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (ran.returncode, "bridges" in ran.stderr) == (2, True)


def test_the_agent_itself_has_no_right_over_the_network_and_yet_moves_vifs(host):
    net_admin = 1 << 12

    def held(pid):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        words = dict(line.split(":", 1) for line in lines)
        return {name: int(words[name], 16) for name in ("CapEff", "CapPrm", "CapInh")}

    host.begin({3: "web", 4: "shop"})
    assert not any(sets & net_admin for sets in held(host.process.pid).values())
    assert set(held(host.helper()).values()) == {net_admin}
    host.beat_until(host.passes, "frames between web and shop")
    host.decide("vif/0", "deny", fe=4)
    wait_until(lambda: host.lab.shown("vif4.0") == (False, False), "the denied closed")
    subprocess.run(["kill", "-9", str(host.helper())], check=True)
    host.grant(4, "shop")
    host.come_to("open", 3, 4)
    assert not any(sets & net_admin for sets in held(host.process.pid).values())
    host.beat_until(host.passes, "frames between web and shop")


def test_what_is_refused_is_reported_to_the_broker_by_both_labels(host):
    host.begin({3: "web", 4: "bank"})
    host.lab.passes(3, 4)

    def reported():
        text = host.read("/broker/v1/report/0/drops")
        return parse_drops(text).drops if text else ()

    # Broadcast by guest 3 alone: what is refused has a sender and a receiver with these labels.
    wait_until(
        lambda: any((it.sender, it.receiver) == ("web", "bank") for it in reported()),
        "a report",
    )
    assert all(it.packets and it.bytes for it in reported())
