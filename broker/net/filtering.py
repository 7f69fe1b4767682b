"""The helper's half that speaks nftables: labels in force, watched over, counted and traced."""

from __future__ import annotations

import selectors
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from broker.net.enforcer import PortEnforcer
from broker.net.learning import Learning
from broker.net.link_local import BridgeLearning
from broker.net.messages import (
    Answer,
    Count,
    Counted,
    CountFilters,
    Done,
    Dropped,
    FiltersCounted,
    Numbers,
    NumbersAre,
    Put,
    Refused,
    Remove,
    Show,
    Start,
    Trace,
    Update,
)
from broker.net.model import NetError, Target
from broker.net.monitor import Monitor
from broker.net.nft_command import open_transactor
from broker.net.probe import probe
from broker.net.readback import Readback
from broker.net.samples import Samples
from broker.net.show import drops, leases, rule_counts, shown
from broker.net.trace import Tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.net.links import LinkTable
    from broker.net.messages import Asked, Event
    from broker.net.model import Port

_RETRY: Final = 0.5
"""Seconds until a repair that failed is tried again."""


class Filtering:
    """Labels in the network namespace this is made in.

    `alarm` and `tell` are given what comes unasked; `selector` calls what is registered with it.

    Raises:
        NetError: labels cannot be enforced here.
    """

    def __init__(
        self,
        links: LinkTable,
        selector: selectors.BaseSelector,
        alarm: Callable[[str], None],
        tell: Callable[[Event], None],
    ) -> None:
        self._links = links
        self._bridges = BridgeLearning(links)
        self._selector = selector
        self._alarm = alarm
        self._tell = tell
        self._nft = open_transactor()
        self._readback = Readback()
        self._abilities = probe(self._nft)
        self._enforcer = PortEnforcer(self._nft, self._readback, self._abilities, alarm)
        self._monitor = Monitor()
        for fd in self._monitor.filenos():
            selector.register(fd, selectors.EVENT_READ, self._look)
        self._samples = self._open_samples()
        self._learning = self._open_learning()
        self._started = False
        self._check_at: float | None = None
        self._settle_at: float | None = None
        self._trace: tuple[Tracer, float] | None = None

    def due(self) -> float | None:
        """When `run_due` has something to do, by the monotonic clock."""
        times = (self._check_at, self._settle_at, self._trace and self._trace[1])
        at = [it for it in times if it is not None]
        return min(at, default=None)

    def run_due(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._settle_at is not None and now >= self._settle_at:
            self._settle()
        if self._check_at is not None and time.monotonic() >= self._check_at:
            self._check()
        if self._trace is not None and now >= self._trace[1]:
            self.end_trace()

    def answer(self, request: Asked) -> Answer:
        """Carry out one request; raises `NetError` and `OSError`."""
        match request:
            case Numbers():
                return NumbersAre(sorted(self._enforcer.numbers_in_kernel()))
            case Start():
                self._start(request)
            case _ if not self._started:
                return Refused("nothing is in force yet: ask for Start first")
            case Show():
                return shown(self._enforcer.target, self._readback, self._abilities)
            case Count():
                return Counted(drops(self._readback))
            case CountFilters():
                return FiltersCounted(rule_counts(self._readback), leases(self._readback))
            case Trace(sender, receiver, seconds):
                self._begin_trace(sender, receiver, seconds)
            case Put() | Remove() | Update():
                self._change(request)
        return Done()

    def _start(self, request: Start) -> None:
        governed = frozenset(request.bridges)
        for name in governed:
            # One that is not there yet is closed from the moment it is.
            if self._links.named(name) is not None:
                self._bridges.hold(self._links.check_bridge(name))
        ports = self._by_index(request.ports, governed)
        pairs = frozenset(request.pairs)
        self._enforcer.start(Target(governed, ports, pairs, request.profiles))
        self._started = True

    def _change(self, request: Put | Remove | Update) -> None:
        governed = self._enforcer.target.bridges
        match request:
            case Put(port):
                self._by_index([port], governed)
                self._enforcer.put(port)
            case Remove(index):
                self._enforcer.remove(index)
            case Update(ports, pairs, during, profiles):
                known = self._enforcer.target.profiles if profiles is None else profiles
                by_index = self._by_index(ports, governed)
                target = Target(governed, by_index, frozenset(pairs), known)
                first = None if during is None else frozenset(during)
                if first is None and target.pairs == self._enforcer.target.pairs:
                    self._enforcer.update(target)
                else:
                    with self._unheard():
                        self._enforcer.update(target, first)
                if during is not None:
                    self._settle_at = time.monotonic()  # once the agent has its answer

    def _by_index(self, ports: list[Port], governed: frozenset[str]) -> dict[int, Port]:
        """The ports, each that is new being the interface it is said to be, on a governed bridge.

        Raises:
            NetError: one is not.
        """
        known = self._enforcer.target.ports
        for port in ports:
            if known.get(port.index) == port:
                continue
            link = self._links.get(port.index)
            if link is None or link.name != port.name:
                raise NetError(f"{port.name} is not interface {port.index}: gone, or renamed")
            if port.bridge is not None and port.bridge not in governed:
                raise NetError(f"{port.name}: {port.bridge} is not governed; name it in `bridges`")
            if port.bridge is not None:
                self._bridges.hold(self._links.check_bridge(port.bridge))
        return {port.index: port for port in ports}

    def _look(self) -> None:
        changes = self._monitor.changes()
        if not self._started:
            return
        if changes.tables:
            self._check_at = time.monotonic()
        for index in changes.gone:
            if self._learning is not None:
                self._learning.forget(index)
            try:
                self._enforcer.remove(index)
            except NetError as error:
                self._alarm(f"interface {index} is gone, its elements are not: {error}")
                self._check_at = time.monotonic()

    def _check(self) -> None:
        self._check_at = None
        try:
            self._enforcer.check()
        except NetError as error:
            self._alarm(f"labels are not enforced: {error}; trying again")
            self._check_at = time.monotonic() + _RETRY

    def _settle(self) -> None:
        self._settle_at = None
        try:
            with self._unheard():
                self._enforcer.settle()
        except NetError as error:
            self._alarm(f"numbers of classes that went are still there: {error}; trying again")
            self._settle_at = time.monotonic() + _RETRY

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        """Within, any number of pairs may be written; once that is done all is looked at."""
        try:
            with self._monitor.unheard():
                yield
        finally:
            self._check_at = time.monotonic()

    def _open_samples(self) -> Samples | None:
        try:
            samples = Samples()
        except NetError as error:
            self._alarm(f"{error}: refused packets are counted but not shown")
            return None
        self._selector.register(samples, selectors.EVENT_READ, self._sample)
        return samples

    def _open_learning(self) -> Learning | None:
        try:
            learning = Learning(self._enforcer, self._alarm)
        except NetError as error:
            self._alarm(f"{error}: no address is learned from DHCP")
            return None
        self._selector.register(learning, selectors.EVENT_READ, learning.hear)
        return learning

    def _sample(self) -> None:
        if self._samples is not None:
            for sample in self._samples.received():
                dropped = (sample.sender, sample.receiver, sample.label, sample.packet)
                self._tell(Dropped(*dropped))

    def _begin_trace(self, sender: int, receiver: int, seconds: float) -> None:
        self.end_trace()
        tracer = Tracer(self._nft, sender, receiver, seconds)
        self._trace = (tracer, time.monotonic() + seconds)
        self._selector.register(tracer, selectors.EVENT_READ, self._step)

    def _step(self) -> None:
        if self._trace is not None:
            for step in self._trace[0].steps():
                self._tell(step)

    def end_trace(self) -> None:
        """Stop tracing, if anything is traced."""
        if self._trace is not None:
            tracer, self._trace = self._trace[0], None
            self._selector.unregister(tracer)
            try:
                tracer.close()
            except NetError as error:
                self._alarm(f"tracing could not be ended: {error}")
