"""A host with a bridge and two guests, each a network namespace; veths stand for vifs."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
import uuid

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
ETHERTYPE = 0x88B5
"""IEEE 802 local experimental: nothing else on these links speaks it."""


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def _setns(fd):
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """A network namespace by name; what is opened inside `with ns:` stays in it."""

    def __init__(self, name):
        self.name = name
        ip("netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words):
        ip("-n", self.name, *words)

    @contextlib.contextmanager
    def entered(self):
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _setns(inside)
            yield
        finally:
            _setns(before)
            os.close(before)
            os.close(inside)

    def packet_socket(self, link):
        with self.entered():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
            made.bind((link, ETHERTYPE))
        return made

    def remove(self):
        ip("netns", "del", self.name)


class Lab:
    """`host` with bridge xpbr0 and the ends vif3.0, vif4.0; guests `three` and `four` with eth0.

    vif4.0 is bridged and up; vif3.0 is as netback makes it: down, in no bridge.
    """

    def __init__(self):
        self._looks = itertools.count()
        tag = uuid.uuid4().hex[:6]
        self.host = Namespace(f"xpb{tag}h")
        self.guests = {3: Namespace(f"xpb{tag}a"), 4: Namespace(f"xpb{tag}b")}
        self.host.ip("link", "add", "xpbr0", "type", "bridge", "forward_delay", "0")
        self.host.ip("link", "set", "xpbr0", "up")
        self.sockets = {}
        for domid, guest in self.guests.items():
            self.plug(domid, f"vif{domid}.0", guest)
            self.sockets[domid] = guest.packet_socket("eth0")
        self.host.ip("link", "set", "vif4.0", "master", "xpbr0")
        self.host.ip("link", "set", "vif4.0", "up")

    def plug(self, domid, name, guest=None, inner="eth0"):
        guest = guest or self.guests[domid]
        self.host.ip(
            "link", "add", name, "type", "veth", "peer", "name", inner, "netns", guest.name
        )
        guest.ip("link", "set", inner, "up")

    def shown(self, link):
        """(up, bridged) as `ip` shows it, independent of the code under test."""
        text = subprocess.run(
            ["ip", "-n", self.host.name, "-o", "link", "show", "dev", link],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        flags = text.split("<")[1].split(">")[0].split(",")
        return "UP" in flags, " master " in text

    def passes(self, source=3, target=4):
        """Whether a frame from one guest reaches the other, tried for a while.

        Only frames of this very look count: one of an earlier look may arrive late.
        """
        head = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + ETHERTYPE.to_bytes(2, "big")
        frame = head + next(self._looks).to_bytes(8, "big").ljust(46, b"x")
        receiver = self.sockets[target]
        receiver.settimeout(0.05)
        for _ in range(6):
            with contextlib.suppress(OSError):  # ENETDOWN: its carrier is off
                self.sockets[source].send(frame)
            with contextlib.suppress(TimeoutError):
                while receiver.recv(2048) != frame:
                    pass
                return True
        return False

    def close(self):
        for it in self.sockets.values():
            it.close()
        for it in (self.host, *self.guests.values()):
            it.remove()
