"""Which of the broker's orders this host takes, whoever signed them: the host's own say. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core import glob
from broker.net.model import InvalidError, interface_name, mac_address
from broker.text.escape import escape
from broker.xenstore.devices import Device, vbd, vif
from broker.xenstore.paths import is_device

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from broker.agent.config import BootstrapDevice
    from broker.core.order import Order

PROTOCOLS: Final = {"x86_64": "x86_64-abi", "aarch64": "arm-abi"}
"""The ring layout that libxl names for a vbd's frontend, by the host's machine."""
_FOR_VIF: Final = frozenset({"bridge", "mac", "ip"})
_FOR_VBD: Final = frozenset({"params", "mode"})
_MAX_DEVID: Final = 0x1FFF_FFFF
"""The highest number of a virtual disk; network devices' are lower still."""


class OrderRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken: these kinds of order, and connecting disks that one of the globs matches.

    Domains in `spared` (0, the agent's, the broker's) are never touched, nor `bootstrap` devices.
    `protocol` is the ring layout of this host's guests.
    """

    kinds: Collection[str]
    disks: Sequence[str]
    spared: Collection[int]
    bootstrap: Sequence[BootstrapDevice] = ()
    protocol: str | None = None

    def refusal(self, order: Order) -> str:
        """Why an order is not carried out; empty if it is."""
        if order.kind not in self.kinds:
            return f"this host takes no orders to {order.kind}: orders in agent.yaml"
        if order.frontend in self.spared:
            return f"domain {order.frontend} is dom0, the agent's or the broker's: never touched"
        if order.kind == "destroy":
            own = any(it.uuid == order.uuid for it in self.bootstrap)
            return f"domain {order.frontend} has bootstrap devices: never touched" if own else ""
        if not is_device(order.device_class or "", order.device or ""):
            return "no device can be called that"
        for it in self.bootstrap:
            if (it.uuid, it.device_class, str(it.devid)) == (
                order.uuid,
                order.device_class,
                order.device,
            ):
                return "that is a bootstrap device: never touched"
        if order.kind == "connect":
            try:
                self.device(order)
            except ValueError as error:
                return str(error)
        return ""

    def device(self, order: Order) -> Device:
        """The device that an order to connect is for.

        Raises:
            ValueError: it cannot be made; the message says why.
        """
        backend, devid = order.backend or 0, int(order.device or "")
        if backend == order.frontend or (backend in self.spared and backend != 0):
            raise ValueError(f"domain {backend} cannot be its backend")
        if devid > _MAX_DEVID:
            raise ValueError(f"no device has the number {devid}")
        if order.device_class == "vif":
            return self._vif(order, devid, backend)
        if order.device_class == "vbd":
            return self._vbd(order, devid, backend)
        raise ValueError(f"only vif and vbd are connected by order, not {order.device_class}")

    def _vif(self, order: Order, devid: int, backend: int) -> Device:
        _only(order, _FOR_VIF)
        try:
            bridge = interface_name(order.details.get("bridge", ""))
            mac = mac_address(order.details.get("mac", ""))
        except InvalidError as error:
            raise ValueError(str(error)) from None
        ip = order.details.get("ip")
        for address in (ip or "").split():
            ipaddress.ip_interface(address)
        return vif(devid, mac, bridge=bridge, ip=ip, backend=backend)

    def _vbd(self, order: Order, devid: int, backend: int) -> Device:
        _only(order, _FOR_VBD)
        params, mode = order.details.get("params", ""), order.details.get("mode", "")
        if mode not in ("r", "w"):
            raise ValueError(f"mode is r or w, not {escape(mode, 40)!r}")
        if not params.startswith("/") or not params.isprintable():
            raise ValueError(f"params is no path: {escape(params, 80)}")
        if not any(glob.matches(pattern, params) for pattern in self.disks):
            raise ValueError(
                f"this host connects no disk {escape(params, 80)}: orders.disks in agent.yaml"
            )
        return vbd(devid, params, mode=mode, backend=backend, protocol=self.protocol)


def _only(order: Order, known: frozenset[str]) -> None:
    strange = ", ".join(sorted(set(order.details) - known))
    if strange:
        raise ValueError(f"a {order.device_class} is not made from {strange}")
