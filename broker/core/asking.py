"""What would be decided about any two domains: the evaluator that decides, asked directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.channels import hindrance, standing_problem
from broker.core.verdict import Verdict, denied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.core.channels import Ends
    from broker.core.policy import Policy

BROKER: Final = "broker"
"""The rule of a reason that is not the policy's own."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A channel that may not exist: its class, resource and mode; or frames between vifs."""

    device_class: str
    resource: str | None = None
    mode: str = "w"
    frames: bool = False


def ask(policy: Policy | None, specs: Mapping[str, str], ends: Ends, query: Query) -> Verdict:
    """The verdict on a channel between two domains, or on frames between their vifs.

    What any channel depends on counts here too: both ends labelled, admitted and not
    quarantined, class and description known. A nonce is not asked for: no device is there.
    """
    spec, problem = hindrance(policy, specs, query.device_class, ends)
    if query.frames and policy is not None:
        spec, problem = "", standing_problem(ends)
    frontend, backend = ends[0][1].label, ends[1][1].label
    if problem or policy is None or spec is None or frontend is None or backend is None:
        return denied(BROKER, problem)
    if query.frames:
        return policy.frames(frontend, backend)
    return policy.explain(query.device_class, frontend, backend, query.resource, query.mode)
