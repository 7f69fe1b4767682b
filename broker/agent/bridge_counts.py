"""What the kernel counted on this domain's bridges, in the words of labels, profiles and vifs."""

from __future__ import annotations

import re
from math import ceil
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from broker.core.drops import Drop
from broker.core.filter_report import Lease, RuleCount
from broker.net.model import NetError
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.agent.net_helper import NetHelper
    from broker.net.report import Report
    from broker.xenstore.transport import Reactor

_VIF: Final = re.compile(r"vif(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})")
_MINUTE: Final = 60


class BridgeCounts:
    """Asks the net helper; `report` says who is who, None while that is not known."""

    log = Logger()

    def __init__(
        self, report: Callable[[], Report | None], helper: NetHelper, reactor: Reactor
    ) -> None:
        self._report = report
        self._helper = helper
        self._reactor = reactor

    def refused(self) -> list[Drop]:
        """What was refused so far, by the labels of both ends; nothing where that is not known."""
        report = self._report()
        if report is None:
            return []
        try:
            counted = self._helper.client.drops()
        except NetError as error:
            self.log.warn("refused packets cannot be counted: {e}", e=escape(str(error)))
            return []
        found = [
            Drop(report.end(it.sender), report.end(it.receiver), it.packets, it.bytes)
            for it in counted
        ]
        return [drop for drop in found if drop.packets]

    def filters(self) -> tuple[list[RuleCount], list[Lease]]:
        """What filter profiles decided, and the addresses learned; nothing where no vif has any.

        A lease's end is told to the minute, so that the same lease is the same each time.
        """
        report = self._report()
        names = {it.index: it.name for it in report.ports if it.profiles} if report else {}
        if not names:
            return [], []
        try:
            counted = self._helper.client.filter_counts()
        except NetError as error:
            self.log.warn("filters cannot be counted: {error}", error=escape(str(error)))
            return [], []
        now = self._reactor.seconds()
        leases = []
        for it in counted.leases:
            vif = _VIF.fullmatch(names.get(it.index, ""))
            if vif is not None:
                until = _MINUTE * ceil((now + it.seconds) / _MINUTE)
                leases.append(Lease(int(vif[1]), vif[2], it.address, until))
        rules = [RuleCount(it.rule, it.packets, it.bytes) for it in counted.counts if it.packets]
        return rules, leases
