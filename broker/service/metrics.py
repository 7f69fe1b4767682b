"""What is counted and timed while the broker works: plain additions, shown by `exposing`.

Nothing here is asked before a decision, and nothing waits for it.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from broker.core.histogram import Histogram

if TYPE_CHECKING:
    from broker.core.channels import Decision

MOST_PAIRS: Final = 200
"""Kinds of decisions counted apart, the first that come; all others together, as `other`.

Not the most frequent ones at each scrape: a kind that came and went would make counters go back.
"""
STAGES: Final = ("snapshot", "decide", "audit", "publish", "confirm")
"""Of a decision: from the event to what was read, judging and signing, writing it down durably,
writing it to the store, and from there to the report of the backend's agent."""
OTHER: Final = "other"

Kind = tuple[str, str, str, str]
"""Class, verdict, the frontend's label and the backend's."""


class Metrics:
    """Counters of one broker since it was started."""

    def __init__(self) -> None:
        self.stages = {name: Histogram() for name in STAGES}
        self.snapshot = self.stages["snapshot"]
        self.decide = self.stages["decide"]
        self.audit = self.stages["audit"]
        self.publish = self.stages["publish"]
        self.confirm = self.stages["confirm"]
        self.round_trips = Histogram()
        self.events = 0
        self.connects = 0
        self.decisions: dict[Kind, int] = {}
        self._stirred = 0.0

    def stir(self) -> None:
        """An event asks for something to be read again."""
        self.events += 1
        if not self._stirred:
            self._stirred = perf_counter()

    def take(self) -> float:
        """Since when the oldest event waits whose reading begins now; 0.0 for none."""
        stirred, self._stirred = self._stirred, 0.0
        return stirred

    def read(self, since: float) -> None:
        """What the events since then pointed at was read."""
        if since:
            self.snapshot.add(perf_counter() - since)

    def decided(self, device_class: str, decision: Decision) -> None:
        """A decision was published."""
        frontend, backend = decision.labels
        kind = (device_class, decision.verdict, frontend or "-", backend or "-")
        counts = self.decisions
        if kind not in counts and len(counts) >= MOST_PAIRS:
            kind = (OTHER, decision.verdict, OTHER, OTHER)
        counts[kind] = counts.get(kind, 0) + 1
