"""What would be decided: `decision.*`."""

from typing import Literal

import msgspec

from broker.rpc.methods.common import DeviceClass, Name, PolicySummary, Reason, Selector
from broker.rpc.table import Arguments


class DecisionQuery(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """A question about two live domains, whether or not there is a channel between them.

    With `frames`, whether frames may pass between their vifs; else whether a channel of `class`
    may be, with `resource` where the class involves one, for `mode` reading or also writing.
    """

    frontend: Selector
    backend: Selector
    device_class: DeviceClass = "vif"
    resource: Name | None = None
    mode: Literal["r", "w"] = "w"
    frames: bool = False


class DecisionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker would decide, by the evaluator that decides, and why."""

    verdict: Literal["grant", "deny"]
    frontend: int
    backend: int
    frontend_label: str | None
    backend_label: str | None
    reasons: tuple[Reason, ...]
    policy: PolicySummary | None
