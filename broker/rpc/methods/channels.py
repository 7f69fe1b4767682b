"""Channels and what is published about them: `channel.*`."""

from typing import Annotated, Literal

import msgspec

from broker.rpc.methods.common import DeviceClass, Name, PolicySummary, Reason, Selector, Verdict
from broker.rpc.table import Arguments

Device = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,9})$(?!\n)")]


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend's agent says it enforced: the record's `seq` it acted on, and why."""

    state: Literal["open", "closed", "suspended", "failed"]
    seq: int | None
    reason: str


class Channel(msgspec.Struct, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """One channel and the decision published about it.

    `nonce_known` is whether the backend's agent has reported this life of the device. `seq` is
    None while nothing has been published. `enforced` is None until the agent reports.
    """

    device_class: str
    frontend: int
    backend: int
    device: str
    frontend_name: str | None
    frontend_label: str | None
    backend_label: str | None
    resource: str | None
    verdict: Verdict
    reason: str
    seq: int | None
    nonce_known: bool
    enforced: Reported | None


class ChannelFilter(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """Which channels; what is left out matches all. `domain` is either end."""

    domain: Selector | None = None
    device_class: DeviceClass | None = None
    verdict: Verdict | None = None


class ChannelSelector(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """One channel, as its frontend's device; `backend` where two would answer."""

    device_class: DeviceClass
    frontend: Selector
    device: Device
    backend: int | None = None


class ChannelConnect(Arguments, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """Give the running `domain` a device from `backend`, until it is shut down or rebooted.

    `class` is that of `resource` where that is left out. A vbd's disk is `params`, an absolute
    path that is the resource's; a vif is on `bridge`. Where the resource stands for one value
    alone, that may be left out. `mode` is a disk's. `devid` is the device's number, the next that
    is free if left out; `mac` is drawn. `ip` is for a routed vif.
    """

    domain: Selector
    resource: Name | None = None
    device_class: DeviceClass | None = None
    backend: Selector = "0"
    devid: Annotated[int, msgspec.Meta(ge=0, le=0x1FFFFFFF)] | None = None
    params: Annotated[str, msgspec.Meta(pattern=r"^/[!-~]{1,500}$(?!\n)")] | None = None
    mode: Literal["r", "w"] = "w"
    bridge: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,15}$(?!\n)")] | None = None
    mac: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$(?!\n)")] | None = None
    ip: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F.:/ ]{2,200}$(?!\n)")] | None = None


class ChannelDisconnect(ChannelSelector, frozen=True, kw_only=True):
    """Take a channel's device away; with `force` its guest is not asked to let go first."""

    force: bool = False


class ChannelOrdered(msgspec.Struct, frozen=True, kw_only=True, rename={"device_class": "class"}):
    """What dom0's agent did about a channel, in words, and the number of its order.

    A device that was set up opens once its backend's agent has the grant: `channel.explain`.
    """

    device_class: str
    frontend: int
    backend: int
    device: str
    resource: str | None
    seq: int
    how: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a channel's verdict is what it is, by the evaluator that enforces.

    A reason of the rule `broker` is the broker's own (a party unlabelled, no nonce reported);
    what the policy says comes after it, and would count without it. `inputs` are the
    toolstack's values it was decided on. `published` is the record's text as
    it is in xenstore now, None where there is none. `changes` are, where the policy denies, the
    smallest changes to it that would grant: each entry is one way, with all that it takes.
    """

    channel: Channel
    reasons: tuple[Reason, ...]
    inputs: dict[str, str]
    policy: PolicySummary | None
    spec: str | None
    published: str | None
    changes: tuple[tuple[str, ...], ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One event of `channel.watch`: a decision published, or an agent's report on one.

    `previous` is the verdict before, None if there was none. A channel that is gone has
    `event` `gone`, and is told as it was last.
    """

    time: float
    event: Literal["decision", "report", "gone"]
    previous: Verdict | None
    channel: Channel
