"""Request to decision: how long one takes, and how many a second a burst gets.

A request is the backend agent's report of a nonce for a known channel; the decision is the
signed record's event at a client that watches it. The floor is `responder.py`.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tools.bench.item import item
from tools.bench.responder import EVENT, WATCH, WRITE, Wire, frame
from tools.bench.rig import Rig

Path = Callable[[int, int], str]
DEVICES = 4
REQUESTS = 1000
ROUNDS = 5
P50_TARGET, P99_TARGET = 1.7, 2.0
RIGS: tuple[tuple[str, int, float | None], ...] = (
    ("C", 500, 8000.0),
    ("C", 1250, 10_000.0),
    ("oxenstored", 500, None),
)
"""Daemon, domains, and the decisions a second asked for in a burst of all their devices.

One request after another is measured where there are fewest: what a request costs C xenstored grows
with its nodes, and a decision is more requests than the floor's.
"""
FEWEST = 500


@dataclass
class Paths:
    """Where requests go, and where decisions appear."""

    top: str
    request: Path
    decision: Path


BROKER = Paths(
    "/broker/v1/decision",
    lambda domid, dev: f"/broker/v1/report/0/vif/{domid}/{dev}/nonce",
    lambda domid, dev: f"/broker/v1/decision/0/vif/{domid}/{dev}",
)
RAW = Paths(
    "/bench/decision",
    lambda domid, dev: f"/bench/request/{domid}/{dev}",
    lambda domid, dev: f"/bench/decision/{domid}/{dev}",
)


def items() -> Iterator[dict[str, Any]]:
    """Both real daemons: p50, p99, and the bursts."""
    for kind, domains, required in RIGS:
        rig = Rig(kind, domains, DEVICES)
        try:
            with rig.responder():
                floor, raw = _measure(rig, RAW)
            with rig.brokerd():
                ours, rate = _measure(rig, BROKER)
        finally:
            rig.close()
        name = f"decision-{kind}"
        if domains == FEWEST:
            yield item(f"{name}-p50", ours[0], "us", floor=floor[0], target=P50_TARGET)
            yield item(f"{name}-p99", ours[1], "us", floor=floor[1], target=P99_TARGET)
        yield item(
            f"{name}-burst-{domains * DEVICES}",
            rate,
            "decisions/s",
            floor=required or raw,
            target=1.0 if required else None,
            beside=f"raw Python responder {raw:,.0f}/s",
            throughput=True,
        )


def _measure(rig: Rig, paths: Paths) -> tuple[tuple[float, float], float]:
    """p50 and p99, and the median rate of a burst of all channels."""
    alone = latencies(rig, paths, REQUESTS)
    rates = [burst(rig, paths, len(rig.channels)) for _ in range(ROUNDS)]
    return alone, statistics.median(rates)


def latencies(rig: Rig, paths: Paths, count: int) -> tuple[float, float]:
    """p50 and p99 in microseconds of `count` requests, one after another."""
    client = rig.store.client()
    client.watch(paths.top, "bench")
    client.drain_events()
    taken: list[float] = []
    for number in range(count + 50):
        domid, dev = rig.channels[number * 7 % len(rig.channels)]
        wanted = paths.decision(domid, dev)
        nonce = secrets.token_hex(16).encode()
        began = time.perf_counter()
        client.write(paths.request(domid, dev), nonce)
        while client.next_event()[0] != wanted:
            pass
        taken.append((time.perf_counter() - began) * 1e6)
        time.sleep(0.0005)
    client.close()
    warm = sorted(taken[50:])
    return statistics.median(warm), warm[int(len(warm) * 0.99)]


def burst(rig: Rig, paths: Paths, count: int) -> float:
    """Decisions a second when `count` requests are written as fast as the store takes them."""
    wire = Wire(str(rig.store.path))
    wire.socket.sendall(frame(WATCH, 0, paths.top.encode() + b"\0b\0"))
    wire.receive()
    channels = rig.channels[:count]
    waiting = {paths.decision(*channel).encode() for channel in channels}
    requests = [
        frame(WRITE, 1, paths.request(*it).encode() + b"\0" + secrets.token_hex(16).encode())
        for it in channels
    ]
    time.sleep(1)  # what the burst before left for people to see is not this one's
    began = time.perf_counter()
    sent = answered = 0
    while waiting:
        # No more than 32 unanswered: a store that blocks on a full socket would stop both.
        while sent < len(requests) and sent - answered < 32:
            wire.socket.sendall(b"".join(requests[sent : sent + 8]))
            sent += len(requests[sent : sent + 8])
        for operation, payload in wire.receive():
            if operation == EVENT:
                waiting.discard(payload.split(b"\0")[0])
            elif operation == WRITE:
                answered += 1
    took = time.perf_counter() - began
    wire.socket.close()
    return count / took
