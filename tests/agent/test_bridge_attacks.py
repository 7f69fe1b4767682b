"""Ports renamed, made anew, moved and readdressed behind the agent's back while frames are sent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import pytest
from agent_host import agent_host
from bridged_host import Bridged
from netns import ETHERTYPE, Namespace
from support.xenstoreds import wait_until

pytestmark = pytest.mark.root


class Flood:
    """Broadcasts from one guest as fast as a thread can; `more` waits until so many were sent."""

    def __init__(self, sender, source=b"\x02\0\0\0\0\1"):
        self._sender = sender
        self._frame = b"\xff" * 6 + source + ETHERTYPE.to_bytes(2, "big") + b"flood".ljust(46)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def _send(self):
        while not self._over.wait(0.0005):
            with contextlib.suppress(OSError):  # its link is down at this moment
                self._sender.send(self._frame)
                self.sent += 1

    def more(self, count=100):
        wanted = self.sent + count
        wait_until(lambda: self.sent >= wanted, f"{count} more frames")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def heard(receiver):
    """How many frames of a flood are there to be read."""
    receiver.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while data := receiver.recv(2048):
            count += b"flood" in data
    return count


@pytest.fixture
def host(tmp_path):
    with agent_host(Bridged, tmp_path) as made:
        yield made


def test_a_port_renamed_behind_its_back_keeps_its_label_and_is_closed_with_it(host):
    host.begin({3: "web", 4: "bank"})
    assert not host.leaks()
    for name in ("other0", "vif9.9"):
        ip = host.lab.host.ip
        ip("link", "set", "vif4.0", "down")
        ip("link", "set", "vif4.0", "name", name)
        ip("link", "set", name, "up")
        assert not host.leaks(), "a name is nobody's label"
        ip("link", "set", name, "down")
        ip("link", "set", name, "name", "vif4.0")
        ip("link", "set", "vif4.0", "up")
    host.grant(4, "shop")
    host.beat_until(host.passes, "frames between web and shop")
    host.lab.host.ip("link", "set", "vif4.0", "name", "other0")
    host.decide("vif/0", "deny", fe=4)
    host.be_labelled(vif4=None)
    assert not host.leaks(), "denied under whatever name"


@pytest.mark.parametrize("stopped", ["agent", "agent and helper"])
def test_ports_made_anew_under_their_name_in_a_flood_hear_and_tell_nothing(host, stopped):
    """The agent would open them again, since their life is granted: so it gets no chance to."""
    host.begin({3: "web", 4: "shop"})
    host.beat_until(host.passes, "frames between web and shop")
    ip, lab = host.lab.host.ip, host.lab
    pids = [host.process.pid, *([host.helper()] if "helper" in stopped else [])]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with Flood(lab.sockets[3]) as flood:
            for _ in range(10):
                ip("link", "del", "vif4.0")
                lab.plug(4, "vif4.0")
                lab.sockets[4].close()
                lab.sockets[4] = lab.guests[4].packet_socket("eth0")
                ip("link", "set", "vif4.0", "master", "xpbr0")
                ip("link", "set", "vif4.0", "up")
                with Flood(lab.sockets[4]) as back:
                    back.more(20)
                flood.more(50)
                assert heard(lab.sockets[4]) == 0
                assert heard(lab.sockets[3]) == 0
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    host.beat_until(host.passes, "opened anew by the grant")


def test_a_port_made_anew_after_its_denial_stays_closed(host):
    host.begin({3: "web", 4: "shop"})
    host.decide("vif/0", "deny", fe=4)
    wait_until(lambda: host.lab.shown("vif4.0") == (False, False), "the denied closed")
    with Flood(host.lab.sockets[3]) as flood:
        for _ in range(5):
            host.lab.host.ip("link", "del", "vif4.0")
            host.lab.plug(4, "vif4.0")
            host.lab.sockets[4].close()
            host.lab.sockets[4] = host.lab.guests[4].packet_socket("eth0")
            host.lab.host.ip("link", "set", "vif4.0", "master", "xpbr0")
            host.lab.host.ip("link", "set", "vif4.0", "up")
            flood.more()
            assert heard(host.lab.sockets[4]) == 0
            host.beat_until(lambda: host.lab.shown("vif4.0") == (False, False), "closed again")


def test_a_guest_that_takes_anothers_address_is_still_who_its_port_is(host):
    host.begin({3: "web", 4: "bank"})
    guest = host.lab.guests[3]
    guest.ip("link", "set", "eth0", "down")
    guest.ip("link", "set", "eth0", "address", "00:16:3e:00:00:04")
    guest.ip("link", "set", "eth0", "up")
    assert not host.leaks()
    mac = bytes.fromhex("00163e000004")
    with Flood(host.lab.sockets[3], source=mac) as flood:
        flood.more(200)
    assert heard(host.lab.sockets[4]) == 0


def test_a_port_moved_to_a_bridge_that_nobody_governs_reaches_nobody_there(host):
    host.begin({3: "web", 4: "shop"})
    host.beat_until(host.passes, "frames between web and shop")
    ip = host.lab.host.ip
    ip("link", "add", "other", "type", "bridge", "forward_delay", "0")
    ip("link", "set", "other", "up")
    stranger = Namespace(f"{host.lab.host.name}s")
    ip("link", "add", "far", "type", "veth", "peer", "name", "eth0", "netns", stranger.name)
    ip("link", "set", "far", "master", "other")
    ip("link", "set", "far", "up")
    stranger.ip("link", "set", "eth0", "up")
    try:
        with stranger.packet_socket("eth0") as there, Flood(host.lab.sockets[3]) as flood:
            flood.more()
            ip("link", "set", "vif3.0", "master", "other")
            flood.more()
            with Flood(there) as back:
                back.more()
            heard(host.lab.sockets[4])
            flood.more()
            assert heard(there) == 0
            assert heard(host.lab.sockets[4]) == 0, "it is not on that bridge any more"
        assert heard(host.lab.sockets[3]) == 0
    finally:
        stranger.remove()
    host.decide("vif/0", "deny", fe=3)
    wait_until(lambda: host.lab.shown("vif3.0") == (False, False), "the denied closed")


def test_what_the_agents_host_itself_sends_reaches_no_port_that_may_not_hear_it(host):
    """dom0 is labelled red and blue: it may talk to both; a label without either, to nobody."""
    host.begin({3: "web", 4: "bank"})
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\7" + ETHERTYPE.to_bytes(2, "big") + b"flood".ljust(46)
    with host.lab.host.entered():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind(("xpbr0", 0))

    def reached(domid):
        made.send(frame)
        return heard(host.lab.sockets[domid])

    with made:
        wait_until(lambda: reached(3), "a frame of dom0's")
        wait_until(lambda: reached(4), "a frame of dom0's")
        host.decide("vif/0", "deny", fe=4)
        wait_until(lambda: host.lab.shown("vif4.0") == (False, False), "the denied closed")
        host.lab.host.ip("link", "set", "vif4.0", "master", "xpbr0")
        host.lab.host.ip("link", "set", "vif4.0", "up")
        heard(host.lab.sockets[4])
        for _ in range(20):
            assert reached(4) == 0
        wait_until(lambda: reached(3), "a frame of dom0's")
