"""What labels on a bridge cost, measured: make bench ONLY=bridge."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from tools.bench.bridge.bed import CLASSES, Bed, pairs
from tools.bench.bridge.timing import RATE, SECONDS, adding, changing, counted, milliseconds
from tools.bench.bridge.whole import Change, Whole
from tools.bench.item import item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.net.model import Target

PORTS = (10, 100, 400, 1000)
_ROUNDS, _TRIPS = 16, 3000
_LIMIT_MS, _CHANGE_MS = 1.0, 60.0
"""What adding a port, and changing 10,000 pairs, may take."""


def round_trips() -> Iterator[dict[str, Any]]:
    """Between two guests, with the labels in force, beside no filter and beside physdev rules.

    Two hosts have as many ports; in each round labels are in force in the other one of them.
    """
    beds = Bed(), Bed()
    try:
        for ports in PORTS:
            for bed in beds:
                bed.grow(ports)
                bed.physdev_on(on=False)
            ours, none = [], []
            for number in range(_ROUNDS):
                governed, free = beds if number % 2 else beds[::-1]
                governed.enforce()
                with_labels, without = governed.trips_beside(free, _TRIPS)
                ours.append(with_labels)
                none.append(without)
                governed.release()
            beside = None
            if ports <= 400:
                beds[0].physdev(ports)
                beds[0].physdev_on(on=True)
                beside = f"iptables physdev, a rule per pair: {beds[0].trip(1000):,.1f} us"
                beds[0].physdev_on(on=False)
                beds[0].release()
            yield item(
                f"bridge_round_trip_{ports}_ports",
                statistics.median(ours),
                "us",
                floor=statistics.median(none),
                target=1.10,
                beside=beside,
            )
    finally:
        for bed in beds:
            bed.close()


def adding_a_port() -> Iterator[dict[str, Any]]:
    """The N-th port, in process, read back included; against the millisecond it may take."""
    bed = Bed()
    try:
        for ports in PORTS:
            bed.grow(ports)
            enforcer = bed.enforce()
            port = next(p for p in enforcer.target.ports.values() if p.name == "ga")
            port = msgspec.structs.replace(port, macs=("02:00:00:00:00:01",))
            took = adding(enforcer, port).elapsed
            yield item(f"bridge_add_port_{ports}", took, "ms", floor=_LIMIT_MS, target=1.0)
    finally:
        bed.close()


def policy_change() -> Iterator[dict[str, Any]]:
    """10,000 pairs of classes to none and back, under traffic of a pair that both allow.

    The time is from the new pairs to the kernel's holding them, read back and compared. Lost and
    leaked are packets, of all that were sent to the allowed and to the denied guest.
    """
    bed = Bed()
    try:
        bed.grow(200)
        enforcer = bed.enforce()
        target = enforcer.target
        few = frozenset({(1, 1), (1, 2), (2, 1), (2, 2)})
        wide = msgspec.structs.replace(target, pairs=pairs())
        narrow = msgspec.structs.replace(target, pairs=few)

        def change() -> list[float]:
            return [milliseconds(partial(enforcer.update, to)) for to in (narrow, wide)]

        took = changing(bed, change, 7)
        quiet = [statistics.median(took.quiet[first::2]) for first in (0, 1)]
        name = "bridge_policy_change_10000_pairs"
        loaded = f"away {quiet[0]:.1f} ms; under traffic: {statistics.median(took.loaded):.1f} ms"
        yield item(name, quiet[1], "ms", floor=_CHANGE_MS, target=1.0, beside=loaded)
        yield from counted("bridge_policy_change", took.blasted, len(took.loaded))
    finally:
        bed.close()


def renumbered_policy_change() -> Iterator[dict[str, Any]]:
    """10,000 pairs to as many others, every class under a new number, under the same traffic.

    The time is until the new policy is in force. What retired numbers needed is taken out after
    that, and in `Filtering` after the agent has been answered.
    """
    bed = Bed()
    try:
        bed.grow(200)
        enforcer = bed.enforce()
        targets = [enforcer.target, _renumbered(enforcer.target, CLASSES + 100)]

        def change() -> list[float]:
            targets.reverse()
            during = targets[0].pairs | targets[1].pairs
            taken = milliseconds(partial(enforcer.update, targets[0], during))
            enforcer.settle()
            return [taken]

        took = changing(bed, change, 7)
        quiet = statistics.median(took.quiet)
        name = "bridge_policy_change_new_numbers"
        loaded = f"under traffic: {statistics.median(took.loaded):.1f} ms"
        yield item(name, quiet, "ms", floor=_CHANGE_MS, target=1.0, beside=loaded)
        yield from counted(name, took.blasted, len(took.loaded))
    finally:
        bed.close()


def _renumbered(target: Target, by: int) -> Target:
    ports = {
        index: msgspec.structs.replace(port, number=port.number + by)
        for index, port in target.ports.items()
    }
    pairs_then = frozenset((one + by, other + by) for one, other in target.pairs)
    return msgspec.structs.replace(target, ports=ports, pairs=pairs_then)


def whole_policy_change() -> Iterator[dict[str, Any]]:
    """The same by brokerd's records and the agent: decisions, signatures, two programs.

    The time begins with the first record that is there for the agent to read; from the call to
    brokerd it has no target.
    """
    whole = Whole()
    try:
        measured = whole.run(RATE, SECONDS)
    finally:
        whole.close()
    name = "bridge_whole_policy_change"
    quiet, loaded = (
        Change(*(statistics.median(column) for column in zip(*rows, strict=True)))
        for rows in (measured.quiet, measured.loaded)
    )
    beside = (
        f"from the call: {quiet.call:.1f} ms; agent and helper had a processor for "
        f"{quiet.processor:.1f}; under traffic: {loaded.record:.1f}, {loaded.call:.1f} ms"
    )
    yield item(name, quiet.record, "ms", floor=_CHANGE_MS, target=1.0, beside=beside)
    yield from counted(name, measured.blasted, len(measured.loaded))


def items() -> Iterator[dict[str, Any]]:
    """All of them."""
    yield from round_trips()
    yield from adding_a_port()
    yield from policy_change()
    yield from renumbered_policy_change()
    yield from whole_policy_change()
