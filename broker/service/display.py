"""What people see in `/vm`: which domains and devices wait for it, and when they get their turn.

Decisions never wait for it; it waits for them, but not for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.service.publisher import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from broker.service.audit import Audit
    from broker.service.judge import Judge
    from broker.service.mirror import Device, Domain
    from broker.service.publisher import Publisher

DELAY: Final = 0.02
"""Seconds until what is only for people is brought up to date, and of quiet before it is."""
PATIENCE: Final = 0.5
"""Seconds that it waits longer while there is something to decide."""
SHOWN_AT_ONCE: Final = 64
"""Domains and devices brought up to date at once, so that decisions need not wait for it."""


class Display:
    """Holds what is to be shown; `on_due()` is called when its time has come."""

    def __init__(self, clock: IReactorTime, on_due: Callable[[], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._domains: dict[Domain, None] = {}
        self._devices: dict[Device, None] = {}
        self._call: IDelayedCall | None = None
        self._due = False
        self._by = 0.0
        self._worked = 0.0

    def add_domains(self, domains: Iterable[Domain]) -> None:
        """Show these domains anew."""
        self._domains.update(dict.fromkeys(domains))
        self.soon()

    def add_devices(self, devices: Iterable[Device]) -> None:
        """Show these devices anew."""
        self._devices.update(dict.fromkeys(devices))
        self.soon()

    def soon(self) -> None:
        """Something waits: ask for a turn before long."""
        if self._call is None:
            self._call = self._clock.callLater(DELAY, self._now)

    def _now(self) -> None:
        self._call = None
        if not self._due:
            self._due = True
            self._by = self._clock.seconds() + PATIENCE
        self._on_due()

    def wait(self) -> None:
        """Something is to be decided: a pause between two requests is not yet quiet."""
        self._worked = self._clock.seconds()

    def due(self, *, idle: bool) -> bool:
        """Whether its turn has come: it has been quiet for a while, or it has waited enough."""
        if not self._due:
            return False
        now = self._clock.seconds()
        return (idle and now >= self._worked + DELAY) or now >= self._by

    @property
    def waiting(self) -> bool:
        """Whether it asked for a turn and has not had it."""
        return self._due

    def begin(self) -> None:
        """Its turn begins."""
        self._due = False

    async def show(self, publisher: Publisher | None, judge: Judge, audit: Audit) -> None:
        """Bring some of it up to date, and write outcomes down.

        Raises:
            ConnectionLostError: the connection ended.
        """
        domains = list(self._domains)[:SHOWN_AT_ONCE]
        devices = list(self._devices)[:SHOWN_AT_ONCE]
        for domain in domains:
            del self._domains[domain]
        for device in devices:
            del self._devices[device]
        if publisher is not None and (domains or devices):
            wanted = Wanted(judge.policy, judge.standings, audit.state)
            live = [device for device in devices if not device.gone]
            for path, held in await publisher.show(domains, live, wanted):
                audit.alarm(path, f"held what the broker did not write: {held}")
        audit.flush()
        if self._domains or self._devices:
            self.soon()
