"""Which decisions their backends' agents have yet to confirm, and since when.

It listens beside the decider, and counts each decision for the metrics as it goes by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.revocations import parse_report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

    from broker.core.plan import Entry
    from broker.service.decider import Told
    from broker.service.metrics import Metrics
    from broker.service.mirror import Device
    from broker.service.state import State

GATED: Final = frozenset({"vif", "vbd"})
"""Classes whose devices agents have gates for, and so report a life of."""


class Waiting(msgspec.Struct, frozen=True):
    """A decision that is not confirmed: its device, its number, since when.

    `met` says that an agent reported this life; where it is false none has reported any.
    """

    device: Device
    seq: int
    since: float
    met: bool


class Confirming:
    """The decisions that are not confirmed, by the path of their channel."""

    def __init__(self, state: State, metrics: Metrics, clock: IReactorTime) -> None:
        self.waiting: dict[str, Waiting] = {}
        self._state = state
        self._metrics = metrics
        self._clock = clock

    def begin(self, devices: Iterable[Device]) -> None:
        """Everything was read anew: what is not confirmed by what was read waits from now on."""
        self.waiting.clear()
        for device in devices:
            entry = self._state.ledger.get(device.path)
            if entry is not None and not _confirmed(device, entry):
                self._wait(device, entry)

    def heard(self, event: Told, device: Device, before: Entry | None) -> None:
        """Something happened to a channel (a subscriber of the decider)."""
        del before
        path = device.path
        entry = None if event == "gone" else self._state.ledger.get(path)
        if entry is None:
            self.waiting.pop(path, None)
        elif event == "decision":
            self._metrics.decided(device.device_class, entry.decision)
            # It is the newest there is, so that a report for it has just its number.
            if b" seq=%d " % entry.seq in (device.untrusted_enforced or b""):
                self.waiting.pop(path, None)
            else:
                self._wait(device, entry)
        else:
            held = self.waiting.get(path)
            if held is not None and _confirmed(device, entry):
                del self.waiting[path]
                self._metrics.confirm.add(self._clock.seconds() - held.since)

    def late(self, patience: float) -> list[tuple[Waiting, float]]:
        """Those that wait for longer than `patience` seconds, and for how long."""
        now = self._clock.seconds()
        return [
            (it, now - it.since)
            for it in self.waiting.values()
            if now - it.since > patience and not it.device.gone
        ]

    def _wait(self, device: Device, entry: Entry) -> None:
        met = entry.decision.nonce is not None
        if met or device.device_class in GATED:
            now = self._clock.seconds()
            self.waiting[device.path] = Waiting(device, entry.seq, now, met)
        else:
            self.waiting.pop(device.path, None)


def _confirmed(device: Device, entry: Entry) -> bool:
    """Whether the agent reports that it acted by this record, or by a later one."""
    report = parse_report(device.untrusted_enforced)
    return report is not None and report.seq is not None and report.seq >= entry.seq
