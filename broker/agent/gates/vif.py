"""The vif gate: a link that is down and in no bridge passes nothing; that is what closed means.

`hotplug-status` is no gate (netback connects the rings without it): it is only written for
libxl's and netback's sake, last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from broker.agent.gates.base import GateError, NotReadyError, Observed
from broker.net.model import InvalidError, NetError, interface_name, ip_network
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.agent.gates.base import BackendNodes, Device
    from broker.net.link_changes import LinkChanger
    from broker.net.links import Link, LinkTable

ROUTED: Final = frozenset({b"vif-route", b"vif-broker-route"})
"""Hotplug scripts (the key `script`, without its directory) of vifs that dom0 routes for."""
_OTHERS: Final = frozenset({b"vif-nat", b"vif-openvswitch"})
"""The stock scripts whose set-up is neither a bridge's nor vif-route's."""
_MAX_NETWORKS: Final = 64
_PORT_ADDRESS: Final = bytes.fromhex("feffffffffff")
"""What the stock vif-common.sh gives to a bridge's ports: the largest non-broadcast address."""


class PortFilter(Protocol):
    """What filters frames per port: filled before a link passes any, emptied when it may not."""

    def admit(self, device: Device, link: str) -> None:
        """Put the port's elements in place; raises `GateError` if they are not."""

    def expel(self, device: Device, link: str) -> None:
        """Drop the port's frames at once and take its elements away; raises `GateError`."""


class VifGate:
    """Opens and closes the link of a netback device (or a veth that stands for one).

    It joins its bridge, or is routed to: the device's `script` says which. A routed one gets the
    address of the link `route_through`.
    """

    def __init__(
        self,
        links: LinkTable,
        changer: LinkChanger,
        nodes: BackendNodes,
        port_filter: PortFilter,
        *,
        route_through: str = "eth0",
    ) -> None:
        self._links = links
        self._changer = changer
        self._nodes = nodes
        self._filter = port_filter
        self._through = route_through

    def observe(self, device: Device) -> Observed:
        """Open is up or in a bridge: either alone is one step from passing frames."""
        try:
            link = self._find(device)
        except NetError as error:
            raise GateError(f"links cannot be read: {error}") from error
        if link is None:
            return Observed(open=False, detail="no link")
        detail = f"{link.name} {'up' if link.up else 'down'}, " + (
            f"in bridge {link.master}" if link.master else "in no bridge"
        )
        return Observed(open=link.up or link.master != 0, detail=detail)

    async def open(self, device: Device) -> None:
        """Filter, bridge, up, routes, read back, then `hotplug-status`."""
        try:
            link = self._find(device)
            bridge = None if routed(device) else self._bridge(device)
            networks = _networks(device) if bridge is None else []
            if link is None:
                raise NotReadyError("its link is not there yet")
            # The link was looked up before the life is confirmed: so it cannot be a later one's.
            await self._nodes.check(device)
            if link.up or link.master:
                self._take_down(link)
            name, address = self._wanted_name(device), None if bridge is None else _PORT_ADDRESS
            self._changer.change_link(link.index, name=name, mtu=_mtu(device), address=address)
        except NetError as error:
            raise GateError(f"link: {error}") from error
        try:
            self._filter.admit(device, name)
            self._pass_frames(link.index, bridge, networks)
            await self._nodes.write(device, [("hotplug-status", b"connected")])
        except BaseException:
            self._close(device)
            raise

    def _pass_frames(self, index: int, bridge: Link | None, networks: list[str]) -> None:
        master = 0 if bridge is None else bridge.index
        try:
            if bridge is None:
                self._changer.route_to(index, networks, self._through)
            else:
                # In one request: an agent killed between two would find it open, and half of it so.
                self._changer.change_link(index, master=master, up=True)
            shown = self._links.get(index)
        except NetError as error:
            raise GateError(f"link: {error}") from error
        if shown is None or not shown.up or shown.master != master:
            where = "in no bridge" if bridge is None else f"in {bridge.name}"
            raise GateError(f"link is not up {where} after all")

    async def suspend(self, device: Device) -> None:
        """Filter, down, out of the bridge, read back; then the status goes."""
        self._close(device)
        if device.values.get("hotplug-status"):
            await self._nodes.remove(device, ["hotplug-status"])

    async def revoke(self, device: Device, *, final: bool) -> None:
        """Suspended; and for good, the backend's directory goes, and netback's device with it."""
        if not final:
            await self.suspend(device)
            return
        self._close(device)
        await self._nodes.remove_directory(device)

    async def release(self, device: Device) -> None:
        """A link that outlives its device by a moment is closed; nothing is written."""
        self._close(device)

    def sweep(self, nonces: Collection[str]) -> None:
        """A link goes with its device: nothing is held."""

    def _close(self, device: Device) -> None:
        try:
            link = self._find(device)
            name = self._plain_name(device) if link is None else link.name
            try:
                self._filter.expel(device, name)
            finally:
                # Also where the filter fails: down and unbridged nothing passes anyway.
                if link is not None:
                    self._take_down(link)
        except NetError as error:
            raise GateError(f"link: {error}") from error

    def _take_down(self, link: Link) -> None:
        self._changer.change_link(link.index, up=False)
        if link.master:
            self._changer.change_link(link.index, master=0)
        shown = self._links.get(link.index)
        if shown is not None and (shown.up or shown.master):
            raise GateError(f"{shown.name} is still up or bridged")

    def _find(self, device: Device) -> Link | None:
        """The device's own link: by its parent where the kernel tells, else by its names.

        A link that belongs to another device, or to a software driver other than veth, is never
        taken for it, whatever its name.
        """
        channel = device.channel
        own = f"xen-backend/vif-{channel.frontend}-{channel.device}"
        for name in self._names(device):
            link = self._links.named(name)
            if link is not None and (
                link.parent == own or (not link.parent and link.kind in {"", "veth"})
            ):
                return link
        return next((link for link in self._links.all() if link.parent == own), None)

    def _names(self, device: Device) -> list[str]:
        wanted = _link_name(device.values.get("vifname", b""))
        return [self._plain_name(device), *([] if wanted is None else [wanted])]

    def _bridge(self, device: Device) -> Link:
        untrusted_bridge = device.values.get("bridge", b"")
        name = _link_name(untrusted_bridge)
        if name is None:
            raise GateError(f"bridge {escape(untrusted_bridge)!r} is no link's name")
        bridge = self._links.named(name)
        if bridge is None or bridge.kind != "bridge":
            raise GateError(f"there is no bridge {name}")
        return bridge

    @staticmethod
    def _plain_name(device: Device) -> str:
        return f"vif{device.channel.frontend}.{device.channel.device}"

    def _wanted_name(self, device: Device) -> str:
        untrusted_name = device.values.get("vifname", b"")
        if not untrusted_name:
            return self._plain_name(device)
        name = _link_name(untrusted_name)
        if name is None:
            raise GateError(f"vifname {escape(untrusted_name)!r} is no link's name")
        return name


def routed(device: Device) -> bool:
    """Whether dom0 routes for the vif rather than bridging it: as its hotplug script says.

    Raises:
        GateError: its script is for a set-up that is not made here.
    """
    script = device.values.get("script", b"").rpartition(b"/")[2]
    if script in _OTHERS:
        raise GateError(
            f"{script.decode('ascii')} is not supported: its frames pass where labels cannot be "
            "held; give the vif script=vif-broker (a Linux bridge) or vif-broker-route"
        )
    return script in ROUTED


def _networks(device: Device) -> list[str]:
    """What lies behind a routed vif: the addresses and networks of its key `ip`."""
    words = device.values.get("ip", b"").decode("ascii", "replace").split()
    if len(words) > _MAX_NETWORKS:
        raise GateError(f"ip has more than {_MAX_NETWORKS} networks")
    return [ip_network(word) for word in words]


def _link_name(untrusted_name: bytes) -> str | None:
    """The name of a link, or None."""
    try:
        return interface_name(untrusted_name.decode("ascii", "replace"))
    except InvalidError:
        return None


def _mtu(device: Device) -> int | None:
    untrusted_mtu = device.values.get("mtu", b"")
    if not untrusted_mtu:
        return None
    if not untrusted_mtu.isdigit() or not 68 <= int(untrusted_mtu[:6]) <= 65535:
        raise GateError(f"mtu {escape(untrusted_mtu)!r} is not between 68 and 65535")
    return int(untrusted_mtu)
