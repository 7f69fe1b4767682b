"""The signed counter by which agents know that a broker stands behind the records."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from broker.core.record import sign_heartbeat
from broker.service import events
from broker.xenstore import paths
from broker.xenstore.errors import StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from broker.service.audit import Audit
    from broker.service.engine import Engine

INTERVAL: Final = 2.0
"""Seconds between beats."""
_BLOCK: Final = 30
"""Beats reserved by one line of the journal: a minute's worth."""
_REPEATS_EVERY: Final = 30
"""Beats after which what was only counted is written down."""


class Heartbeat:
    """Beats while the broker enforces and its audit log can be written, and only then."""

    def __init__(self, engine: Engine, audit: Audit, key: Ed25519PrivateKey) -> None:
        self.published = 0
        self._engine = engine
        self._audit = audit
        self._key = key
        self._counter = 0
        self._reserved = 0
        self._ticks = 0
        self.last: float | None = None
        """When the store took a beat last, by the monotonic clock; None: not yet."""

    async def beat(self) -> None:
        """One beat, or none: a broken audit log is tried again instead."""
        audit, engine = self._audit, self._engine
        self._ticks += 1
        if self._ticks % _REPEATS_EVERY == 0:
            audit.repeats()
            audit.sign()
        if audit.broken:
            if audit.probe():
                engine.start_over()
            return
        connection = engine.connection
        if engine.phase != "enforcing" or connection is None:
            return
        if self._counter >= self._reserved:
            # What an earlier run reserved it may have used.
            self._counter = max(self._counter, audit.state.beat)
            if not audit.commit([events.Beat(time.time(), self._counter + _BLOCK)]):
                return
            self._reserved = self._counter + _BLOCK
        self._counter += 1
        counter = self._counter
        text = sign_heartbeat(counter, self._key)
        begun = time.perf_counter()
        try:
            await connection.write(paths.HEARTBEAT, text)
        except StoreError as error:
            audit.alarm(paths.HEARTBEAT, f"not written: {error}")
        else:
            self.published = counter
            self.last = time.monotonic()
            engine.metrics.round_trips.add(time.perf_counter() - begun)
