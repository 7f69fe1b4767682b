"""Reconciling with nothing to publish, beside a pipelined client that reads the same nodes.

brokerd runs in this process; its connection is dropped, and the time from
the new connection to `enforcing` is taken. The floor sends the very requests that it sent, batch
by batch, on a bare client, and drops the answers.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred

from broker.rpc.selector import Selector
from broker.service.config import Settings
from broker.service.main import Brokerd
from broker.xenstore import wire
from broker.xenstore.client import StoreConnection
from broker.xenstore.transport import connect
from tools.bench.item import item
from tools.bench.rig import PATIENCE, POLICY, ROOT, Rig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from broker.xenstore.errors import StoreError

SIZES = (
    (25, 4, "C"),
    (100, 3, "C"),
    (1_000, 3, "C"),
    (5_000, 3, "embedded"),
    (5_000, 4, "embedded"),
)
"""Domains, devices of each, and the store: to fill C xenstored or oxenstored with the nodes of
5,000 domains takes many minutes (what one node costs them grows with how many there are).
"""
ROUNDS = 3
TARGET = 1.5
_READS = frozenset({wire.READ, wire.DIRECTORY, wire.DIRECTORY_PART, wire.GET_PERMS})

Batches = list[tuple[list[tuple[int, bytes]], int]]
"""Requests that were sent together, and in which transaction."""


def items() -> Iterator[dict[str, Any]]:
    """One item a size; the reactor runs once for all of them."""
    results: list[dict[str, Any]] = []

    async def measure_all() -> None:
        results.extend([await _measure(*it) for it in SIZES])

    def done(result: object) -> object:
        reactor.stop()
        return result

    finished = Deferred.fromCoroutine(measure_all()).addBoth(done)
    reactor.run()
    finished.addErrback(lambda failure: failure.raiseException())
    yield from results


async def _measure(size: int, devices: int, kind: str) -> dict[str, Any]:
    rig = Rig(kind, size, devices)
    state = Path(tempfile.mkdtemp(prefix="xpb-bench-"))
    (state / "policy.yaml").write_text(POLICY)
    settings = Settings(
        store=rig.store.address,
        state=state / "state",
        policy=state / "policy.yaml",
        specs=ROOT / "protocol_specs",
        socket=state / "rpc.sock",
        adopt_labels=False,
        burst=100_000,
        refill=1.0,
    )
    brokerd = Brokerd(settings, reactor, init=True)
    try:
        brokerd.start()
        await _until(lambda: brokerd.engine.phase == "enforcing")
        brokerd.admin.labels.assign(Selector("name", "bench"), "bench", "bench")
        await _until(lambda: _settled(brokerd, size * devices))
        times = [await _reconcile(brokerd) for _ in range(ROUNDS)]
        batches = await _requests_of(brokerd)
        floors = [await _read_alone(rig.store.address, batches) for _ in range(ROUNDS)]
    finally:
        await brokerd.stop()
        rig.close()
        shutil.rmtree(state)
    reads = sum(len(requests) for requests, _ in batches)
    return item(
        f"reconcile-{size}x{devices}-{kind}",
        statistics.median(times) * 1e3,
        "ms",
        floor=statistics.median(floors) * 1e3,
        target=TARGET,
        beside=f"{reads:,} nodes read by a pipelined client alone",
    )


async def _reconcile(brokerd: Brokerd) -> float:
    """Seconds from a new connection to `enforcing`."""
    engine = brokerd.engine
    started: list[float] = []
    connected: Callable[[StoreConnection], Awaitable[None]] = engine.connected

    async def timed(connection: StoreConnection) -> None:
        started.append(time.perf_counter())
        await connected(connection)
        started.append(time.perf_counter())

    engine.connected = timed
    try:
        seq = engine.state.seq
        engine.start_over()
        await _until(lambda: len(started) > 1 and engine.phase == "enforcing")
    finally:
        del engine.connected
    if engine.state.seq != seq:
        raise RuntimeError("a reconcile that should publish nothing published something")
    return started[1] - started[0]


async def _requests_of(brokerd: Brokerd) -> Batches:
    """What a reconcile asks the store, in its batches."""
    batches: Batches = []
    send = StoreConnection.request_many

    def recording(
        self: StoreConnection, requests: Sequence[tuple[int, bytes]], tx: int = 0
    ) -> Deferred[list[bytes | StoreError]]:
        if requests and all(operation in _READS for operation, _ in requests):
            batches.append((list(requests), tx))
        return send(self, requests, tx)

    StoreConnection.request_many = recording
    try:
        await _reconcile(brokerd)
    finally:
        StoreConnection.request_many = send
    return batches


async def _read_alone(address: str, batches: Batches) -> float:
    connection = StoreConnection(lambda _path, _token: None, reactor)
    await connect(reactor, address, connection)
    began = time.perf_counter()
    for requests, tx in batches:
        await connection.request_many(requests, tx)
    took = time.perf_counter() - began
    connection.close()
    await connection.lost
    return took


def _settled(brokerd: Brokerd, channels: int) -> bool:
    engine = brokerd.engine
    return len(engine.state.ledger) == channels and not engine.decider.pending


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("brokerd did not settle")
        await task.deferLater(reactor, 0.02)
    await task.deferLater(reactor, 0.2)
