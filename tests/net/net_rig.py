"""A bridge with guests in network namespaces of its own, and frames sent and seen on raw sockets.

`host` holds the bridges and the ports, `guests` the other end of each veth. Nothing else lives
there: no addresses, no daemons. Also used on other kernels, so it needs nothing beyond Python,
iproute2 and broker/net.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
OBSERVER = "observer"
_ALL_PROTOCOLS = 3
_names = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def run(command, **kwargs):
    return subprocess.run(command, check=True, capture_output=True, text=True, **kwargs).stdout


class Namespace:
    """A network namespace, gone with `close`."""

    def __init__(self):
        self.name = f"xpbt-{os.getpid()}-{next(_names)}"
        run(["ip", "netns", "add", self.name])
        self._fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)

    def ip(self, *lines):
        """Run ip(8) commands, one a line."""
        run(["ip", "-n", self.name, "-batch", "-"], input="\n".join(lines) + "\n")

    def nft(self, text):
        return run(["ip", "netns", "exec", self.name, "nft", "-f", "-"], input=text)

    def listing(self, *what):
        return run(["ip", "netns", "exec", self.name, "nft", "-n", "list", *what])

    def sysctl(self, path, value):
        with self.entered():
            Path("/proc/sys/net", path).write_text(value, encoding="ascii")

    @contextmanager
    def entered(self):
        """Within, this thread makes its sockets in the namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._fd)
            yield self
        finally:
            _setns(home)
            os.close(home)

    def close(self):
        os.close(self._fd)
        run(["ip", "netns", "del", self.name])


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def mac(number):
    return f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"


def raw(text):
    return bytes.fromhex(text.replace(":", ""))


def silent_up(*names):
    """Commands that bring links up which say nothing of their own: first no address, then up.

    In one command it depends on the kernel which comes first.
    """
    return [f"link set {name} {what}" for what in ("addrgenmode none", "up") for name in names]


class Guest:
    """One station: a veth's far end with a raw socket on it."""

    def __init__(self, net, name, number):
        self.port, self.number, self.mac = name, number, mac(number)
        self.index = 0
        with net.guests.entered():
            # Without a protocol until it is bound: else it would hear every interface until then.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.bind((f"g{name}", _ALL_PROTOCOLS))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
        self.socket.setblocking(False)

    def send(self, frame):
        self.socket.send(frame)

    def received(self):
        """Every frame that has come in, those it sent itself left out."""
        while True:
            try:
                data, address = self.socket.recvfrom(4096)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:
                yield data


class Net:
    """Bridges and guests; `index(name)` is an interface's in the host namespace."""

    def __init__(self, *bridges):
        self.host, self.guests = Namespace(), Namespace()
        self.all = {}
        self.host.ip(
            *(
                f"link add {name} type bridge mcast_snooping 0 forward_delay 0"
                for name in bridges or ("br0",)
            ),
            *silent_up(*(bridges or ("br0",))),
        )

    def add(self, *names, bridge="br0", up=True):
        """A veth for each name, its near end a port of `bridge` (None: of no bridge)."""
        start = len(self.all) + 1
        numbers = range(start, start + len(names))
        lines = []
        for name, number in zip(names, numbers, strict=True):
            peer = f"peer name g{name} address {mac(number)} netns {self.guests.name}"
            lines += [
                f"link add {name} type veth {peer}",
                f"link set {name} addrgenmode none" + (f" master {bridge}" if bridge else ""),
                *([f"link set {name} up"] if up else []),
            ]
        self.host.ip(*lines)
        self.guests.ip(*silent_up(*(f"g{name}" for name in names)))
        made = [Guest(self, name, number) for name, number in zip(names, numbers, strict=True)]
        for guest in made:
            guest.index = self.index(guest.port)
            self.all[guest.port] = guest
        if bridge and up:
            self.forwarding(*names)
        return made

    def forwarding(self, *names):
        """Wait until the bridge forwards for these ports: it hears of carriers a little late."""
        end = time.monotonic() + 10
        while True:
            shown = json.loads(run(["bridge", "-n", self.host.name, "-j", "link"]))
            if set(names) <= {link["ifname"] for link in shown if link["state"] == "forwarding"}:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"not forwarding: {shown}")

    def index(self, name):
        with self.host.entered():
            return socket.if_nametoindex(name)

    def close(self):
        for guest in self.all.values():
            guest.socket.close()
        self.guests.close()
        self.host.close()


def marker(sender, receiver, kind):
    return b"<XPB" + struct.pack(">HHB", sender, receiver, kind) + b"XPB>"


def found_marker(frame):
    at = frame.find(b"<XPB")
    return struct.unpack_from(">HHB", frame, at + 4) if at >= 0 else None


def markers(guest):
    return [mark for frame in guest.received() if (mark := found_marker(frame))]


def ethernet(target, source, ethertype, payload):
    return raw(target) + raw(source) + struct.pack(">H", ethertype) + payload.ljust(46, b"\0")


def ipv4(sender, receiver, data, target=None):
    source, to = bytes((10, 0, 0, sender)), target or bytes((10, 0, 0, receiver))
    udp = struct.pack(">HHHH", 1000, 2000, 8 + len(data), 0) + data
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source + to
    total = sum(struct.unpack(">10H", head))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack(">H", check) + head[12:] + udp


def ipv6(sender, receiver, data, target=None):
    source = bytes.fromhex("fd00" + "00" * 12) + struct.pack(">H", sender)
    to = target or bytes.fromhex("fd00" + "00" * 12) + struct.pack(">H", receiver)
    udp = struct.pack(">HHHH", 1000, 2000, 8 + len(data), 1) + data
    return struct.pack(">IHBB", 0x60000000, len(udp), 17, 64) + source + to + udp


def arp(sender, receiver, data):
    return (
        struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
        + raw(mac(sender)) + bytes((10, 0, 0, sender))
        + bytes(6) + bytes((10, 0, 0, receiver))
    ) + data  # fmt: skip


def vlan(payload, ethertype=0x0800, tag=5):
    return struct.pack(">HH", tag, ethertype) + payload


ALL = "ff:ff:ff:ff:ff:ff"
UNICAST = {
    "arp": lambda s, r, d: (0x0806, arp(s, r, d)),
    "ipv4": lambda s, r, d: (0x0800, ipv4(s, r, d)),
    "ipv6": lambda s, r, d: (0x86DD, ipv6(s, r, d)),
    "vlan": lambda s, r, d: (0x8100, vlan(ipv4(s, r, d))),
    "qinq": lambda s, r, d: (0x88A8, vlan(vlan(ipv4(s, r, d)), 0x8100)),
    "odd": lambda s, r, d: (0x88B5, d),
    "llc": lambda s, r, d: (46, b"\xaa\xaa\x03" + d),
}
FLOODED = {
    "arp broadcast": (ALL, lambda s, d: (0x0806, arp(s, 0, d))),
    "ipv4 broadcast": (ALL, lambda s, d: (0x0800, ipv4(s, 0, d, b"\xff" * 4))),
    "odd broadcast": (ALL, lambda s, d: (0x88B5, d)),
    "vlan broadcast": (ALL, lambda s, d: (0x8100, vlan(ipv4(s, 0, d, b"\xff" * 4)))),
    "ipv4 multicast": (
        "01:00:5e:01:02:03",
        lambda s, d: (0x0800, ipv4(s, 0, d, bytes((239, 1, 2, 3)))),
    ),
    "ipv6 multicast": (
        "33:33:00:00:12:34",
        lambda s, d: (0x86DD, ipv6(s, 0, d, bytes.fromhex("ff02" + "00" * 12 + "1234"))),
    ),
    "unknown unicast": ("02:99:00:00:00:01", lambda s, d: (0x0800, ipv4(s, 250, d))),
}
KINDS = [*UNICAST, *FLOODED, "sentinel"]


def frame_for(kind, sender, receiver=None):
    """A frame of this kind between guests, with a marker that says so."""
    to = 0 if receiver is None else receiver.number
    data = marker(sender.number, to, KINDS.index(kind))
    if kind in UNICAST:
        return ethernet(receiver.mac, sender.mac, *UNICAST[kind](sender.number, to, data))
    if kind in FLOODED:
        target, make = FLOODED[kind]
        return ethernet(target, sender.mac, *make(sender.number, data))
    return ethernet(receiver.mac, sender.mac, 0x88B5, data)


@contextmanager
def one_processor():
    """Within, this thread's frames are dealt with in the order in which they are sent."""
    home = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(home)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, home)


def delivered(guests, observer, frames, timeout=10.0):
    """Send `frames` ((guest, frame) pairs) and answer what arrived: {(kind, sender, receiver)}.

    Each sender's last frame is a sentinel to `observer`, who hears everybody: frames of one
    sender stay in order on one processor, so when it is there all before it have been dealt with.
    """
    with one_processor():
        senders = dict.fromkeys(guest for guest, _ in frames)
        for guest, frame in frames:
            guest.send(frame)
        waiting = {guest.number for guest in senders if guest is not observer}
        for guest in senders:
            if guest is not observer:
                guest.send(frame_for("sentinel", guest, observer))
        seen = set()
        end = time.monotonic() + timeout
        while waiting:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no sentinel from {waiting}")
            select.select([observer.socket], [], [], left)
            seen |= _collect([observer], waiting)
        return seen | _collect(guests, set())


def _collect(guests, waiting):
    seen = set()
    for guest in guests:
        for frame in guest.received():
            mark = found_marker(frame)
            if mark is None:
                continue
            sender, _, kind = mark
            if KINDS[kind] == "sentinel":
                waiting.discard(sender)
            else:
                seen.add((KINDS[kind], sender, guest.number))
    return seen


class Flood:
    """Broadcasts from guests, as fast as this thread can, until the block ends; `sent` so far."""

    def __init__(self, *guests):
        self._frames = [(guest, frame_for("odd broadcast", guest)) for guest in guests]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def _send(self):
        while not self._over.is_set():
            for guest, frame in self._frames:
                with contextlib.suppress(OSError):  # its link went, or the queue is full
                    guest.send(frame)
                    self.sent += 1

    def more(self, count):
        """Wait until so many more have been sent."""
        end, wanted = time.monotonic() + 30, self.sent + count
        while self.sent < wanted:
            if time.monotonic() > end:
                raise TimeoutError(f"only {self.sent} of {wanted} frames were sent")
            time.sleep(0.001)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def teach(guests):
    """Let the bridge learn where each guest is, by frames that nobody looks for."""
    with one_processor():
        for guest in guests:
            guest.send(ethernet(ALL, guest.mac, 0x88B5, b"lesson"))
    for guest in guests:
        for _ in guest.received():
            pass


def all_frames(guests):
    """Every kind from every guest to every other (and flooded kinds once)."""
    frames = []
    for sender in guests:
        frames += [(sender, frame_for(kind, sender)) for kind in FLOODED]
        frames += [
            (sender, frame_for(kind, sender, receiver))
            for receiver in guests
            if receiver is not sender
            for kind in UNICAST
        ]
    return frames


def expected(guests, may_pass):
    """What `delivered` should answer for `all_frames`."""
    return {
        (kind, sender.number, receiver.number)
        for sender in guests
        for receiver in guests
        if sender is not receiver and may_pass(sender, receiver)
        for kind in (*UNICAST, *FLOODED)
    }
