"""Whom and what a question means, and `decision.query`: what would be decided about two domains."""

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
    from broker.service.mirror import Device, Domain


def answer(engine: Engine, labels: Labels, asked: methods.DecisionQuery) -> methods.DecisionAnswer:
    """The verdict, with its reasons.

    Raises:
        RpcError: `not_found`, `bad_input`.
    """
    domids = [domain_of(labels, text).domid for text in (asked.frontend, asked.backend)]
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


def device_of(labels: Labels, asked: methods.ChannelSelector) -> Device:
    """The one device that is meant.

    Raises:
        RpcError: `not_found`; `bad_input`, two answer.
    """
    domains = labels.live(selector_of(asked.frontend))
    key = (asked.device_class, asked.device)
    devices = [it.devices[key] for it in domains if key in it.devices]
    if asked.backend is not None:
        devices = [it for it in devices if it.backend == asked.backend]
    if not devices:
        raise RpcError(
            "not_found",
            f"no {asked.device_class} {asked.device} of {asked.frontend}; "
            "see brokerctl channel list",
        )
    if len(devices) > 1:
        raise RpcError("bad_input", "two domains answer; name one by its domid")
    return devices[0]


def domain_of(labels: Labels, text: str) -> Domain:
    """The one running domain that is meant.

    Raises:
        RpcError: `not_found`; `bad_input`, several are.
    """
    found = labels.live(selector_of(text))
    if not found:
        raise RpcError("not_found", f"no domain {escape(text)} runs; see brokerctl domain list")
    if len(found) > 1:
        raise RpcError("bad_input", f"{len(found)} domains are {escape(text)}; name one by domid")
    return found[0]
