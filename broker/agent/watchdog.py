"""The service manager's watchdog: fed only while the store answers and gates are looked at."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from twisted.internet import defer, task

if TYPE_CHECKING:
    from broker.agent.session import AgentSession
    from broker.systemd.notify import Notifier
    from broker.xenstore.transport import Reactor

_LOOK: Final = 5.0
"""Seconds between two looks; one that waits for the store or a gate holds up those after it."""


class Watchdog:
    """Tells the manager, every few seconds while it runs, whether the agent works."""

    def __init__(self, session: AgentSession, notifier: Notifier, reactor: Reactor) -> None:
        self._session = session
        self._notifier = notifier
        self._loop = task.LoopingCall(self._run)
        self._loop.clock = reactor

    def start(self) -> None:
        """From now on, if anybody listens."""
        if self._notifier.listens:
            self._loop.start(_LOOK)

    def stop(self) -> None:
        """No more."""
        if self._loop.running:
            self._loop.stop()

    def _run(self) -> defer.Deferred[None]:
        return defer.Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        self._notifier.status(self._words())
        if await self._session.works():
            self._notifier.alive()

    def _words(self) -> str:
        counts = Counter(self._session.states())
        gates = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        heard = "hears the broker" if self._session.beat() is not None else "hears no broker"
        return f"{heard}; gates: {gates or 'none'}"
