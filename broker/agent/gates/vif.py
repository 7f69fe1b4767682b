"""The vif gate: a link that is down and in no bridge passes nothing; that is what closed means.

`hotplug-status` is no gate (netback connects the rings without it): it is only written for
libxl's and netback's sake, last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from broker.agent.gates.base import GateError, NotReadyError, Observed
from broker.agent.gates.netlink import Link, Links, link_name
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.agent.gates.base import BackendNodes, Device

_PORT_ADDRESS: Final = bytes.fromhex("feffffffffff")
"""What the stock vif-common.sh gives to a bridge's ports: the largest non-broadcast address."""


class PortFilter(Protocol):
    """What filters frames per port: filled before a link passes any, emptied when it may not."""

    def admit(self, device: Device, link: str) -> None:
        """Put the port's elements in place; raises `GateError` if they are not."""

    def expel(self, device: Device, link: str) -> None:
        """Drop the port's frames at once and take its elements away; raises `GateError`."""


class NoFilter:
    """Where no frames are filtered: the bridge alone separates."""

    def admit(self, device: Device, link: str) -> None:
        """Nothing to put in place."""

    def expel(self, device: Device, link: str) -> None:
        """Nothing to take away."""


class VifGate:
    """Opens and closes the link of a netback device (or a veth that stands for one)."""

    def __init__(self, links: Links, nodes: BackendNodes, port_filter: PortFilter) -> None:
        self._links = links
        self._nodes = nodes
        self._filter = port_filter

    def observe(self, device: Device) -> Observed:
        """Open is up or in a bridge: either alone is one step from passing frames."""
        try:
            link = self._find(device)
        except OSError as error:
            raise GateError(f"links cannot be read: {error}") from error
        if link is None:
            return Observed(open=False, detail="no link")
        detail = f"{link.name} {'up' if link.up else 'down'}, " + (
            f"in bridge {link.master}" if link.master else "in no bridge"
        )
        return Observed(open=link.up or link.master != 0, detail=detail)

    async def open(self, device: Device) -> None:
        """Filter, bridge, up, read back, then `hotplug-status`."""
        try:
            link = self._find(device)
            bridge = self._bridge(device)
            if link is None:
                raise NotReadyError("its link is not there yet")
            # The link was looked up before the life is confirmed: so it cannot be a later one's.
            await self._nodes.check(device)
            if link.up or link.master:
                self._take_down(link)
            wanted = self._wanted_name(device)
            self._links.change(link.index, name=wanted, mtu=_mtu(device), address=_PORT_ADDRESS)
        except OSError as error:
            raise GateError(f"link: {error}") from error
        try:
            self._pass_frames(device, link.index, wanted, bridge)
            await self._nodes.write(device, [("hotplug-status", b"connected")])
        except BaseException:
            self._close(device)
            raise

    def _pass_frames(self, device: Device, index: int, name: str, bridge: Link) -> None:
        try:
            self._filter.admit(device, name)
            self._links.change(index, master=bridge.index)
            self._links.change(index, up=True)
            shown = self._links.get(index)
        except OSError as error:
            raise GateError(f"link: {error}") from error
        if shown is None or not shown.up or shown.master != bridge.index:
            raise GateError(f"link is not up in {bridge.name} after all")

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
        except OSError as error:
            raise GateError(f"link: {error}") from error

    def _take_down(self, link: Link) -> None:
        self._links.change(link.index, up=False)
        if link.master:
            self._links.change(link.index, master=0)
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
        wanted = link_name(device.values.get("vifname", b""))
        return [self._plain_name(device), *([] if wanted is None else [wanted])]

    def _bridge(self, device: Device) -> Link:
        untrusted_bridge = device.values.get("bridge", b"")
        name = link_name(untrusted_bridge)
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
        name = link_name(untrusted_name)
        if name is None:
            raise GateError(f"vifname {escape(untrusted_name)!r} is no link's name")
        return name


def _mtu(device: Device) -> int | None:
    untrusted_mtu = device.values.get("mtu", b"")
    if not untrusted_mtu:
        return None
    if not untrusted_mtu.isdigit() or not 68 <= int(untrusted_mtu[:6]) <= 65535:
        raise GateError(f"mtu {escape(untrusted_mtu)!r} is not between 68 and 65535")
    return int(untrusted_mtu)
