"""Whatever a description says, the header made from it agrees with the validator."""

from __future__ import annotations

import random
import subprocess

import pytest
from random_rings import ABIS, Maker
from support.ring_c import (
    ANSWER_BYTES,
    SANITIZED,
    answer,
    compile_harness,
    connect,
    record,
    write_rings,
)

from broker.protocol.c_header import c_header
from broker.protocol.ring import RingValidator
from broker.protocol.ring_check import read_rings
from broker.protocol.ring_form import RingForm
from broker.text.marked_yaml import load_struct

DESCRIPTIONS = 10
MESSAGES = 2000


def tables(seed, ring):
    """The tables of a random section; None where it is refused, as a few are."""
    form = load_struct(Maker(random.Random(seed), ring).section().encode(), "F", RingForm)
    rings, problems = read_rings(form, "F")
    return None if problems else rings


def noise(draw, size):
    """Bytes among which small numbers and edges are common."""
    return bytes(
        draw.choice((0, 0, 0, 0, 1, 1, 2, 3, 128, 255, draw.randrange(256))) for _ in range(size)
    )


def played(number, rings, draw):
    """Records for the harness, what it has to answer, and which rules were broken."""
    records, wanted, broken = [], [], set()
    [ring] = rings.rings
    while len(records) < MESSAGES:
        given = {one.name: draw.choice((one.min, one.max)) for one in rings.given}
        slots, abi = ring.slots >> draw.randrange(2) or 1, draw.choice(rings.abis)
        ours = RingValidator(rings, ring.name, given=given, slots=slots, abi=abi)
        records.append(connect(number, rings, given, slots, abi))
        wanted.append(answer(None, 0))
        said = None
        while said is None:
            if ours.wants:
                operation, message = "L", noise(draw, ours.wants)
                said = ours.request_list(message)
            elif draw.random() < 0.5:
                operation, message = "Q", noise(draw, max(ring.requests.size))
                said = ours.request(message)
            else:
                operation, message = "S", noise(draw, max(ring.responses.size))
                said = ours.response(message)
            records.append(record(number, operation, message))
            wanted.append(answer(said, ours.in_flight))
        broken.add(said.rule)
    return records, wanted, broken


@pytest.mark.timeout(600)
def test_the_headers_of_random_descriptions_agree(tmp_path):
    made, seed = [], 0
    while len(made) < DESCRIPTIONS:
        seed += 1
        name, ring = f"odd{len(made)}", f"r{len(made)}"
        rings = tables(seed, ring)
        if rings is not None:
            assert rings.abis == ABIS
            (tmp_path / f"{name}.h").write_text(c_header(name, "sha256:0", rings))
            made.append((name, rings, ring))
    write_rings(tmp_path, made)
    harness = compile_harness(tmp_path, *SANITIZED)
    for number, (_, rings, _) in enumerate(made):
        records, wanted, broken = played(number, rings, random.Random(number))
        done = subprocess.run([harness], input=b"".join(records), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        out = done.stdout
        said = [out[at : at + ANSWER_BYTES] for at in range(0, len(out), ANSWER_BYTES)]
        assert said == wanted
        assert len(broken) >= 2
    # Most of what the maker makes is good, so what was tried is no odd remainder.
    assert seed < 2 * DESCRIPTIONS
