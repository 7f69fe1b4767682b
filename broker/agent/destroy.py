"""Strict mode: a refused domain is destroyed, through the toolstack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet import utils
from twisted.logger import Logger

from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.xenstore.transport import Reactor

_XL: Final = "/usr/sbin/xl"


class Destroyer:
    """Runs `xl destroy`; never for a domid in `spared` (dom0, this domain, the broker's)."""

    log = Logger()

    def __init__(self, reactor: Reactor, spared: Collection[int], xl: str = _XL) -> None:
        self._reactor = reactor
        self._spared = frozenset(spared)
        self._xl = xl

    def destroy(self, domid: int, reason: str) -> None:
        """Begin to destroy domain `domid`; how it ended goes to the log."""
        if domid in self._spared:
            self.log.warn("domain {domid} is refused but never destroyed", domid=domid)
            return
        self.log.warn("destroying domain {domid}: {why}", domid=domid, why=escape(reason))
        ending = utils.getProcessOutputAndValue(
            self._xl, ("destroy", str(domid)), reactor=self._reactor
        )
        ending.addCallbacks(self._ended, self._not_run, callbackArgs=(domid,), errbackArgs=(domid,))

    def _ended(self, result: tuple[bytes, bytes, int], domid: int) -> None:
        _, errors, status = result
        self.log.info(
            "xl destroy {domid}: exit {status} {errors}",
            domid=domid,
            status=status,
            errors=escape(errors.strip()),
        )

    def _not_run(self, failure: object, domid: int) -> None:
        self.log.warn("xl destroy {domid} could not run: {why}", domid=domid, why=failure)
