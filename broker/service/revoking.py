"""Grants taken back: noting that they are closed, and what happens where nobody says so.

Which grants wait for that is decided in `broker.core.revocations`; this tells them when to look
again, and holds apart the backend domain whose agent keeps silent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from broker.core.channels import parse_nonce
from broker.core.revocations import confirms, parse_report
from broker.service import events
from broker.xenstore import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IReactorTime

    from broker.service.audit import Audit
    from broker.service.mirror import Device

PATIENCE: Final = 10.0
"""Seconds that a backend's agent has for confirming a revocation."""


class Revoking:
    """The revocations under way; `on_released()` is called when one of them is over.

    `on_silent(domid, reason)` tells of a backend domain that did not confirm in time.
    """

    def __init__(
        self,
        audit: Audit,
        clock: IReactorTime,
        *,
        patience: float,
        on_released: Callable[[], None],
        on_silent: Callable[[int, str], None],
    ) -> None:
        self._audit = audit
        self._unconfirmed = audit.state.revocations
        self._clock = clock
        self._patience = patience
        self._on_released = on_released
        self._on_silent = on_silent
        self._since: dict[tuple[str, int], float] = {}
        self._told: set[tuple[str, int]] = set()
        self._released = self._unconfirmed.released

    def heard(self, devices: Iterable[Device]) -> None:
        """The agents of these devices reported something."""
        now = time.time()
        lines: list[events.Event] = []
        for device in devices:
            revocation = self._unconfirmed.get(device.path)
            if revocation is not None and confirms(
                revocation,
                parse_nonce(device.untrusted_nonce),
                parse_report(device.untrusted_enforced),
            ):
                lines.append(events.Confirmed(now, device.path, revocation.seq))
        self._audit.commit(lines)

    def gone(self, domids: Iterable[int]) -> list[events.Event]:
        """What to write down when backend domains are gone: what they served is closed."""
        ended = set(domids)
        return [
            events.Confirmed(time.time(), path, revocation.seq)
            for path, revocation in self._unconfirmed.items()
            if _backend(path) in ended
        ]

    def look(self) -> None:
        """Let those look again who waited, if any revocation is over since the last look."""
        if self._released != self._unconfirmed.released:
            self._released = self._unconfirmed.released
            self._on_released()

    def overdue(self) -> list[tuple[paths.Channel, float]]:
        """The channels whose closing was not confirmed in time, and for how many seconds."""
        now = self._clock.seconds()
        waiting = {(path, it.seq): path for path, it in self._unconfirmed.items()}
        self._since = {key: self._since.get(key, now) for key in waiting}
        self._told &= waiting.keys()
        late: list[tuple[paths.Channel, float]] = []
        for key, since in self._since.items():
            parsed = paths.parse_channel(paths.DECISIONS, key[0])
            if parsed is not None and now - since >= self._patience:
                late.append((parsed[0], now - since))
        return late

    def check(self) -> None:
        """Look for silent backends; called now and then."""
        for channel, seconds in self.overdue():
            path = paths.decision_path(channel)
            revocation = self._unconfirmed.get(path)
            key = (path, -1 if revocation is None else revocation.seq)
            if key not in self._told:
                self._told.add(key)
                said = f"not confirmed within {seconds:.0f} s that {channel} is closed"
                self._audit.alarm(path, said)
                self._on_silent(channel.backend, said)


def _backend(path: str) -> int:
    parsed = paths.parse_channel(paths.DECISIONS, path)
    return -1 if parsed is None else parsed[0].backend
