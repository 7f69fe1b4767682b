"""What backends' agents report of themselves: that they live, packets refused, filters at work.

For people alone: nothing is decided by it. Each domain writes its own node only, so that it can
lie about itself and about nobody else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.core.drops import parse_drops
from broker.core.filter_report import parse_filter_report
from broker.core.record import RecordError
from broker.rpc import methods
from broker.rpc.methods import filters as filter_methods
from broker.service.dirty import HOST
from broker.xenstore import paths
from broker.xenstore.errors import NotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.service.mirror import Mirror
    from broker.xenstore.client import StoreConnection


async def read_drops(store: StoreConnection, mirror: Mirror, domids: Iterable[int]) -> None:
    """Read these backends' reports; every backend's where `HOST` is among them.

    Raises:
        StoreError: the connection is lost.
    """
    backends = list(dict.fromkeys(domids))
    if HOST in backends:
        (listing,) = await store.directory_many([paths.REPORTS])
        names = listing if isinstance(listing, list) else []
        backends = [it for name in names if (it := paths.parse_domid(name)) is not None]
    values = await store.read_many([path for it in backends for path in paths.of_agent(it)])
    each = zip(values[::3], values[1::3], values[2::3], strict=True)
    for backend, (drops, lives, filters) in zip(backends, each, strict=True):
        known = backend in mirror.domains
        _take(mirror.untrusted_drops, backend, drops, known=known)
        _take(mirror.untrusted_filter_counts, backend, filters, known=known)
        before = mirror.untrusted_agents.get(backend)
        # Domain 0 may have no home in a store that no toolstack has filled yet.
        _take(mirror.untrusted_agents, backend, lives, known=known or backend == 0)
        if mirror.untrusted_agents.get(backend) != before:
            mirror.agents_heard[backend] = time.monotonic()


def _take(held: dict[int, bytes], backend: int, value: bytes | StoreError, *, known: bool) -> None:
    if isinstance(value, NotFoundError):
        held.pop(backend, None)
    elif not isinstance(value, StoreError) and known:
        held[backend] = value


def reported_drops(mirror: Mirror) -> tuple[methods.NetDrops, ...]:
    """The reports by backend; what is none is left out."""
    found = []
    for backend, untrusted_text in sorted(mirror.untrusted_drops.items()):
        try:
            report = parse_drops(untrusted_text)
        except RecordError:
            continue
        drops = tuple(
            methods.NetDrop(
                sender=drop.sender, receiver=drop.receiver, packets=drop.packets, bytes=drop.bytes
            )
            for drop in report.drops
        )
        found.append(
            methods.NetDrops(
                backend=backend,
                backend_name=mirror.domains[backend].name,
                at=float(report.at),
                drops=drops,
                omitted=report.omitted,
            )
        )
    return tuple(found)


def reported_filters(mirror: Mirror) -> tuple[filter_methods.FilterCounts, ...]:
    """The reports of filters by backend; what is none is left out, and so are others' vifs."""
    found = []
    for backend, untrusted_text in sorted(mirror.untrusted_filter_counts.items()):
        try:
            report = parse_filter_report(untrusted_text)
        except RecordError:
            continue
        learned = []
        for lease in report.leases:
            domain = mirror.domains.get(lease.frontend)
            device = None if domain is None else domain.devices.get(("vif", lease.device))
            if domain is None or device is None or device.backend != backend:
                continue
            learned.append(
                filter_methods.LearnedAddress(
                    frontend=lease.frontend,
                    frontend_name=domain.name,
                    device=lease.device,
                    address=lease.address,
                    until=float(lease.until),
                )
            )
        found.append(
            filter_methods.FilterCounts(
                backend=backend,
                backend_name=mirror.domains[backend].name,
                at=float(report.at),
                rules=tuple(
                    filter_methods.FilterRuleCount(rule=it.rule, packets=it.packets, bytes=it.bytes)
                    for it in report.counts
                ),
                learned=tuple(learned),
                omitted_rules=report.omitted_counts,
                omitted_learned=report.omitted_leases,
            )
        )
    return tuple(found)
