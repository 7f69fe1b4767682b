"""The vif gate's filter that holds frames to labels: broker/net's ports, told about devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.agent.gates.base import GateError
from broker.agent.gates.vif import routed
from broker.net.model import InvalidError, NetError, ip_address, mac_address
from broker.net.ports import OpenPort
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.agent.gates.base import Device
    from broker.net.ports import LabelledPorts

_MAX_ADDRESSES = 16


class LabelFilter:
    """Gives a vif the class of its frontend's label before it is bridged.

    `label_of` answers the frontend's label in the good grant that this life opens on, or None:
    then the gate stays closed.
    """

    def __init__(self, ports: LabelledPorts, label_of: Callable[[Device], str | None]) -> None:
        self._ports = ports
        self._label_of = label_of

    def admit(self, device: Device, link: str) -> None:
        """Put the port's elements in place; raises `GateError` if they are not."""
        label = self._label_of(device)
        if label is None:
            raise GateError(f"{link}: no label is granted for {device.channel}")
        try:
            self._ports.admit(open_port(device, link, label))
        except NetError as error:
            raise GateError(f"{link}: {error}") from error

    def expel(self, device: Device, link: str) -> None:
        """Drop the port's frames at once and take its elements away; raises `GateError`."""
        try:
            self._ports.expel(link)
        except NetError as error:
            raise GateError(f"{device.channel}: {link}: {error}") from error


def open_port(device: Device, link: str, label: str) -> OpenPort:
    """The port that a device's link is, by the backend's keys `script`, `bridge`, `mac`, `ip`.

    Addresses that are none are left out: they would only cut conntrack entries.

    Raises:
        InvalidError: `mac` is no station's address.
        GateError: it is neither bridged nor routed.
    """
    untrusted_mac = device.values.get("mac", b"").decode("ascii", "replace")
    untrusted_bridge = device.values.get("bridge", b"").decode("ascii", "replace")
    try:
        macs = (mac_address(untrusted_mac),) if untrusted_mac else ()
    except InvalidError as error:
        raise InvalidError(f"mac {escape(untrusted_mac)}: {error}") from error
    bridge = None if routed(device) else untrusted_bridge
    return OpenPort(link, label, bridge, macs, _addresses(device))


def _addresses(device: Device) -> tuple[str, ...]:
    found = []
    for word in device.values.get("ip", b"").decode("ascii", "replace").split()[:_MAX_ADDRESSES]:
        try:
            found.append(ip_address(word))
        except InvalidError:
            continue
    return tuple(found)
