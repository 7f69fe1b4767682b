"""The validator in Python and the one in C say the same of a million messages."""

from __future__ import annotations

import os
import random
import subprocess
import time

import pytest
from support.ring_c import ANSWER_BYTES, SANITIZED, answer, build_harness, connect, record
from support.ring_messages import GIVEN, RINGS, TRAFFIC, rings_of

from broker.protocol.ring import RingValidator

# Fewer will do for a quick look.
MESSAGES = int(os.environ.get("XPB_RING_MESSAGES", "1000000"))
SHARE = {"io": 0.4, "tx": 0.3, "rx": 0.2, "ctrl": 0.1}
EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 0x7F, 0x80, 0xFF)


def _mutated(draw, message, before):
    """Bits flipped, bytes at an edge, another message, or noise; always as long as it was."""
    way = draw.randrange(4)
    if way == 3:
        return before if len(before) == len(message) else draw.randbytes(len(message))
    if way == 2 and draw.random() < 0.2:
        return draw.randbytes(len(message))
    changed = bytearray(message)
    # Heads are where rules are.
    place = draw.randrange(min(len(changed), 32) if draw.random() < 0.7 else len(changed))
    changed[place] = changed[place] ^ 1 << draw.randrange(8) if way else draw.choice(EDGES)
    return bytes(changed)


def _given(draw, rings, usual):
    return {
        one.name: usual[one.name] if draw.random() < 0.6 else draw.choice(_likely(one))
        for one in rings.given
    }


def _likely(one):
    if one.max == 1:
        return (0, 1)
    if one.name == "sectors":
        return (1024, 4096, 2**21, one.max)
    return (512, 4096) if one.name == "sector_size" else (0, 1, 32, 256, one.max)


class _Run:
    """Makes messages for one ring, and keeps what Python says of them."""

    def __init__(self, number, seed):
        self.class_name, self.ring = RINGS[number]
        self.number = number
        self.rings = rings_of(self.class_name)
        self.draw = random.Random(seed)
        self.records, self.wanted = [], []
        self.messages = self.broken = 0
        self.rules = set()

    def make(self, many):
        draw = self.draw
        while self.messages < many:
            given = _given(draw, self.rings, GIVEN[self.class_name])
            slots, abi = draw.choice((1, 2, 4, 16, 32, 32, 64)), draw.choice(self.rings.abis)
            ours = RingValidator(self.rings, self.ring, given=given, slots=slots, abi=abi)
            self.records.append(connect(self.number, self.rings, given, slots, abi))
            self.wanted.append(answer(None, 0))
            # Some frontends are greedy: they believe in more slots than there are.
            believed = slots if draw.random() < 0.9 else slots + 1
            traffic = TRAFFIC[self.ring](draw, given, believed, abi)
            self._connection(ours, traffic, draw.choice((0, 0.05, 0.2, 0.5, 1)))

    def _connection(self, ours, traffic, wild):
        draw = self.draw
        before = b""
        for _ in range(60):
            operation, message = traffic.step()
            if draw.random() < wild:
                message, before = _mutated(draw, message, before), message
            if operation == "L" and not ours.wants:
                return
            if (operation == "L") != bool(ours.wants) or (
                ours.wants and len(message) != ours.wants
            ):
                return
            said = self._say(ours, operation, message)
            self.records.append(record(self.number, operation, message))
            self.wanted.append(answer(said, ours.in_flight))
            self.messages += 1
            if said is not None:
                self.broken += 1
                self.rules.add(said.rule)
                return

    @staticmethod
    def _say(ours, operation, message):
        if operation == "Q":
            return ours.request(message)
        return ours.response(message) if operation == "S" else ours.request_list(message)


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    return build_harness(tmp_path_factory.mktemp("ring"), *SANITIZED)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(len(RINGS)), ids=[ring for _, ring in RINGS])
def test_python_and_c_agree_on_random_and_mutated_messages(harness, number, record_property):
    began = time.monotonic()
    run = _Run(number, seed=20 + number)
    run.make(int(MESSAGES * SHARE[run.ring]))
    made = time.monotonic() - began
    done = subprocess.run([harness], input=b"".join(run.records), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    said = done.stdout
    assert len(said) == ANSWER_BYTES * len(run.wanted)
    for place, wanted in enumerate(run.wanted):
        ours = said[place * ANSWER_BYTES : (place + 1) * ANSWER_BYTES]
        assert ours == wanted, (place, run.records[place].hex())
    took = time.monotonic() - began
    record_property(
        "table",
        f"{run.ring}: {run.messages:,} messages, {run.broken:,} break one of "
        f"{len(run.rules)} rules; {took:.0f} s ({made:.0f} s of it Python)",
    )
    # Both kinds in earnest.
    assert 0.02 < run.broken / run.messages < 0.5
