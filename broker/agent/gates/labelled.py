"""A vif as a port of broker/net: what its frames are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.agent.gates.vif import routed
from broker.net.model import InvalidError, ip_address, mac_address
from broker.net.ports import OpenPort
from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.agent.gates.base import Device
    from broker.net.model import PortFilter

_MAX_ADDRESSES = 16


def open_port(device: Device, link: str, label: str, asked: PortFilter | None = None) -> OpenPort:
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
    return OpenPort(link, label, bridge, macs, _addresses(device), asked)


def _addresses(device: Device) -> tuple[str, ...]:
    found = []
    for word in device.values.get("ip", b"").decode("ascii", "replace").split()[:_MAX_ADDRESSES]:
        try:
            found.append(ip_address(word))
        except InvalidError:
            continue
    return tuple(found)
