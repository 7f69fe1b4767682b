"""Connecting by hand: what an administrator asks for is asked of the policy, then ordered."""

from __future__ import annotations

from secrets import token_bytes
from typing import TYPE_CHECKING

from broker.core import glob
from broker.core.asking import Query, ask
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service.orders import By
from broker.service.questions import domain_of
from broker.text.escape import escape
from broker.xenstore.devices import disk_number, vbd, vif
from broker.xenstore.paths import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.core.definition import Resource
    from broker.core.policy import Policy
    from broker.rpc.admin import Caller
    from broker.service.engine import Engine
    from broker.service.labels import Labels
    from broker.service.mirror import Device, Domain
    from broker.service.orders import Orders, Outcome

_XEN_MAC = b"\x00\x16\x3e"


class Connecting:
    """Sets channels up and takes them down on behalf of administrators."""

    def __init__(self, engine: Engine, labels: Labels, orders: Orders) -> None:
        self._engine = engine
        self._labels = labels
        self._orders = orders

    async def connect(
        self, caller: Caller, asked: methods.ChannelConnect
    ) -> methods.ChannelOrdered:
        """Give a running domain a device.

        Raises:
            RpcError: `bad_input`, `not_found`, `denied`, `conflict`, `unavailable`.
        """
        policy = self._engine.judge.policy
        if policy is None:
            raise RpcError("unavailable", "no policy is in force; load one first")
        frontend, backend = (
            domain_of(self._labels, text) for text in (asked.domain, asked.backend)
        )
        domain_uuid = _running(frontend)
        named = _named(policy, asked.resource)
        device_class = _class(asked, named)
        devid = _next_devid(frontend, device_class) if asked.devid is None else asked.devid
        details, keys = _device(device_class, devid, asked, named)
        found = policy.resource_for(device_class, keys)
        if asked.resource is not None and found != asked.resource:
            what = "no resource" if found is None else f"resource {found}"
            raise RpcError(
                "bad_input", f"what was asked for is {what} of the policy, not {asked.resource}"
            )
        query = Query(device_class=device_class, resource=found, mode=asked.mode)
        self._ask(caller, policy, (frontend, backend), query)
        channel = Channel(backend.domid, device_class, frontend.domid, str(devid))
        by = By(caller.subject, caller.role)
        outcome = await self._orders.connect(channel, domain_uuid, details, by)
        return _answer(channel, found, outcome)

    async def disconnect(
        self, caller: Caller, asked: methods.ChannelDisconnect, device: Device
    ) -> methods.ChannelOrdered:
        """Take a device away from its guest.

        Raises:
            RpcError: `not_found`, `conflict`, `unavailable`.
        """
        channel, domain_uuid = self._known(device)
        by = By(caller.subject, caller.role)
        outcome = await self._orders.disconnect(channel, domain_uuid, by, force=asked.force)
        return _answer(channel, self._resource(device), outcome)

    async def reset(self, caller: Caller, device: Device) -> methods.ChannelOrdered:
        """Take a device away and set it up anew.

        Raises:
            RpcError: as `disconnect`.
        """
        channel, _ = self._known(device)
        outcome = await self._orders.reset(device, By(caller.subject, caller.role))
        return _answer(channel, self._resource(device), outcome)

    def _ask(
        self, caller: Caller, policy: Policy, ends: tuple[Domain, Domain], query: Query
    ) -> None:
        """Refuse what the evaluator that decides would deny, with all its reasons."""
        judge = self._engine.judge
        front, back = ((it.domid, judge.standing(it.domid)) for it in ends)
        verdict = ask(policy, judge.specs, (front, back), query)
        if verdict.granted:
            return
        reasons = tuple(f"{it.where}: {it.text}" if it.where else it.text for it in verdict.reasons)
        place = f"a {escape(query.device_class)} of domain {front[0]} from domain {back[0]}"
        why = f"the policy denies {place}: {'; '.join(it.text for it in verdict.reasons)}"
        self._engine.audit.call_denied(caller, "channel.connect", escape(why, 400))
        raise RpcError("denied", f"{why}; nothing was done", reasons)

    def _known(self, device: Device) -> tuple[Channel, str]:
        domain = self._engine.mirror.domains.get(device.domid)
        if device.channel is None or domain is None:
            raise RpcError("not_found", f"{device} has no backend: nothing to take away")
        return device.channel, _running(domain)

    def _resource(self, device: Device) -> str | None:
        return self._engine.judge.judge(device).decision.resource


def _running(domain: Domain) -> str:
    """The uuid of a domain that can be given devices, or have them taken away."""
    if domain.domid == 0 or domain.uuid is None or domain.dying:
        raise RpcError("bad_input", f"domain {domain.domid} is no guest that runs")
    return domain.uuid


def _named(policy: Policy, name: str | None) -> Resource | None:
    """The resource of that name.

    Raises:
        RpcError: `bad_input`, the policy has none.
    """
    if name is None:
        return None
    for resource in policy.definition.resources:
        if resource.name == name:
            return resource
    raise RpcError("bad_input", f"policy {policy.name} has no resource {escape(name)}")


def _class(asked: methods.ChannelConnect, named: Resource | None) -> str:
    """The class asked for, or the resource's, which says how the channel is set up."""
    own = None if named is None else named.device_class
    device_class = asked.device_class or own
    if device_class is None:
        raise RpcError("bad_input", "name a resource that has a class, or the class: --class vif")
    if own is not None and own != device_class:
        raise RpcError("bad_input", f"resource {asked.resource} is a {own}, no {device_class}")
    return device_class


def _device(
    device_class: str, devid: int, asked: methods.ChannelConnect, named: Resource | None
) -> tuple[dict[str, str], dict[str, str]]:
    """What the device is ordered to be made from, and all its keys, as a decision will see them."""
    match: Mapping[str, str] = {} if named is None else named.match
    if device_class == "vif":
        bridge = asked.bridge or _exact(match, "bridge")
        if asked.params is not None:
            raise RpcError("bad_input", "a vif has no params")
        mac = asked.mac or _new_mac()
        details = {"bridge": bridge, "mac": mac}
        if asked.ip is not None:
            details["ip"] = asked.ip
        return details, vif(devid, mac, bridge=bridge, ip=asked.ip).backend_keys(0)
    if device_class == "vbd":
        if asked.bridge or asked.mac or asked.ip:
            raise RpcError("bad_input", "a vbd has neither bridge, mac nor ip")
        params = asked.params or _exact(match, "params")
        keys = vbd(devid, params, mode=asked.mode).backend_keys(0)
        return {"params": params, "mode": asked.mode}, keys
    raise RpcError("bad_input", f"only vif and vbd are connected by hand, not {device_class}")


def _exact(match: Mapping[str, str], key: str) -> str:
    """The one value that a resource stands for, where it says one."""
    value = match.get(key)
    if value is None or glob.is_glob(value):
        pattern = "" if value is None else f", one of {value}"
        raise RpcError("bad_input", f"say which: --{key}{pattern}")
    return value


def _new_mac() -> str:
    """An address as xl draws one: Xen's prefix, and three bytes of which the first is below 80."""
    first, *rest = token_bytes(3)
    return ":".join(f"{byte:02x}" for byte in (*_XEN_MAC, first & 0x7F, *rest))


def _next_devid(domain: Domain, device_class: str) -> int:
    """The first number that the domain has no device of."""
    taken = {int(device) for kind, device in domain.devices if kind == device_class}
    number = 0
    while (devid := disk_number(number) if device_class == "vbd" else number) in taken:
        number += 1
    return devid


def _answer(channel: Channel, resource: str | None, outcome: Outcome) -> methods.ChannelOrdered:
    if not outcome.ok:
        raise RpcError("conflict" if outcome.answered else "unavailable", outcome.how)
    return methods.ChannelOrdered(
        device_class=channel.device_class,
        frontend=channel.frontend,
        backend=channel.backend,
        device=channel.device,
        resource=resource,
        seq=outcome.seq,
        how=outcome.how,
    )
