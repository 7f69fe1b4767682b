"""Drivers made from a description connect, wait at a gate, and close, and no monitor complains."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.protocol.conditions import SIDES
from broker.protocol.monitor import Monitor
from broker.service.specs import load_specs
from broker.sim.protocol_driver import Driver
from broker.sim.protocol_pair import Pair

SPECS = load_specs(Path(__file__).parents[2] / "protocol_specs")
WITH_STATES = {name: it for name, it in SPECS.items() if it.form.frontend.transitions is not None}
STEPS = 50


class Bench:
    """Both drivers of one device on one pair of directories, watched by the monitor."""

    def __init__(self, spec):
        pair = Pair(spec)
        pair.create()
        self.spec = spec
        self.ends = [pair.bytes_of(side) for side in SIDES]
        self.drivers = [Driver(spec, side) for side in SIDES]
        self.monitor = Monitor(spec)
        self.life = self.monitor.begin()
        self.now = 0.0
        self.looks = 0
        self.look()

    def look(self):
        self.now += 0.1
        self.life, violations = self.monitor.step(self.life, self.now, *self.ends)
        assert violations == ()

    def hotplug(self):
        for text, value in self.spec.form.gate.opened_by.items():
            side, _, key = text.partition("/")
            self.ends[SIDES.index(side)][str(key)] = str(value).encode()

    def run(self, order=(0, 1)):
        """Each driver in turn until both wait."""
        for _ in range(STEPS):
            moved = False
            for number in order:
                writes = self.drivers[number].next(*self.ends)
                if writes:
                    assert writes[-1][0] == "state"
                    self.ends[number].update(writes)
                    self.look()
                    moved = True
            if not moved:
                return
        raise AssertionError("the drivers never rest")

    @property
    def states(self):
        return tuple(int(it.get("state", b"0")) for it in self.ends)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", sorted(WITH_STATES))
def test_both_ends_of_every_class_connect_and_close_without_a_violation(name, order):
    bench = Bench(WITH_STATES[name])
    if bench.spec.form.gate is not None:
        bench.run(order)
        assert bench.states[1] < 4
        bench.hotplug()
    bench.run(order)
    assert bench.states == (4, 4)
    closing = b"5" if 5 in bench.drivers[1]._moves[4] else b"6"
    bench.ends[1]["state"] = closing
    bench.look()
    bench.run(order)
    assert set(bench.states) <= {5, 6}
    assert bench.states[0] == 6


@pytest.mark.parametrize("name", sorted(WITH_STATES))
def test_a_backend_whose_frontend_is_gone_closes(name):
    bench = Bench(WITH_STATES[name])
    if bench.spec.form.gate is not None:
        bench.hotplug()
    bench.run()
    bench.ends[0].clear()
    bench.run()
    assert bench.states == (0, 6)


def test_no_driver_makes_a_device():
    for spec in WITH_STATES.values():
        for side in SIDES:
            assert Driver(spec, side).next({}, {}) == []


def test_a_gate_is_closed_as_long_as_no_hotplug_script_was_there():
    spec = SPECS["vif"]
    bench = Bench(spec)
    bench.ends[1].pop("hotplug-status")
    bench.run()
    assert bench.states == (4, 2)
    bench.ends[1]["hotplug-status"] = b"error"
    assert bench.drivers[1].next(*bench.ends) == []
    bench.hotplug()
    bench.run()
    assert bench.states == (4, 4)
