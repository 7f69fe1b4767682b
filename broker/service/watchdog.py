"""The service manager's watchdog: fed only while the store answers and the audit log is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.xenstore import paths
from broker.xenstore.errors import ConnectionLostError, StoreError

if TYPE_CHECKING:
    from broker.service.engine import Engine
    from broker.service.heartbeat import Heartbeat
    from broker.systemd.notify import Notifier


class Watchdog:
    """Tells the manager, after each beat, whether the broker works."""

    def __init__(self, engine: Engine, heartbeat: Heartbeat, notifier: Notifier) -> None:
        self._engine = engine
        self._heartbeat = heartbeat
        self._notifier = notifier
        self._last: float | None = None

    async def look(self) -> None:
        """After a beat: alive if the store took it, or else answers something now."""
        if not self._notifier.listens:
            return
        self._notifier.status(self._words())
        if not self._engine.audit.broken and await self._store_answers():
            self._notifier.alive()

    async def _store_answers(self) -> bool:
        before, self._last = self._last, self._heartbeat.last
        connection = self._engine.connection
        if connection is None:
            return False
        if self._last != before:
            return True
        try:
            await connection.read(paths.STATE)
        except ConnectionLostError:
            return False
        except StoreError:
            return True  # a refusal is an answer
        return True

    def _words(self) -> str:
        policy = self._engine.judge.policy
        named = "no policy" if policy is None else f"policy {policy.name}"
        return f"{self._engine.phase}, {named}"
