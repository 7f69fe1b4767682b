"""Domains and devices that are gone: what is to be written down of them, and forgotten."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.service import events
from broker.service.mirror import departed
from broker.xenstore import paths
from broker.xenstore.errors import ConnectionLostError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.service.audit import Audit
    from broker.service.decider import Decider
    from broker.service.filter_telling import Telling
    from broker.service.mirror import Mirror
    from broker.service.publisher import Publisher
    from broker.service.revoking import Revoking
    from broker.service.survey import Changes
    from broker.xenstore.client import StoreConnection


class Departures:
    """Takes who is gone out of the mirror; `on_gone(domid)` before a domain is forgotten."""

    def __init__(
        self,
        mirror: Mirror,
        audit: Audit,
        decider: Decider,
        revoking: Revoking,
        telling: Telling,
        *,
        on_gone: Callable[[int], None],
    ) -> None:
        self._mirror = mirror
        self._audit = audit
        self._state = audit.state
        self._decider = decider
        self._revoking = revoking
        self._telling = telling
        self._on_gone = on_gone

    def find(self, changes: Changes) -> None:
        """After a full reading: note who is gone; an empty store says nothing about anybody."""
        known = self._mirror.domains
        if not any(known):
            return
        changes.gone += [domid for domid in self._state.admissions if domid not in known]
        present = {device.path for device in self._mirror.devices()}
        for path in self._state.ledger.keys() - present:
            parsed = paths.parse_channel(paths.DECISIONS, path)
            domain = None if parsed is None else known.get(parsed[0].frontend)
            if parsed is not None and (domain is None or domain.listed):
                changes.vanished.append(parsed[0])

    async def take(
        self,
        changes: Changes,
        lines: list[events.Event],
        connection: StoreConnection | None,
        publisher: Publisher | None,
    ) -> list[paths.Channel]:
        """Add to `lines` what to write down about who is gone; the channels that went with it.

        Raises:
            ConnectionLostError: the connection ended.
        """
        now = time.time()
        privileged = publisher is not None and publisher.privileged
        asking = connection if privileged else None
        vanished = dict.fromkeys(changes.vanished)
        released: list[int] = []
        for domid in changes.gone:
            domain = self._mirror.domains.get(domid)
            if domain is not None:
                vanished |= {it.channel: None for it in domain.devices.values() if it.channel}
                domain.dying = await _still_introduced(asking, domid)
                for device in list(domain.devices.values()):
                    self._mirror.drop_device(device)
                if domain.dying:
                    continue
            released.append(domid)
            self._audit.forget(domid)
            if domid in self._state.admissions:
                lines.append(events.Released(now, domid))
        gone = [it for it in vanished if self._mirror.device_of(it) is None]
        self._telling.forget(gone)
        # While the frontend's name may still be known.
        ledger = self._state.ledger
        last = [(departed(it), ledger.get(paths.decision_path(it))) for it in gone]
        self._decider.tell("gone", [(device, entry) for device, entry in last if entry is not None])
        lines += self._revoking.gone(released)
        for domid in released:
            self._on_gone(domid)
            self._mirror.drop(domid)
        for channel in gone:
            path = paths.decision_path(channel)
            self._audit.forget(path)
            if path in ledger:
                lines.append(events.Vanished(now, path, privileged))
        return gone


async def _still_introduced(connection: StoreConnection | None, domid: int) -> bool:
    """Whether the store still knows a domain whose home is gone: dying ones count."""
    if connection is None:
        return False
    try:
        return await connection.is_domain_introduced(domid)
    except ConnectionLostError:
        raise
    except StoreError:
        return False
