"""What was read is taken in: who is gone, who is new, how everybody stands now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.service.departures import Departures
from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.service import events
    from broker.service.audit import Audit
    from broker.service.decider import Decider
    from broker.service.display import Display
    from broker.service.filter_telling import Telling
    from broker.service.judge import Judge
    from broker.service.mirror import Device, Mirror
    from broker.service.police import Police
    from broker.service.publisher import Publisher
    from broker.service.revoking import Revoking
    from broker.service.survey import Changes
    from broker.xenstore import paths
    from broker.xenstore.client import StoreConnection


class Settling:
    """Brings standings up to what was read, and has the channels they concern judged anew.

    `owing`: everybody's standing is still to be judged, because something changed or because it
    could not be written down.
    """

    def __init__(
        self,
        mirror: Mirror,
        judge: Judge,
        audit: Audit,
        decider: Decider,
        *,
        revoking: Revoking,
        police: Police,
        telling: Telling,
        display: Display,
    ) -> None:
        self.owing = True
        self._mirror = mirror
        self._judge = judge
        self._audit = audit
        self._state = audit.state
        self._decider = decider
        self._revoking = revoking
        self._police = police
        self._display = display
        self._departures = Departures(
            mirror, audit, decider, revoking, telling, on_gone=self._touch
        )

    def all_was_read(self, changes: Changes) -> None:
        """After a full reading: who is not in it is gone, and everybody's standing is owing."""
        self._departures.find(changes)
        self.owing = True

    async def take_in(
        self,
        changes: Changes,
        connection: StoreConnection | None,
        publisher: Publisher | None,
    ) -> None:
        """Take in what was read; what hangs on it is pending afterwards.

        Raises:
            ConnectionLostError: the connection ended.
        """
        self._decider.pending.update(changes.devices)
        lines: list[events.Event] = []
        gone: list[paths.Channel] = []
        admitted = [self._state.admissions.get(domid) for domid in changes.gone]
        if changes.gone or changes.vanished:
            gone = await self._departures.take(changes, lines, connection, publisher)
        if lines or changes.lives or changes.domains or self.owing:
            lines += self._judge.adoptions(time.time())
            if not self._audit.commit(lines):
                self.owing = True
            else:
                if publisher is not None:
                    await publisher.remove(gone)
                    left = [it for it in changes.gone if it not in self._mirror.domains]
                    uuids = [it.uuid for it in admitted if it is not None and it.uuid is not None]
                    ended = [it for it in uuids if not self._mirror.of_uuid(it)]
                    await publisher.forget(left, ended)
                # With adoption, what a domain's directory holds may be why it has no label.
                found = bool(changes.domains) and self._judge.adopts
                if lines or changes.lives or found or self.owing:
                    self.stand()
        self._revoking.heard([*changes.devices, *changes.reports])
        self._revoking.look()
        for device in changes.devices:
            self._watch_guest(device)
            self._police.meet(device)
        for device in changes.reports:
            self._audit.reported(device, escape(device.untrusted_enforced or b"", 300))
            self._decider.tell("report", [(device, self._state.ledger.get(device.path))])
            self._police.meet(device)
        if changes.domains:
            self._display.add_domains(changes.domains)
            for domain in changes.domains:
                self._display.add_devices(domain.devices.values())

    def stand(self) -> None:
        """Admit who is new, judge who may run, and look again at whom that concerns."""
        if not self._audit.commit(self._judge.admissions(time.time())):
            self.owing = True
            return
        self.owing = False
        changed = self._judge.restand()
        self._audit.stand(changed, self._judge.standings)
        for domid in changed:
            self._touch(domid)

    def _touch(self, domid: int) -> None:
        """A domain stands otherwise than before: its channels, on either end, are judged anew."""
        domain = self._mirror.domains.get(domid)
        if domain is not None:
            self._decider.pending.update(dict.fromkeys(domain.devices.values()))
            self._display.add_domains((domain,))
        self._decider.pending.update(self._mirror.backends.get(domid, {}))

    def _watch_guest(self, device: Device) -> None:
        """Note what a guest made of its own directory."""
        kind, evidence = device.frontend_violation()
        domain = self._mirror.domains.get(device.domid)
        if kind and domain is not None:
            self._audit.violation(domain, device, kind, evidence)
            if evidence:
                # What cannot be read may be dom0's helper's doing, who has yet to open it.
                self._police.accuse(device, f"{kind}{evidence}")
