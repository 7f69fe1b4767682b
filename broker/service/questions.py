"""`decision.query`: what would be decided about two domains, from the standings in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.asking import Query, ask
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service.policy_checks import summary
from broker.service.targets import selector_of
from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.service.engine import Engine
    from broker.service.labels import Labels
    from broker.service.mirror import Domain


def answer(engine: Engine, labels: Labels, asked: methods.DecisionQuery) -> methods.DecisionAnswer:
    """The verdict, with its reasons.

    Raises:
        RpcError: `not_found`, `bad_input`.
    """
    domids = [_one(labels, text).domid for text in (asked.frontend, asked.backend)]
    (frontend, one), (backend, other) = ((it, engine.judge.standing(it)) for it in domids)
    policy = engine.judge.policy
    query = Query(
        device_class=asked.device_class,
        resource=asked.resource,
        mode=asked.mode,
        frames=asked.frames,
    )
    verdict = ask(policy, engine.judge.specs, ((frontend, one), (backend, other)), query)
    return methods.DecisionAnswer(
        verdict="grant" if verdict.granted else "deny",
        frontend=frontend,
        backend=backend,
        frontend_label=one.label,
        backend_label=other.label,
        reasons=tuple(
            methods.Reason(rule=it.rule, text=it.text, where=it.where) for it in verdict.reasons
        ),
        policy=None if policy is None else summary(policy),
    )


def _one(labels: Labels, text: str) -> Domain:
    found = labels.live(selector_of(text))
    if not found:
        raise RpcError("not_found", f"no domain {escape(text)} runs; see brokerctl domain list")
    if len(found) > 1:
        raise RpcError("bad_input", f"{len(found)} domains are {escape(text)}; name one by domid")
    return found[0]
