"""Many domains: a storm of boots, one relabel, one policy swap.

The storm's floor is the same nodes written to the same kind of store without a broker: what is
over is what the broker adds, deciding included. A relabel's floor is the same among 50 domains:
it touches one domain, however many there are. The swap's is the raw responder answering as many
requests: each record names the policy it was made by, so each is made anew.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from broker.rpc.client import Client
from broker.rpc.methods import LabelSet, PolicyLoad
from broker.sim.toolstack import attach_requests, create_requests, vif
from broker.xenstore import requests, wire
from tools.bench.decisions import BROKER, RAW, burst
from tools.bench.item import item
from tools.bench.responder import Wire, frame
from tools.bench.rig import PATIENCE, POLICY, Rig, send_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.xenstore.requests import Request

BOOTING: Final = 1_000
DEVICES: Final = 4
LIVING: Final = 5_000
FEW: Final = 50
STORM_TARGET: Final = 2.0
RELABEL_TARGET: Final = 2.0
SWAP_TARGET: Final = 2.0
RELABELS: Final = 21
OTHER: Final = POLICY.replace("  bench:", "  other: {ste: [guests]}\n  bench:")


def items() -> Iterator[dict[str, Any]]:
    """The storm on C xenstored; the rest on the embedded store, which fills in no time.

    oxenstored has no storm: with a watcher on its socket it can stall (docs/xenstore-daemons.md).
    """
    yield _storm("C")
    few = _living(FEW)
    relabel, swap = _living(LIVING)
    yield item(
        f"relabel-{LIVING}", relabel * 1e3, "ms", floor=few[0] * 1e3, target=RELABEL_TARGET,
        beside=f"among {FEW} domains",
    )  # fmt: skip
    yield item(
        f"policy-swap-{LIVING}", swap, "s", floor=_raw(LIVING), target=SWAP_TARGET,
        beside=f"raw Python responder, {LIVING:,} requests",
    )  # fmt: skip


def _storm(kind: str) -> dict[str, Any]:
    boots = [_boot(domid) for domid in range(2, BOOTING + 2)]
    rig = Rig(kind, 1, 1)
    try:
        with rig.brokerd():
            ours = _write(rig, boots, wait=True)
    finally:
        rig.close()
    rig = Rig(kind, 1, 1)
    try:
        alone = _write(rig, boots, wait=False)
    finally:
        rig.close()
    return item(
        f"boot-storm-{BOOTING}x{DEVICES}-{kind}", ours, "s", floor=alone, target=STORM_TARGET,
        beside=f"{BOOTING * DEVICES / ours:,.0f} channels decided a second, from nothing",
    )  # fmt: skip


def _boot(domid: int) -> list[Request]:
    """What a toolstack and the backend's agent write for one domain and its devices."""
    changes = create_requests(domid, f"00000000-0000-4000-8000-{domid:012d}", "bench")
    for dev in range(DEVICES):
        changes += attach_requests(domid, vif(dev, f"00:16:3e:01:{dev:02x}:01"))
    # Nobody introduced the domains: C xenstored would refuse permissions for them.
    changes = [it for it in changes if it[0] not in (wire.SET_PERMS, wire.RM)]
    for dev in range(DEVICES):
        nonce = secrets.token_hex(16).encode()
        changes.append(requests.write(BROKER.request(domid, dev), nonce))
    return changes


def _write(rig: Rig, boots: list[list[Request]], *, wait: bool) -> float:
    """Seconds until all is written and, if there is someone to wait for, granted."""
    began = time.perf_counter()
    for changes in boots:
        send_all(rig.client, changes)
    if wait:
        # A later domain may be decided before an earlier one: all of them are looked at.
        for domid in range(2, len(boots) + 2):
            for dev in range(DEVICES):
                _until_granted(rig, BROKER.decision(domid, dev))
    return time.perf_counter() - began


def _living(domains: int) -> tuple[float, float]:
    """Seconds of one relabel and of one policy swap among so many domains of one device."""
    rig = Rig("embedded", domains, 1)
    try:
        with rig.brokerd():
            client = Client(str(rig.directory / "run" / "rpc.sock"))
            burst(rig, BROKER, domains)
            uuid = f"00000000-0000-4000-8000-{domains // 2:012d}"
            every = {BROKER.decision(*channel).encode() for channel in rig.channels}
            _until_written(rig, every, lambda: client.call("policy.load", PolicyLoad(text=OTHER)))
            taken = []
            for number in range(RELABELS):
                label = ("other", "bench")[number % 2]
                path = BROKER.decision(domains // 2, 0)
                before = rig.value(path)
                began = time.perf_counter()
                client.call("label.set", LabelSet(domain=uuid, label=label))
                while rig.value(path) == before:
                    pass
                taken.append(time.perf_counter() - began)
            again = PolicyLoad(text=OTHER + "# again\n")
            swap = _until_written(rig, every, lambda: client.call("policy.load", again))
    finally:
        rig.close()
    return sorted(taken)[RELABELS // 2], swap


def _until_written(rig: Rig, paths: set[bytes], act: Callable[[], object]) -> float:
    """Seconds from the call of `act` until the last of `paths` was written."""
    wire_ = Wire(str(rig.store.path))
    wire_.socket.sendall(frame(wire.WATCH, 0, BROKER.top.encode() + b"\0b\0"))
    wire_.receive()
    missing = set(paths)
    began = time.perf_counter()
    act()
    while missing:
        missing.difference_update([payload.split(b"\0")[0] for _, payload in wire_.receive()])
    took = time.perf_counter() - began
    wire_.socket.close()
    return took


def _until_granted(rig: Rig, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (rig.value(path) or b"").startswith(b"grant"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was not granted")


def _raw(requests_: int) -> float:
    rig = Rig("embedded", requests_, 1)
    try:
        with rig.responder():
            return requests_ / burst(rig, RAW, requests_)
    finally:
        rig.close()
