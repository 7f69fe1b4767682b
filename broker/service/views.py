"""Channels as administrators see them: what was decided, why, and what is enforced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.core.channels import parse_nonce
from broker.core.revocations import parse_report
from broker.core.suggestion import suggest_grant
from broker.rpc import methods
from broker.service.policy_checks import summary
from broker.text.escape import readable

if TYPE_CHECKING:
    from broker.core.plan import Entry
    from broker.service.decider import Told
    from broker.service.engine import Engine
    from broker.service.mirror import Device


class ChannelViews:
    """Channels of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def channel(self, device: Device) -> methods.Channel:
        """One channel; what was never published is judged as it would be."""
        return self._channel(device, self._engine.state.ledger.get(device.path))

    def _channel(self, device: Device, entry: Entry | None) -> methods.Channel:
        engine = self._engine
        decision = engine.judge.judge(device).decision if entry is None else entry.decision
        domain = engine.mirror.domains.get(device.domid)
        name = None if domain is None else domain.name
        return methods.Channel(
            device_class=device.device_class,
            frontend=device.domid,
            backend=-1 if device.backend is None else device.backend,
            device=device.device,
            frontend_name=name,
            frontend_label=decision.labels[0],
            backend_label=decision.labels[1],
            resource=decision.resource,
            verdict=decision.verdict,
            reason=decision.reason,
            seq=None if entry is None else entry.seq,
            nonce_known=parse_nonce(device.untrusted_nonce) is not None,
            enforced=_enforced(device.untrusted_enforced),
        )

    def explain(self, device: Device) -> methods.Explanation:
        """Why a channel is decided as it is: by the evaluator that decides."""
        engine = self._engine
        decision = engine.judge.judge(device).decision
        policy = engine.judge.policy
        frontend, backend = decision.labels
        reasons: tuple[methods.Reason, ...] = ()
        changes: tuple[tuple[str, ...], ...] = ()
        if policy is not None and frontend and backend and decision.spec:
            asked = (device.device_class, frontend, backend, decision.resource, device.mode)
            verdict = policy.explain(*asked)
            changes = tuple(tuple(it.words(asked)) for it in suggest_grant(policy, asked))
            reasons = tuple(
                methods.Reason(rule=it.rule, text=it.text, where=it.where) for it in verdict.reasons
            )
        texts = [reason.text for reason in reasons]
        if decision.reason != "; ".join(texts):
            reasons = (methods.Reason(rule="broker", text=decision.reason, where=""), *reasons)
        return methods.Explanation(
            channel=self.channel(device),
            reasons=reasons,
            inputs={key: readable(value) for key, value in device.inputs.items()},
            policy=None if policy is None else summary(policy),
            spec=decision.spec,
            published=None if not device.published else readable(device.published),
            changes=changes,
        )

    def event(self, event: Told, device: Device, before: Entry | None) -> methods.Decision:
        """One event of a watch; of a channel that is gone, what held last."""
        return methods.Decision(
            time=time.time(),
            event=event,
            previous=None if before is None else before.decision.verdict,
            channel=self._channel(device, before) if event == "gone" else self.channel(device),
        )


def _enforced(untrusted_text: bytes | None) -> methods.Reported | None:
    """An agent's report, if it is one."""
    report = parse_report(untrusted_text)
    if report is None:
        return None
    return methods.Reported(state=report.state, seq=report.seq, reason=report.reason)
