"""What brokerd takes: memory at rest, with a full host, after a million events; and its start.

Memory is what is resident (`VmRSS`), in MiB. The events are of every kind a running host makes:
what guests rewrite, what agents report, and for each tenth a new life of a channel, which is
decided. The start is from `exec` to the first new decision in the store, less what the interpreter
itself takes.
"""

from __future__ import annotations

import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.xenstore import paths
from tools.bench.decisions import BROKER, burst
from tools.bench.item import item
from tools.bench.responder import EVENT, WRITE, Wire, frame
from tools.bench.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAINS: Final = 1_000
DEVICES: Final = 4
EVENTS: Final = 1_000_000
WARM: Final = 100_000
"""Events after which nothing should grow any more."""
ROUNDS: Final = 5
REST_MIB, FULL_MIB = 65.0, 100.0
GROWTH: Final = 1.02
START_SECONDS: Final = 0.5
_WINDOW: Final = 32


def items() -> Iterator[dict[str, Any]]:
    """At rest, full, after the events; then the start."""
    rig = Rig("C", 1, 1)
    try:
        with rig.brokerd() as pid:
            rest = resident(pid)
    finally:
        rig.close()
    yield item("memory-rest", rest, "MiB", floor=REST_MIB, target=1.0)
    rig = Rig("C", DOMAINS, DEVICES)
    try:
        with rig.brokerd() as pid:
            burst(rig, BROKER, DOMAINS * DEVICES)
            time.sleep(3)  # what is only for people is written last
            full = resident(pid)
            yield item(f"memory-{DOMAINS}x{DEVICES}", full, "MiB", floor=FULL_MIB, target=1.0)
            stir(rig, WARM)
            before = resident(pid)
            stir(rig, EVENTS)
            after = resident(pid)
    finally:
        rig.close()
    yield item(
        f"memory-after-{EVENTS}", after, "MiB", floor=before, target=GROWTH,
        beside=f"after {WARM:,} events",
    )  # fmt: skip
    yield item("start-to-decision", _start(), "s", floor=START_SECONDS, target=1.0)


def resident(pid: int) -> float:
    """What of a process is in memory, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def stir(rig: Rig, events: int) -> None:
    """Make so many events, as fast as the store takes them."""
    wire = Wire(str(rig.store.path))
    sent = answered = 0
    channels = rig.channels
    while answered < events:
        while sent < events and sent - answered < _WINDOW:
            wire.socket.sendall(_event(sent, *channels[sent * 7 % len(channels)]))
            sent += 1
        answered += sum(operation == WRITE for operation, _ in wire.receive() if operation != EVENT)
    wire.socket.close()
    time.sleep(3)


def _event(number: int, domid: int, dev: int) -> bytes:
    home = paths.frontend_dir(domid, "vif", str(dev))
    if number % 10 == 0:
        path, value = BROKER.request(domid, dev), secrets.token_hex(16)
    elif number % 10 < 5:
        path, value = f"{home}/backend-id", "0"
    elif number % 10 < 8:
        path, value = f"{home}/state", str(1 + number % 6)
    else:
        path = BROKER.request(domid, dev).removesuffix("nonce") + "enforced"
        value = f"closed seq=- nonce={secrets.token_hex(16)} reason=bench"
    return frame(WRITE, 1, path.encode() + b"\0" + value.encode())


def _start() -> float:
    """The median of several starts on the same state, seconds."""
    rig = Rig("embedded", 1, 1)
    decision = BROKER.decision(1, 0)
    taken = []
    try:
        with rig.brokerd():
            pass
        for _ in range(ROUNDS):
            before = rig.value(decision)
            rig.client.write(BROKER.request(1, 0), secrets.token_hex(16).encode())
            began = time.perf_counter()
            with rig.brokerd_again():
                while rig.value(decision) == before:
                    time.sleep(0.001)
                taken.append(time.perf_counter() - began)
    finally:
        rig.close()
    return statistics.median(taken) - _interpreter()


def _interpreter() -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
