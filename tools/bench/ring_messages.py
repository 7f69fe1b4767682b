"""What checking a ring's messages costs: make bench ONLY=ring.

The generated C header over requests of the most segments, each with its response, beside copying
the same bytes; and the validator in Python over the same. 32 are in flight, ids and grants are
random, 64 connections' worth of them, so that no branch is learnt by heart.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.ring_c import build_harness, connect, record
from support.ring_messages import (
    EXTRA,
    GIVEN,
    RINGS,
    blk,
    blk_done,
    gso,
    rings_of,
    segments,
    tx,
    tx_done,
)

from broker.protocol.ring import RingValidator
from tools.bench.item import item

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_NS = 50.0
"""What a request may cost."""
_SLOTS, _BATCHES, _TRIES, _ROUNDS = 32, 64, 7, "200"

Messages = list[tuple[str, bytes]]


def items() -> Iterator[dict[str, Any]]:
    """The header on a disk's and on a transmit ring; the validator on a disk's."""
    with tempfile.TemporaryDirectory() as place:
        harness = build_harness(Path(place), "-O2")
        for ring, messages, what in (
            (0, _disk(), "a read of 11 segments and its response"),
            (1, _network(), "a packet of two slots and its responses"),
        ):
            ours, copying = _c(harness, ring, messages)
            requests = sum(operation == "Q" for operation, _ in messages)
            ours, copying = (one * len(messages) / requests for one in (ours, copying))
            name = f"ring_c_{RINGS[ring][0]}_{RINGS[ring][1]}"
            beside = f"{what}, per request; copying alone {copying:.1f} ns"
            yield item(name, ours, "ns", floor=_MOST_NS, target=1.0, beside=beside)
            yield item(f"{name}_over_copying", ours, "ns", floor=copying)
    messages = _disk()
    yield item("ring_python_vbd_io", _python(messages), "messages/s", throughput=True)


def _disk() -> Messages:
    draw = random.Random(1)
    made: Messages = []
    for batch in range(_BATCHES):
        names = [draw.getrandbits(59) << 5 | n for n in range(_SLOTS)]
        for name in names:
            grefs = draw.sample(range(8, 2**20), 11)
            segs = b"".join(segments(1, gref=gref) for gref in grefs)
            made.append(("Q", blk("x86_64-abi", batch & 1, name, draw.randrange(4000), segs)))
        draw.shuffle(names)
        made += [("S", blk_done("x86_64-abi", name, batch & 1)) for name in names]
    return made


def _network() -> Messages:
    draw = random.Random(1)
    made: Messages = []
    for _ in range(_BATCHES):
        names = draw.sample(range(2**16), _SLOTS // 2)
        for name in names:
            made.append(("Q", tx(name, 1400, draw.randrange(2000), EXTRA)))
            made.append(("Q", gso(draw.randrange(500, 1400))))
        for name in names:
            made += [("S", tx_done(name)), ("S", tx_done(0, 1))]
    return made


def _c(harness: Path, ring: int, messages: Messages) -> tuple[float, float]:
    """Nanoseconds a message, and for copying it; the least of some tries."""
    name = RINGS[ring][0]
    rings = rings_of(name)
    records = [connect(ring, rings, GIVEN[name], _SLOTS, rings.abis[0])]
    records += [record(ring, *message) for message in messages]
    tries = []
    for _ in range(_TRIES):
        run = subprocess.run(
            [harness, _ROUNDS], input=b"".join(records), capture_output=True, check=True
        )
        ours, copying, broken = map(float, run.stdout.split())
        if broken:
            raise RuntimeError(f"{broken:.0f} of the good messages were found bad")
        tries.append((ours, copying))
    return min(ours for ours, _ in tries), min(copying for _, copying in tries)


def _python(messages: Messages) -> float:
    validator = RingValidator(
        rings_of("vbd"), "io", given=GIVEN["vbd"], slots=_SLOTS, abi="x86_64-abi"
    )
    began = time.perf_counter()
    for operation, message in messages:
        check = validator.request if operation == "Q" else validator.response
        if check(message) is not None:
            raise RuntimeError("a good message was found bad")
    return len(messages) / (time.perf_counter() - began)
