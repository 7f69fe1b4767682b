"""What is to be done about one slot: the agent's rule, and what this domain itself knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.core.agent_report import BOOTSTRAP
from broker.core.consumer import Judgement, Life, Memory, judge
from broker.xenstore.errors import ConnectionLostError
from broker.xenstore.paths import decision_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from broker.agent.config import BootstrapDevice
    from broker.agent.durable import Known
    from broker.agent.lives import Sight, Slot
    from broker.agent.ungated import Gates
    from broker.xenstore.client import StoreConnection


class Judge:
    """Applies broker/core/consumer.py to slots of domain `domid`."""

    def __init__(
        self,
        *,
        domid: int,
        gates: Gates,
        key: Ed25519PublicKey,
        connection: Callable[[], StoreConnection],
        fresh: Callable[[], bool],
        bootstrap: Sequence[BootstrapDevice],
        allow_observe: bool,
    ) -> None:
        self._domid = domid
        self._gates = gates
        self._key = key
        self._connection = connection
        self._fresh = fresh
        self._bootstrap = bootstrap
        self._allow_observe = allow_observe

    async def texts(self, sights: dict[Slot, Sight]) -> dict[Slot, bytes | None]:
        """What the decision nodes hold."""
        paths = [decision_path(sight.device.channel) for sight in sights.values()]
        texts: dict[Slot, bytes | None] = {}
        for slot, text in zip(sights, await self._connection().read_many(paths), strict=True):
            if isinstance(text, ConnectionLostError):
                raise text
            texts[slot] = text if isinstance(text, bytes) else None
        return texts

    def judge(
        self, slot: Slot, known: Known, sight: Sight, record: bytes | None, *, gate_open: bool
    ) -> Judgement:
        """What to do about this life of the slot, given what its decision node holds."""
        life = Life(
            backend=self._domid,
            device_class=sight.device.channel.device_class,
            frontend=slot.frontend,
            device=slot.device,
            nonce=known.nonce,
            inputs=sight.agreed,
            # Without a gate it never was closed: it stays until answered.
            found_open=known.found_open or not self._gates.has(slot.kind),
            told=slot.kind != "vif" or sight.device.values.get("hotplug-status") == b"connected",
        )
        judgement = self._rule(record, life, known.memory, gate_open=gate_open)
        if self._is_bootstrap(slot, sight):
            action = "hold" if gate_open else "open"
            return msgspec.structs.replace(
                judgement, action=action, reason=BOOTSTRAP, refused=False, final=False
            )
        if not self._gates.has(slot.kind):
            if judgement.action == "close" and not judgement.memory.denied:
                # Granted after a denial: there is nothing that could be closed before it counts.
                judgement = self._rule(record, life, judgement.memory, gate_open=gate_open)
            return msgspec.structs.replace(judgement, action="hold", final=False)
        if judgement.action == "open" and sight.device.values.get("online") == b"0":
            reason = "granted, but the device is being removed"
            return msgspec.structs.replace(judgement, action="hold", reason=reason)
        return judgement

    def _rule(
        self, record: bytes | None, life: Life, memory: Memory, *, gate_open: bool
    ) -> Judgement:
        return judge(
            record,
            self._key,
            life,
            memory,
            fresh=self._fresh(),
            gate_open=gate_open,
            allow_observe=self._allow_observe,
        )

    def _is_bootstrap(self, slot: Slot, sight: Sight) -> bool:
        """Whether the local list names it; only where the toolstack's copy agrees."""
        params = sight.device.values.get("params", b"")
        device_class = sight.device.channel.device_class
        return sight.agreed is not None and any(
            (it.uuid, it.device_class, str(it.devid), it.params.encode())
            == (sight.uuid, device_class, slot.device, params)
            for it in self._bootstrap
        )
