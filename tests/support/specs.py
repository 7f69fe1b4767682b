"""The shipped protocol descriptions."""

from __future__ import annotations

import functools
from pathlib import Path

from broker.protocol.load import load_spec
from broker.protocol.monitor import Monitor

SPECS = Path(__file__).parents[2] / "protocol_specs"
CLASSES = sorted(path.stem for path in SPECS.glob("*.yaml"))


@functools.cache
def spec(name):
    """A description."""
    path = SPECS / f"{name}.yaml"
    return load_spec(path.read_bytes(), str(path))


@functools.cache
def monitor(name):
    """Its monitor."""
    return Monitor(spec(name))
