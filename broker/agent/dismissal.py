"""A disk that is refused and never was open is taken away, so that its guest does not wait for it.

Linux's blkfront waits up to 300 s for a disk that is offered and does not come, and whoever loads
it waits along. So the backend says what a toolstack says that takes a device away, `online` 0 and
`state` 5: blkfront then closes its end and goes on. xl itself waits for `state` 2 first (10 s at
most, LIBXL_INIT_TIMEOUT), and gives the whole domain up if that does not come; hence the delay. A
vif needs none of this: netfront connects whether it is granted or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet import defer
from twisted.logger import Logger

from broker.agent.gates.base import GateError
from broker.text.escape import escape
from broker.xenstore.errors import StoreError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from broker.agent.gates.base import BackendNodes, Device
    from broker.xenstore.transport import Reactor

DELAY: Final = 12.0
"""Seconds from a refusal to the end of the offer."""
_OFFERED: Final = b"2"
"""`XenbusStateInitWait`: blkback waits for a disk, and has not been connected in this life."""


class Dismissals:
    """Ends the offer of each refused disk once, `DELAY` seconds after it was refused."""

    log = Logger()

    def __init__(self, reactor: Reactor, nodes: BackendNodes) -> None:
        self._reactor = reactor
        self._nodes = nodes
        self._timers: dict[str, IDelayedCall] = {}

    def note(self, device: Device, *, refused: bool) -> None:
        """This life stands refused and closed, or does not (any more)."""
        offered = device.values.get("online") == b"1" and device.values.get("state") == _OFFERED
        if refused and offered and device.kind == "vbd":
            if device.nonce not in self._timers:
                later = self._reactor.callLater(DELAY, self._end, device)
                self._timers[device.nonce] = later
        else:
            self.forget(device.nonce)

    def forget(self, nonce: str) -> None:
        """That life is over, or refused no more."""
        timer = self._timers.pop(nonce, None)
        if timer is not None:
            timer.cancel()

    def stop(self) -> None:
        """Nothing is taken away any more."""
        for nonce in list(self._timers):
            self.forget(nonce)

    def _end(self, device: Device) -> None:
        del self._timers[device.nonce]
        ending = defer.Deferred.fromCoroutine(self._write(device))
        ending.addErrback(lambda failure: failure.trap(GateError, StoreError) and None)

    async def _write(self, device: Device) -> None:
        # Later events of the directory bring it here again, should this fail.
        await self._nodes.write(device, [("online", b"0"), ("state", b"5")])
        self.log.info(
            "{path}: refused, taken away so that its guest does not wait", path=escape(device.path)
        )
