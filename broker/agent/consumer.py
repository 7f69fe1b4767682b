"""Verified decisions for other enforcers in a backend domain: a virtual switch, a storage daemon.

The agent owns the lives: it draws the nonces, marks the backend's directories with them and
reports them. A `Consumer` only reads, applies the same rule (broker/core/consumer.py) to the same
evidence and tells its user what to do; docs/consuming-decisions.md shows it at work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from broker.agent.lives import BackendDirs, Slot
from broker.core.consumer import NOTHING, Heartbeat, Judgement, Life, Memory, judge
from broker.text.escape import escape
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.paths import (
    DECISIONS,
    HEARTBEAT,
    Channel,
    decision_path,
    domain_dir,
    parse_backend_dir,
    parse_channel,
)
from broker.xenstore.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from twisted.python.failure import Failure

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_LOOK_AGAIN: Final = 1.0
"""Seconds between looks at what waits for a heartbeat, or for a store that refused."""


class Consumer(service.Service):
    """Tells what to do about each channel of `kinds` in backend domain `domid`.

    `decided(channel, judgement)` is called whenever something about a channel has changed, also
    with `hold`; `is_open(channel)` must say whether the user's own gate is open at this moment.
    `memories` should be kept on disk by the user and saved in `decided`, before anything opens:
    it is what keeps an old record from counting again.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        reactor: Reactor,
        *,
        domid: int,
        key: Ed25519PublicKey,
        kinds: Sequence[str],
        is_open: Callable[[Channel], bool],
        decided: Callable[[Channel, Judgement], None],
        memories: MutableMapping[Channel, Memory] | None = None,
    ) -> None:
        self._reactor = reactor
        self._domid = domid
        self._key = key
        self._kinds = tuple(kinds)
        self._is_open = is_open
        self._decided = decided
        self._memories = {} if memories is None else memories
        self._heartbeat = Heartbeat(key)
        self._home = f"{domain_dir(domid)}/backend"
        self._decisions = f"{DECISIONS}/{domid}"
        self._dirs = BackendDirs(domid, self._connected)
        self._dirty: set[Slot] = set()
        self._waiting: set[Slot] = set()
        self._busy = False
        self._found_open: set[Channel] = set()
        """What was open when this consumer came, and has not been seen closed since."""
        self._listed = False
        self._store = StoreSession(
            address,
            reactor,
            on_connect=self._on_connect,
            on_event=self._on_event,
            on_disconnect=self._on_disconnect,
        )

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Connect and watch until stopped."""
        service.Service.startService(self)
        self._store.startService()

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802 - Twisted's name
        """Stop watching; nothing is told any more."""
        service.Service.stopService(self)
        return self._store.stopService()

    def _connected(self) -> StoreConnection:
        if self._store.connection is None:
            raise ConnectionLostError("there is no connection to the store")
        return self._store.connection

    async def _on_connect(self, connection: StoreConnection) -> None:
        for path in (self._home, self._decisions, HEARTBEAT):
            await connection.watch(path, path)
        slots = await self._dirs.slots(self._kinds)
        self._dirty.update(slots)
        if not self._listed:
            channels = [Channel(self._domid, it.kind, it.frontend, it.device) for it in slots]
            unknown = [it for it in channels if it not in self._memories]
            self._found_open.update(it for it in unknown if self._is_open(it))
            self._listed = True
        self._kick()

    def _on_disconnect(self, _reason: Failure) -> None:
        self._heartbeat.unwatched()
        self.log.warn("without a store: what is open stays, nothing opens")

    def _on_event(self, path: str, token: str) -> None:
        if token == HEARTBEAT:
            self._dirty |= self._waiting
        elif token == self._home:
            found = parse_backend_dir("/".join(path.split("/")[:8]))
            if found is not None:
                self._dirty.add(Slot(*found[1:]))
        else:
            decision = parse_channel(DECISIONS, path)
            if decision is not None:
                channel = decision[0]
                self._dirty.add(Slot(channel.device_class, channel.frontend, channel.device))
        self._kick()

    def _kick(self) -> None:
        if self._listed and not self._busy:
            self._busy = True
            defer.Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        while self.running:
            slots, self._dirty = [it for it in self._dirty if it.kind in self._kinds], set()
            try:
                await self._read_heartbeat()
                await self._judge(slots)
            except ConnectionLostError:
                break  # all is read anew when connected again
            except StoreError as error:
                self.log.warn("store: {error}; trying again", error=escape(str(error)))
                self._waiting.update(slots)
                self._reactor.callLater(_LOOK_AGAIN, self._look_again)
                break
            if not self._dirty:
                break
        self._busy = False

    def _look_again(self) -> None:
        self._dirty |= self._waiting
        if self.running:
            self._kick()

    async def _read_heartbeat(self) -> None:
        text = (await self._connected().read_many([HEARTBEAT]))[0]
        if isinstance(text, ConnectionLostError):
            raise text
        beat = text if isinstance(text, bytes) else None
        self._heartbeat.observe(beat, self._reactor.seconds())

    async def _judge(self, slots: Sequence[Slot]) -> None:
        sights = await self._dirs.look(slots)
        channels = {it: Channel(self._domid, it.kind, it.frontend, it.device) for it in sights}
        paths = [decision_path(channels[slot]) for slot in sights]
        texts = await self._connected().read_many(paths)
        for (slot, sight), text in zip(sights.items(), texts, strict=True):
            channel = channels[slot]
            gate_open = self._is_open(channel)
            if not gate_open:
                self._found_open.discard(channel)
            life = Life(
                backend=self._domid,
                device_class=slot.kind,
                frontend=slot.frontend,
                device=slot.device,
                nonce=sight.device.nonce or None,
                inputs=sight.agreed,
                found_open=channel in self._found_open,
            )
            judgement = judge(
                text if isinstance(text, bytes) else None,
                self._key,
                life,
                self._memories.get(channel, NOTHING),
                fresh=self._heartbeat.fresh(self._reactor.seconds()),
                gate_open=gate_open,
            )
            self._memories[channel] = judgement.memory
            (self._waiting.add if judgement.withheld else self._waiting.discard)(slot)
            self._decided(channel, judgement)
