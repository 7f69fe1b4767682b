"""A bridge with many ports in a network namespace of its own, guests at three of them."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from broker.net.enforcer import PortEnforcer
from broker.net.libnftables import Libnftables
from broker.net.links import LinkTable
from broker.net.model import Port, Target
from broker.net.probe import probe
from broker.net.readback import Readback

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = 100
"""Classes that the ports are spread over; all their pairs but one are allowed: 10,000."""
GUESTS = ("a", "b", "c")
_NEWNET = 0x40000000
_beds = itertools.count()
_IDLE = "".join(
    f"add table {family} idle\n"
    f"add chain {family} idle {hook} {{ type filter hook {hook} priority 0; }}\n"
    for family, hooks in (("inet", ("forward", "input", "output")), ("arp", ("input", "output")))
    for hook in hooks
)


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Bed:
    """Ports `p1`…; guests a, b and c (10.0.0.1 to 3) are at ga, gb and gc."""

    def __init__(self) -> None:
        place = f"xpbb-{os.getpid()}-{next(_beds)}"
        self.names = {n: f"{place}-{n}" for n in ("host", "idle", *GUESTS)}
        self._fillers = 0
        self.enforcer: PortEnforcer | None = None
        for name in self.names.values():
            _run("ip", "netns", "add", name)
        # One kernel runs all of these "guests": a table anywhere switches on the hooks of every
        # stack in it (static keys), which real guests' own kernels would not feel. So they are
        # on throughout, also for the floor, by hooks that no packet passes.
        self._nft(_IDLE, "idle")
        self.ip(
            "host", "link add br0 type bridge mcast_snooping 0 forward_delay 0", "link set br0 up"
        )
        for number, guest in enumerate(GUESTS, 1):
            self.ip(
                "host",
                f"link add g{guest} type veth peer name eth0 address {_mac(number)} "
                f"netns {self.names[guest]}",
                f"link set g{guest} master br0 up",
            )
            others = [n for n in (1, 2, 3) if n != number]
            self.ip(
                guest,
                "link set eth0 up",
                f"addr add 10.0.0.{number}/24 dev eth0",
                *(f"neigh add 10.0.0.{n} lladdr {_mac(n)} dev eth0" for n in others),
            )

    def grow(self, ports: int) -> None:
        """Have this many ports, the guests' among them."""
        first, self._fillers = self._fillers + 1, ports - len(GUESTS)
        lines = []
        for n in range(first, self._fillers + 1):
            lines += [f"link add p{n} type veth peer name q{n}", f"link set p{n} master br0 up"]
        if lines:
            self.ip("host", *lines)

    def enforce(self) -> PortEnforcer:
        """Labels on every port, the guests' the last; b may be reached from a, c may not."""
        with self.entered():
            nft, links = Libnftables(), LinkTable()
            self.enforcer = PortEnforcer(nft, Readback(), probe(nft), sys.exit)
            index = {link.name: link.index for link in links.all()}
        ports = [
            Port(f"p{n}", index[f"p{n}"], 4 + n % (CLASSES - 3), bridge="br0")
            for n in range(1, self._fillers + 1)
        ]
        ports += [Port(f"g{g}", index[f"g{g}"], n, bridge="br0") for n, g in enumerate(GUESTS, 1)]
        target = Target(frozenset({"br0"}), {p.index: p for p in ports}, pairs())
        self.enforcer.start(target)
        return self.enforcer

    def release(self) -> None:
        """No tables at all."""
        self._nft("flush ruleset")
        self._legacy("*filter\n:FORWARD ACCEPT\nCOMMIT\n")

    def physdev(self, ports: int) -> None:
        """What one writes without us: iptables, a rule for each ordered pair of ports."""
        names = [f"p{n}" for n in range(1, ports - len(GUESTS) + 1)]
        names += [f"g{guest}" for guest in GUESTS]
        rules = "".join(
            f"-A FORWARD -m physdev --physdev-is-bridged --physdev-in {one} "
            f"--physdev-out {other} -j ACCEPT\n"
            for one in names
            for other in names
        )
        self._legacy(f"*filter\n:FORWARD DROP\n{rules}COMMIT\n")

    def physdev_on(self, *, on: bool) -> None:
        """Whether bridged packets go through iptables."""
        with self.entered():
            switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
            switch.write_text("1" if on else "0", encoding="ascii")

    def trip(self, count: int) -> float:
        """Median round trip between a and b in microseconds."""
        return self._trips(count, self)[0]

    def trips_beside(self, other: Bed, count: int) -> tuple[float, float]:
        """The same here and in another bed, some packets each in turn, on one busy machine."""
        here, there = self._trips(count, self, other)
        return here, there

    @staticmethod
    def _trips(count: int, *beds: Bed) -> list[float]:
        ends = [bed.names[guest] for bed in beds for guest in ("a", "b")]
        listed = _run(_wire(), "trip", "10.0.0.2", str(count), *ends)
        return [int(nanoseconds) / 1000 for nanoseconds in listed.split()]

    def blast(self, rate: int, seconds: float) -> subprocess.Popen[str]:
        """Start sending from a to b and to c; prints sent, got by b, got by c."""
        a, b, c = (self.names[guest] for guest in GUESTS)
        command = [_wire(), "blast", a, b, "10.0.0.2", c, "10.0.0.3", str(rate), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """Leave nothing behind."""
        for name in self.names.values():
            _run("ip", "netns", "del", name)

    def ip(self, where: str, *lines: str) -> None:
        """Have iproute2 carry out commands, one a line, for `host` or a guest."""
        _run("ip", "-n", self.names[where], "-batch", "-", text="\n".join(lines) + "\n")

    def _nft(self, text: str, where: str = "host") -> None:
        _run("ip", "netns", "exec", self.names[where], "nft", "-f", "-", text=text)

    def _legacy(self, text: str) -> None:
        _run("ip", "netns", "exec", self.names["host"], "iptables-legacy-restore", text=text)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within, this thread makes its sockets in the host's namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_RDONLY | os.O_CLOEXEC
        home = os.open("/proc/thread-self/ns/net", flags)
        away = os.open(f"/run/netns/{self.names['host']}", flags)
        try:
            if libc.setns(away, _NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            libc.setns(home, _NEWNET)
            os.close(home)
            os.close(away)


def pairs(without: int = 0) -> frozenset[tuple[int, int]]:
    """All pairs of classes; class 3 (guest c) reaches nobody; those of class `without` neither."""
    numbers = [n for n in range(1, CLASSES + 2) if n not in {3, without}]
    return frozenset((one, other) for one in numbers for other in numbers)


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _wire() -> str:
    """wire.c, compiled once a run."""
    source = Path(__file__).with_name("wire.c")
    binary = Path(tempfile.gettempdir()) / f"xpb-wire-{os.getpid()}"
    if not binary.exists():
        _run("gcc", "-O2", "-o", str(binary), str(source))
    return str(binary)
