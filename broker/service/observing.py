"""Observe mode in force: what it opens is written down once, and it ends by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.logger import Logger

from broker.core.observation import is_observed
from broker.rpc import methods
from broker.service import events
from broker.service.state import MAX_OBSERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.service.audit import Audit
    from broker.service.judge import Judge
    from broker.service.mirror import Device


class Observing:
    """Watches over what observe mode opens."""

    log = Logger()

    def __init__(self, judge: Judge, audit: Audit, *, on_over: Callable[[], None]) -> None:
        self._judge = judge
        self._audit = audit
        self._state = audit.state
        self._on_over = on_over

    def check(self) -> None:
        """Called now and then: what observe mode opened is judged anew once it is over."""
        if self._judge.observed and not self._judge.observing:
            self._judge.observed = False
            self.log.warn("observe mode is over: everything is enforced")
            self._on_over()

    def saw(self, decided: Iterable[Device]) -> None:
        """Note what of the newly decided is granted by observe mode alone, each request once."""
        lines: dict[events.Request, events.Event] = {}
        for device in decided:
            entry = self._state.ledger.get(device.path)
            if entry is None or not is_observed(entry.decision.reason):
                continue
            (frontend, backend), mode = entry.decision.labels, device.mode
            if frontend is None or backend is None:
                continue
            resource = entry.decision.resource
            asked = (device.device_class, frontend, backend, resource, mode)
            if asked not in self._state.observed:
                lines[asked] = events.Observed(time.time(), asked, str(device))
        room = MAX_OBSERVED - len(self._state.observed)
        self._audit.commit(list(lines.values())[:room])

    def problems(self) -> list[str]:
        """What is not as it should be: as long as it lasts, denials do not hold."""
        policy = self._judge.policy
        observe = None if policy is None else policy.definition.observe
        if observe is None or not self._judge.observing:
            return []
        decisions = [entry.decision for entry in self._state.ledger.values()]
        count = sum(it.verdict == "grant" and is_observed(it.reason) for it in decisions)
        day = observe.last_day
        return [f"observe mode until the end of {day}: {count} channels would else be denied"]

    def seen(self) -> tuple[methods.Observed, ...]:
        """What would have been denied since the policy in force was loaded."""
        policy = self._judge.policy
        if policy is None:
            return ()
        return tuple(
            methods.Observed(
                device_class=asked[0],
                frontend=asked[1],
                backend=asked[2],
                resource=asked[3],
                mode=asked[4],
                channel=channel,
                reasons=tuple(
                    methods.Reason(rule=it.rule, text=it.text, where=it.where)
                    for it in policy.explain(*asked).reasons
                ),
            )
            for asked, channel in self._state.observed.items()
        )
