"""What no gate can close, and what is left when it is denied: the domain is destroyed.

A qdisk is served by QEMU from the moment the domain is built, a PCI device by the hypervisor, an
HVM guest's emulated disk or network card by its device model, beside the vbd or vif of the same
name. For 9pfs, pvcalls, vscsi, vusb, vtpm and whatever else there may come, removing the
backend's directory was never seen to end the connection (some are QEMU's too), so they are held to
be the same. A pending, missing or bad record destroys nothing: only a denial that the broker
signed for this very life does, for with the broker away every domain would die.

Not counted are console, vkbd and vfb: they end in this domain's own xenconsoled and QEMU, which
every domain has, and reach no other domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet import defer
from twisted.logger import Logger

from broker.agent.gates.base import GateError, Observed
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from broker.agent.gates.base import Device, Gate

    Destroy = Callable[[int, str], defer.Deferred[bool]]
    """Destroys a domid, for a reason; whether it is done."""

HARMLESS: Final = frozenset({"console", "vkbd", "vfb", "suspend"})
"""Kinds of backend that lead to no other domain: neither gated nor denied."""
_GATED: Final = frozenset({"vif", "vbd"})
_IOEMU: Final = b"vif_ioemu"
"""A vif backend's `type` where libxl gave the guest an emulated card too (libxl_nic_type)."""
_XVD, _EXTENDED, _PER_DISK, _EMULATED_DISKS = 202 << 8, 1 << 28, 16, 6
"""Xen's numbering of virtual disks: docs/man/xen-vbd-interface.7."""


class UngatedGate:
    """Stands where there is no gate: open as long as the backend is there."""

    def observe(self, device: Device) -> Observed:
        """Open, however little is connected yet."""
        return Observed(open=bool(device.values), detail=f"no gate for {device.kind}")

    async def open(self, device: Device) -> None:
        """It is open."""

    async def suspend(self, device: Device) -> None:
        """As `revoke`."""
        raise GateError(f"no gate for {device.kind}")

    async def revoke(self, device: Device, *, final: bool) -> None:  # noqa: ARG002 - the protocol's
        """It cannot be."""
        raise GateError(f"no gate for {device.kind}")

    async def release(self, device: Device) -> None:
        """Nothing is held."""

    def sweep(self, nonces: Collection[str]) -> None:
        """Nothing is held."""


class Gates:
    """The gates of this domain, by backend kind; every kind but the harmless has one."""

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._gates = dict(gates)
        self._none: Gate = UngatedGate()

    def __contains__(self, kind: str) -> bool:
        """Whether devices of this kind concern the agent."""
        return kind in self._gates or kind not in HARMLESS | _GATED

    def __getitem__(self, kind: str) -> Gate:
        """The gate of a kind that concerns the agent."""
        return self._gates.get(kind, self._none)

    def has(self, kind: str) -> bool:
        """Whether devices of this kind can be opened and closed."""
        return kind in self._gates

    def all(self) -> list[Gate]:
        """Those there are."""
        return list(self._gates.values())


def unclosed(kind: str, device: str, values: Mapping[str, bytes], *, hvm: bool) -> str:
    """What of this device no gate closes, in words; empty if there is nothing.

    Args:
        kind: the backend's.
        device: the devid.
        values: the backend's nodes.
        hvm: whether the frontend has emulated devices.
    """
    if kind not in _GATED:
        return f"no gate for {kind}"
    if kind == "vif":
        return "no gate for its emulated tap" if values.get("type") == _IOEMU else ""
    return "no gate for its emulated disk" if hvm and _emulated(int(device)) else ""


def _emulated(number: int) -> bool:
    """Whether libxl may give QEMU the disk too: of xvd the first six (IDE, AHCI), any hd and sd."""
    if number >= _EXTENDED:
        return False
    return number < _XVD or (number - _XVD) // _PER_DISK < _EMULATED_DISKS


class Refusals:
    """Each life that was refused, told once to who destroys its domain; again if that failed.

    `refused` is told of all (strict mode), `ungated` only of what no gate closes; either may be
    absent. Domains with these `spared` uuids, those of bootstrap devices, never are.
    """

    log = Logger()

    def __init__(
        self, refused: Destroy | None, ungated: Destroy | None, spared: Collection[str]
    ) -> None:
        self._refused = refused
        self._ungated = ungated
        self._spared = frozenset(spared)
        self._done: dict[str, bool] = {}

    def tell(self, nonce: str, frontend: int, uuid: str | None, reason: str, left: str) -> bool:
        """The life `nonce` is refused, and `left` open by `unclosed`; whether to tell it again."""
        destroy = self._refused or (self._ungated if left else None)
        if destroy is None:
            return False
        if nonce in self._done:
            return not self._done[nonce]
        if self._spared and (uuid is None or uuid in self._spared):
            if uuid is None:
                return True  # it may be the one to be spared: when its uuid can be read
            self.log.warn("domain {id} has a bootstrap device: never destroyed", id=frontend)
            self._done[nonce] = True
            return False
        self._done[nonce] = False
        why = f"{left}: {reason}" if left else reason
        ending = defer.maybeDeferred(destroy, frontend, why)
        ending.addCallbacks(self._ended, self._failed, callbackArgs=(nonce,), errbackArgs=(nonce,))
        return not self._done.get(nonce, False)

    def forget(self, nonce: str) -> None:
        """That life is over."""
        self._done.pop(nonce, None)

    def _ended(self, done: bool, nonce: str) -> None:  # noqa: FBT001 - a Deferred's result
        if not done:
            self._done.pop(nonce, None)
        elif nonce in self._done:
            self._done[nonce] = True

    def _failed(self, failure: object, nonce: str) -> None:
        self.log.warn("a domain could not be destroyed: {why}", why=escape(str(failure)))
        self._done.pop(nonce, None)
