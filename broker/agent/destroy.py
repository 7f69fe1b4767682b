"""A refused domain is destroyed, through the toolstack: in strict mode, or where no gate is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import defer, utils
from twisted.logger import Logger

from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.xenstore.transport import Reactor


class Destroyer:
    """Runs `xl destroy`; never for a domid that is in `spared` then.

    Those are dom0, this domain, and the broker's, which may come later.
    """

    log = Logger()

    def __init__(self, reactor: Reactor, spared: Collection[int], xl: str) -> None:
        self._reactor = reactor
        self._spared = spared
        self._xl = xl
        self._under_way: set[int] = set()

    def destroy(self, domid: int, reason: str) -> defer.Deferred[bool]:
        """Destroy domain `domid`; how it ended goes to the log.

        Returns:
            Whether nothing is left to do; False if it has to be tried again.
        """
        return defer.Deferred.fromCoroutine(self._run(domid, reason))

    async def _run(self, domid: int, reason: str) -> bool:
        if domid in self._spared:
            self.log.warn("domain {domid} is refused but never destroyed", domid=domid)
            return True
        if domid in self._under_way:
            return False
        self._under_way.add(domid)
        self.log.warn("destroying domain {domid}: {why}", domid=domid, why=escape(reason))
        try:
            _, errors, status = await utils.getProcessOutputAndValue(
                self._xl, ("destroy", str(domid)), reactor=self._reactor
            )
        except Exception as error:  # noqa: BLE001 - it did not run; tried again
            why = escape(repr(error))
            self.log.warn("xl destroy {domid} could not run: {why}", domid=domid, why=why)
            return False
        finally:
            self._under_way.discard(domid)
        self.log.info(
            "xl destroy {domid}: exit {status} {errors}",
            domid=domid,
            status=status,
            errors=escape(errors.strip()),
        )
        return bool(status == 0)
