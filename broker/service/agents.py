"""Backends' agents: who is heard, what each says of itself and what it has confirmed."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from broker.core.agent_report import AgentReport, parse_agent_report
from broker.core.record import RecordError
from broker.core.revocations import parse_report
from broker.rpc import methods

if TYPE_CHECKING:
    from broker.service.engine import Engine


class Heard(msgspec.Struct, frozen=True):
    """One agent's last report about itself, and how many seconds ago it came."""

    report: AgentReport
    age: float


def heard(engine: Engine, now: float) -> dict[int, Heard]:
    """The agents that said anything, by their domain; what is no report counts as silence.

    `now` is by the monotonic clock.
    """
    found: dict[int, Heard] = {}
    for backend, untrusted_text in sorted(engine.mirror.untrusted_agents.items()):
        try:
            report = parse_agent_report(untrusted_text)
        except RecordError:
            continue
        found[backend] = Heard(report, now - engine.mirror.agents_heard[backend])
    return found


def listed(engine: Engine) -> tuple[methods.Agent, ...]:
    """Every domain that is a backend or has an agent, by domid."""
    mirror = engine.mirror
    agents = heard(engine, time.monotonic())
    unconfirmed = Counter(it.device.backend for it in engine.confirming.waiting.values())
    serving = {backend for backend, devices in mirror.backends.items() if devices}
    found = []
    for backend in sorted(serving | agents.keys()):
        domain = mirror.domains.get(backend)
        agent = agents.get(backend)
        devices = mirror.backends.get(backend, {})
        reports = [parse_report(device.untrusted_enforced) for device in devices]
        seqs = [it.seq for it in reports if it is not None and it.seq is not None]
        listing = methods.Agent(
            backend=backend,
            name=None if domain is None else domain.name,
            channels=len(devices),
            unconfirmed=unconfirmed[backend],
            confirmed=max(seqs, default=None),
        )
        found.append(listing if agent is None else _with_words(listing, agent))
    return tuple(found)


def _with_words(listing: methods.Agent, agent: Heard) -> methods.Agent:
    """With what the agent says of itself."""
    report = agent.report
    return msgspec.structs.replace(
        listing,
        age=agent.age,
        version=report.version,
        policy=report.policy,
        hears=report.beat,
        open=report.open,
        closed=report.closed,
        suspended=report.suspended,
        failed=report.failed,
    )
