"""What filter profiles on vifs cost, measured: make bench ONLY=filter.

Ports have labels and `clean-traffic`, each with addresses of its own. Beside it stands what
libvirt 9.0 does for the same: its own daemon with its own clean-traffic, where Debian's packages
are installed (`libvirt-daemon-driver-nwfilter`… are not part of `make bench`), else its rules as it
writes them, one by one, through ebtables.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from broker.net.model import PortFilter
from tools.bench.bridge.bed import GUESTS, Bed
from tools.bench.bridge.timing import adding, changing, counted, milliseconds
from tools.bench.item import item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.net.enforcer import PortEnforcer
    from broker.net.model import Port, Target

PORTS = (10, 100, 400, 1000)
_ROUNDS, _TRIPS = 15, 3000
_ADD_MS, _UPDATE_MS = 1.0, 100.0
_PROFILES = Path(__file__).parents[3] / "etc" / "filters"
_PEER_PORTS = 20
"""Ports that libvirt's rules are written for: each takes it the better part of a second."""


def _texts() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(_PROFILES.glob("*.yaml"))}


def _clean(port: Port, number: int) -> Port:
    """The port under clean-traffic, with addresses of its own; a guest's are 10.0.0.1 to 3."""
    guest = port.name[1:] in GUESTS
    last = GUESTS.index(port.name[1:]) + 1 if guest else number
    mac = f"02:00:00:00:00:{last:02x}" if guest else f"02:00:00:01:{last >> 8:02x}:{last & 255:02x}"
    address = f"10.0.0.{last}" if guest else f"10.1.{last >> 8}.{last & 255}"
    variables = {
        "MAC": (mac,),
        "IP": (address,),
        "IPV6": (f"fd00::{last:x}",),
        "LINK_LOCAL": (f"fe80::{last:x}",),
    }
    return msgspec.structs.replace(port, filter=PortFilter(("clean-traffic",), variables))


def _filtered(target: Target) -> Target:
    ports = {index: _clean(port, n) for n, (index, port) in enumerate(target.ports.items(), 4)}
    return msgspec.structs.replace(target, ports=ports, profiles=_texts())


def _enforce(bed: Bed) -> PortEnforcer:
    enforcer = bed.enforce()
    enforcer.update(_filtered(enforcer.target))
    return enforcer


def round_trips() -> Iterator[dict[str, Any]]:
    """Between two guests with labels and clean-traffic, beside no filter at all."""
    bed = Bed()
    try:
        for ports in PORTS:
            bed.grow(ports)
            bed.physdev_on(on=False)
            ours, none = [], []
            for _ in range(_ROUNDS):
                _enforce(bed)
                ours.append(bed.trip(_TRIPS))
                bed.release()
                none.append(bed.trip(_TRIPS))
            yield item(
                f"filter_round_trip_{ports}_ports",
                statistics.median(ours),
                "us",
                floor=statistics.median(none),
                target=1.15,
            )
    finally:
        bed.close()


def adding_a_port() -> Iterator[dict[str, Any]]:
    """The N-th port with labels and clean-traffic, in process, read back included.

    By processor time, the kernel's for it included: it is all done when the call returns.
    """
    bed = Bed()
    try:
        for ports in PORTS:
            bed.grow(ports)
            enforcer = _enforce(bed)
            port = next(it for it in enforcer.target.ports.values() if it.name == "ga")
            took = adding(enforcer, port)
            beside = f"elapsed: {took.elapsed:.2f} ms"
            name = f"filter_add_port_{ports}"
            yield item(name, took.processor, "ms", floor=_ADD_MS, target=1.0, beside=beside)
            if ports == PORTS[1]:
                yield _beside_ebtables(bed, took.processor)
    finally:
        bed.close()


def _beside_ebtables(bed: Bed, ours: float) -> dict[str, Any]:
    """Libvirt's rules for one more port: each by a program of its own, as libvirt runs them."""
    taken = []
    for number in range(_PEER_PORTS):
        began = time.perf_counter()
        for rule in libvirt_rules(f"p{number + 1}"):
            command = ["ip", "netns", "exec", bed.names["host"], "ebtables", "--concurrent", *rule]
            subprocess.run(command, check=True, capture_output=True)
        taken.append((time.perf_counter() - began) * 1000)
    peer = statistics.median(taken)
    return item(
        "filter_add_port_beside_ebtables",
        ours,
        "ms",
        floor=peer,
        target=0.01,
        beside=f"libvirt 9.0's clean-traffic through ebtables: {peer:,.0f} ms for a port",
    )


def libvirt_rules(port: str) -> list[list[str]]:
    """What libvirt 9.0's nwfilter runs for `clean-traffic` on one interface (see reference)."""
    chains = {
        "I": ["", "-mac", "-ipv4-ip", "-arp-mac", "-arp-ip", "-ipv4", "-arp", "-rarp"],
        "O": ["", "-ipv4"],
    }
    rules: list[list[str]] = []
    for way, kinds in chains.items():
        rules += [["-t", "nat", "-N", f"libvirt-{way}-{port}{kind}"] for kind in kinds]
    mac, address = "02:00:00:01:00:01", "10.1.0.1"
    top = f"libvirt-I-{port}"
    for kind, more in (
        ("-mac", []),
        ("-ipv4-ip", ["-p", "IPv4"]),
        ("-ipv4", ["-p", "IPv4"]),
        ("-arp-mac", ["-p", "ARP"]),
        ("-arp-ip", ["-p", "ARP"]),
        ("-arp", ["-p", "ARP"]),
        ("-rarp", ["-p", "0x8035"]),
    ):
        rules.append(["-t", "nat", "-A", top, *more, "-j", f"{top}{kind}"])
    rules += [
        ["-t", "nat", "-A", f"{top}-mac", "-s", mac, "-j", "RETURN"],
        ["-t", "nat", "-A", f"{top}-mac", "-j", "DROP"],
        ["-t", "nat", "-A", f"{top}-ipv4-ip", "-p", "IPv4", "--ip-source", address, "-j", "RETURN"],
        ["-t", "nat", "-A", f"{top}-ipv4-ip", "-j", "DROP"],
        ["-t", "nat", "-A", f"{top}-arp-mac", "-p", "ARP", "--arp-mac-src", mac, "-j", "RETURN"],
        ["-t", "nat", "-A", f"{top}-arp-mac", "-j", "DROP"],
        ["-t", "nat", "-A", f"{top}-arp-ip", "-p", "ARP", "--arp-ip-src", address, "-j", "RETURN"],
        ["-t", "nat", "-A", f"{top}-arp-ip", "-j", "DROP"],
        ["-t", "nat", "-A", "PREROUTING", "-i", port, "-j", top],
        ["-t", "nat", "-A", "POSTROUTING", "-o", port, "-j", f"libvirt-O-{port}"],
        ["-t", "nat", "-A", f"libvirt-O-{port}", "-p", "IPv4", "-j", f"libvirt-O-{port}-ipv4"],
        ["-t", "nat", "-A", f"libvirt-O-{port}-ipv4", "-j", "ACCEPT"],
    ]
    return rules


def profile_update() -> Iterator[dict[str, Any]]:
    """A profile that 1,000 ports use replaced and put back, under traffic it accepts and drops.

    From a to b everything is allowed throughout; from a to c the labels do not allow it. What one
    text drops and the other too must never pass: c's packets; what both accept must never be lost.
    """
    bed = Bed()
    try:
        bed.grow(PORTS[-1])
        enforcer = _enforce(bed)
        target = enforcer.target
        texts = dict(target.profiles)
        name = "no-mac-spoofing.yaml"
        other = texts[name].replace(
            b"rules:\n", b"rules:\n  - {drop: from-guest, match: {ether.type: 0x88b5}}\n"
        )
        steps = [
            msgspec.structs.replace(target, profiles={**texts, name: text})
            for text in (other, texts[name])
        ]

        spent: list[float] = []

        def change() -> list[float]:
            began = time.process_time()
            took = [milliseconds(partial(enforcer.update, to)) for to in steps]
            spent.append((time.process_time() - began) * 1000 / len(steps))
            return took

        took = changing(bed, change, 5)
        quiet = statistics.median(took.quiet)
        loaded = (
            f"under traffic: {statistics.median(took.loaded):.1f} ms; "
            f"of the processor: {statistics.median(spent):.1f} ms"
        )
        yield item(
            "filter_update_1000_ports", quiet, "ms", floor=_UPDATE_MS, target=1.0, beside=loaded
        )
        yield from counted("filter_update", took.blasted, len(took.loaded))
    finally:
        bed.close()


def items() -> Iterator[dict[str, Any]]:
    """All of them."""
    yield from adding_a_port()
    yield from profile_update()
    yield from round_trips()
