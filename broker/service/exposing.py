"""The metrics as Prometheus reads them: gathered when somebody asks, from what there is anyway."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, get_args

from broker import VERSION
from broker.core.drops import parse_drops
from broker.core.record import RecordError
from broker.rpc.methods import FindingKind
from broker.service import agents
from broker.service.metrics import OTHER
from broker.text.exposition import Family, Sample, number, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from broker.core.drops import Drop
    from broker.core.histogram import Histogram
    from broker.service.engine import Engine
    from broker.service.health import Health
    from broker.service.heartbeat import Heartbeat
    from broker.text.exposition import Labels

    Samples = list[tuple[Labels, float]]

PHASES: Final = ("starting", "reconciling", "enforcing", "stopped")
LEVELS: Final = ("green", "amber", "red")
MOST_DROPS: Final = 20
"""Pairs of labels shown of one agent's refused packets; it reports the largest first."""
MOST_RULES: Final = 500
"""Rules of violations shown apart; there are as many as the descriptions have."""
_PREFIX: Final = "xpb_"


class Exposing:
    """One broker's metrics; `expiries` are its certificates and when each expires."""

    def __init__(
        self,
        engine: Engine,
        heartbeat: Heartbeat,
        health: Health,
        expiries: Callable[[], tuple[tuple[str, float], ...]],
    ) -> None:
        self._engine = engine
        self._heartbeat = heartbeat
        self._health = health
        self._expiries = expiries
        self._started = time.time()

    def text(self) -> str:
        """All of it, as a scrape is answered."""
        return render(
            [
                *self._of_broker(),
                *self._of_policy(),
                *self._of_decisions(),
                *self._of_store(),
                *self._of_audit(),
                *self._of_agents(),
            ]
        )

    def _of_broker(self) -> Iterator[Family]:
        findings = self._health.findings()
        levels = [it.level for it in findings]
        level = "red" if "red" in levels else "amber" if levels else "green"
        kinds = Counter(it.kind for it in findings)
        yield _gauge(
            "build_info",
            "The version that runs.",
            [((("version", VERSION),), 1)],
        )
        yield _gauge(
            "start_time_seconds", "When the broker was started, since 1970.", [((), self._started)]
        )
        yield _gauge(
            "health", "0 green, 1 amber, 2 red: as `brokerctl status`.", [((), LEVELS.index(level))]
        )
        yield _gauge(
            "finding",
            "How many findings of each kind `brokerctl status` shows.",
            [((("kind", kind),), kinds[kind]) for kind in get_args(FindingKind)],
        )
        yield _gauge(
            "phase",
            "1 for the phase that the broker is in.",
            [((("phase", it),), self._engine.phase == it) for it in PHASES],
        )
        yield _gauge(
            "certificate_expiry_timestamp_seconds",
            "When the broker's own certificates expire, since 1970.",
            [((("file", path),), end) for path, end in self._expiries()],
        )
        yield _counter(
            "heartbeat_total",
            "The number of the last heartbeat written.",
            [((), self._heartbeat.published)],
        )
        last = self._heartbeat.last
        if last is not None:
            yield _gauge(
                "heartbeat_age_seconds",
                "How long ago the last heartbeat was written.",
                [((), time.monotonic() - last)],
            )

    def _of_policy(self) -> Iterator[Family]:
        judge = self._engine.judge
        policy = judge.policy
        labels: Samples = []
        if policy is not None:
            shown = f"{policy.version[0]}.{policy.version[1]}"
            words = (("name", policy.name), ("version", shown), ("digest", policy.digest))
            labels = [(words, 1)]
        yield _gauge("policy_info", "The policy in force; nothing where there is none.", labels)
        yield _gauge(
            "observe_mode", "1 while observe mode opens what is denied.", [((), judge.observing)]
        )

    def _of_decisions(self) -> Iterator[Family]:
        engine, metrics = self._engine, self._engine.metrics
        standings = Counter(it.word for it in engine.judge.standings.values())
        yield _gauge(
            "domains",
            "Live domains, by how they stand.",
            [((("status", it),), standings[it]) for it in ("labelled", "unlabelled", "refused")],
        )
        verdicts = Counter(
            entry.decision.verdict
            for device in engine.mirror.devices()
            if (entry := engine.state.ledger.get(device.path)) is not None
        )
        yield _gauge(
            "channels",
            "Channels there are, by the last decision.",
            [((("verdict", it),), verdicts[it]) for it in ("grant", "deny", "pending")],
        )
        keys = ("class", "verdict", "frontend_label", "backend_label")
        yield _counter(
            "decisions_total",
            "Decisions published since the start.",
            [
                (tuple(zip(keys, kind, strict=True)), count)
                for kind, count in metrics.decisions.items()
            ],
        )
        yield _histogram(
            "stage_seconds", "Seconds that each stage of a decision took.", "stage", metrics.stages
        )
        decider, confirming = engine.decider, engine.confirming
        depths = {
            "read": engine.unread,
            "decide": len(decider.pending),
            "publish": decider.unpublished,
            "confirm": len(confirming.waiting),
            "revoke": len(engine.state.revocations.items()),
        }
        yield _gauge(
            "queue_depth",
            "What waits to be read, decided, published again, confirmed, or confirmed closed.",
            [((("queue", name),), depth) for name, depth in depths.items()],
        )
        violations = list(engine.audit.violations.items())[:MOST_RULES]
        yield _counter(
            "violations_total",
            "Broken protocols, each time that one was seen.",
            [
                (tuple(zip(("class", "rule", "party"), it, strict=True)), count)
                for it, count in violations
            ],
        )

    def _of_store(self) -> Iterator[Family]:
        engine, metrics = self._engine, self._engine.metrics
        yield _gauge(
            "store_connected",
            "1 while there is a connection to the store.",
            [((), engine.connection is not None)],
        )
        yield _counter(
            "store_connects_total",
            "Connections to the store that were taken up.",
            [((), metrics.connects)],
        )
        yield _counter(
            "store_events_total",
            "Watch events that asked for something to be read.",
            [((), metrics.events)],
        )
        yield _histogram(
            "store_round_trip_seconds",
            "Seconds from a heartbeat's write to the store's answer.",
            "",
            {"": metrics.round_trips},
        )

    def _of_audit(self) -> Iterator[Family]:
        audit = self._engine.audit
        journal = audit.journal
        yield _gauge(
            "audit_writable",
            "0 while the audit log cannot be written.",
            [((), audit.broken is None)],
        )
        yield _counter(
            "audit_records_total", "The number of the audit log's last record.", [((), audit.lines)]
        )
        yield _counter(
            "audit_written_bytes_total", "Bytes appended since the start.", [((), journal.written)]
        )
        yield _counter(
            "audit_failures_total", "Writes to the audit log that failed.", [((), journal.failures)]
        )
        yield _histogram(
            "audit_fdatasync_seconds", "Seconds that each fdatasync took.", "", {"": journal.syncs}
        )
        yield _counter(
            "alarms_total",
            "Alarms, also those that were counted and not written.",
            [((), audit.alarmed)],
        )
        yield _counter("calls_denied_total", "Calls that were refused.", [((), audit.denied_calls)])

    def _of_agents(self) -> Iterator[Family]:
        rows = [(_agent(it.backend, it.name), it) for it in agents.listed(self._engine)]
        yield _gauge(
            "agent_report_age_seconds",
            "How long ago each agent was heard last.",
            [(labels, it.age) for labels, it in rows if it.age is not None],
        )
        yield _gauge(
            "agent_hears_heartbeat",
            "Whether the agent says that it hears the broker.",
            [(labels, bool(it.hears)) for labels, it in rows if it.age is not None],
        )
        yield _gauge(
            "agent_gates",
            "How many gates the agent says are open, closed, suspended or failed.",
            [
                ((*labels, ("state", state)), count)
                for labels, it in rows
                if it.age is not None
                for state, count in _states(it.open, it.closed, it.suspended, it.failed)
            ],
        )
        yield _gauge(
            "agent_channels",
            "Channels towards the agent's domain.",
            [(labels, it.channels) for labels, it in rows],
        )
        yield _gauge(
            "agent_unconfirmed",
            "Decisions that the agent has yet to confirm.",
            [(labels, it.unconfirmed) for labels, it in rows],
        )
        packets: Samples = []
        bytes_: Samples = []
        omitted: Samples = []
        mirror = self._engine.mirror
        for backend, untrusted_text in sorted(mirror.untrusted_drops.items()):
            try:
                report = parse_drops(untrusted_text)
            except RecordError:
                continue
            labels = _agent(backend, mirror.domains[backend].name)
            sums = self._sums(report.drops)
            omitted.append((labels, report.omitted + max(0, len(sums) - MOST_DROPS)))
            for ends, (count, size) in list(sums.items())[:MOST_DROPS]:
                packets.append(((*labels, *ends), count))
                bytes_.append(((*labels, *ends), size))
        yield _counter(
            "dropped_packets_total", "Packets refused between vifs, by both labels.", packets
        )
        yield _counter("dropped_bytes_total", "Bytes of those packets.", bytes_)
        yield _gauge("dropped_pairs_omitted", "Pairs of labels left out of these.", omitted)

    def _sums(self, drops: Iterable[Drop]) -> dict[Labels, tuple[int, int]]:
        """Packets and bytes by the two labels.

        What an agent says is not to be trusted: labels that the policy does not have are one,
        or there would be no end of them, and each pair comes once.
        """
        policy = self._engine.judge.policy

        def shown(label: str | None) -> str:
            if label is None:
                return "-"
            return label if policy is not None and policy.has_label(label) else OTHER

        sums: dict[Labels, tuple[int, int]] = {}
        for drop in drops:
            ends = (("from", shown(drop.sender)), ("to", shown(drop.receiver)))
            packets, size = sums.get(ends, (0, 0))
            sums[ends] = packets + drop.packets, size + drop.bytes
        return sums


def _agent(backend: int, name: str | None) -> Labels:
    return (("backend", str(backend)), ("name", name or ""))


def _states(*counts: int) -> Iterable[tuple[str, int]]:
    return zip(("open", "closed", "suspended", "failed"), counts, strict=True)


def _family(
    kind: Literal["counter", "gauge"],
    name: str,
    about: str,
    samples: Iterable[tuple[Labels, float]],
) -> Family:
    shown = tuple(Sample(labels, value) for labels, value in samples)
    return Family(_PREFIX + name, kind, about, shown)


def _gauge(name: str, about: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    return _family("gauge", name, about, samples)


def _counter(name: str, about: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    return _family("counter", name, about, samples)


def _histogram(name: str, about: str, key: str, by: Mapping[str, Histogram]) -> Family:
    """Histograms that differ in the label `key`; a single one has none."""
    samples: list[Sample] = []
    for value, histogram in by.items():
        labels: Labels = ((key, value),) if key else ()
        bounds = [*(number(bound) for bound in histogram.bounds), "+Inf"]
        counts = histogram.cumulative()
        samples += [
            Sample((*labels, ("le", bound)), count, "_bucket")
            for bound, count in zip(bounds, counts, strict=True)
        ]
        samples.append(Sample(labels, histogram.sum, "_sum"))
        samples.append(Sample(labels, counts[-1], "_count"))
    return Family(_PREFIX + name, "histogram", about, tuple(samples))
