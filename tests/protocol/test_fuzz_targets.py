"""The fuzz targets hold on what they begin from; `make fuzz` goes on from there."""

import sys
from importlib import import_module
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tools.fuzz.names import TARGETS  # noqa: E402 - tools/ is not on the path of tests


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_on_its_seeds(name):
    target = import_module(TARGETS[name])
    seeds = list(islice(target.seeds(), 40))
    assert len(seeds) >= 10
    for seed in seeds:
        target.run(seed)
        # A cut input is what a fuzzer makes first.
        target.run(seed[: len(seed) // 2])
    assert len(set(target.words())) > 10


def test_a_target_says_so_where_the_validator_blames_another(monkeypatch):
    rings = import_module(TARGETS["rings"])
    seed = next(iter(rings.seeds()))
    noise = seed[:3] + bytes(7) + b"\1" * 200
    rings.run(noise)

    class Other(rings.RingValidator):
        def response(self, untrusted):
            said = super().response(untrusted)
            return said and type(said)("frontend", *list(said.__struct_fields__)[1:])

    monkeypatch.setattr(rings, "RingValidator", Other)
    with pytest.raises(rings.UnexpectedError):
        rings.run(noise)
