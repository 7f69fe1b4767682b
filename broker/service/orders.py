"""The broker's orders to dom0's agent: audited, published, and waited for.

The broker on a real host may write nothing of a device's; dom0's agent may. What is ordered is in
the audit log before it is in the store, and how it ended after. Results are matched by the order's
id: the store only says where to look.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final

import msgspec
from twisted.internet import defer
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from broker.core.order import Order, Result, parse_result, sign_order
from broker.core.record import RecordError
from broker.service import events
from broker.text.escape import escape
from broker.xenstore.errors import NotFoundError, StoreError
from broker.xenstore.paths import ORDER_PLACES, ORDER_RESULTS, ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from broker.core.order import Kind
    from broker.service.engine import Engine
    from broker.service.mirror import Device
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.paths import Channel

PATIENCE: Final = 40.0
"""Seconds until an order without a result counts as failed: its beginning, a guest that takes its
time to let go, and the toolstack.
"""
_BEATS: Final = 8
"""Heartbeats within which an order has to be begun."""
_BROKER: Final = "broker"
"""Who orders what the policy wants, and no administrator."""


class By(msgspec.Struct, frozen=True):
    """Who wants it, in which role, and why."""

    subject: str = _BROKER
    role: str = ""
    reason: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """How it ended: `how` in words. `answered` is whether dom0's agent said so."""

    ok: bool
    how: str
    answered: bool = True
    seq: int = 0


class Orders:
    """The orders under way, at most as many as there are places; `beat()` is the last heartbeat.

    No function raises, and no Deferred fails: what went wrong is in the outcome.
    """

    log = Logger()

    def __init__(
        self,
        engine: Engine,
        key: Ed25519PrivateKey,
        clock: IReactorTime,
        beat: Callable[[], int],
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._engine = engine
        self._key = key
        self._clock = clock
        self._beat = beat
        self._patience = patience
        self._waiting: dict[str, tuple[str, Deferred[Result]]] = {}

    def connect(
        self, channel: Channel, domain_uuid: str, details: Mapping[str, str], by: By
    ) -> Deferred[Outcome]:
        """Set a device up, made from `details` (`broker.core.order.DETAILS`)."""
        return self._channel("connect", channel, domain_uuid, by, details=details)

    def disconnect(
        self, channel: Channel, domain_uuid: str, by: By, *, force: bool = False
    ) -> Deferred[Outcome]:
        """Take a device away; with `force` its guest is not asked to let go first."""
        return self._channel("disconnect", channel, domain_uuid, by, force=force)

    def reset(self, device: Device, by: By | None = None) -> Deferred[Outcome]:
        """Take a device away at both ends and set the same one up anew: a new life of it."""
        domain = self._engine.mirror.domains.get(device.domid)
        domain_uuid = None if domain is None else domain.uuid
        if device.channel is None or device.gone or domain_uuid is None:
            return _settled(f"{device} is gone")
        return self._channel("reset", device.channel, domain_uuid, by or By())

    def destroy(
        self, domid: int, domain_uuid: str, reason: str, by: By | None = None
    ) -> Deferred[Outcome]:
        """Destroy a domain through the toolstack; never domid 0, the agent's or the broker's."""
        who = msgspec.structs.replace(by or By(), reason=reason)
        order = Order(
            kind="destroy",
            seq=0,
            id=str(uuid.uuid4()),
            until=0,
            frontend=domid,
            uuid=domain_uuid,
            reason=escape(reason),
        )
        return Deferred.fromCoroutine(self._give(order, f"domain {domid}", who))

    def _channel(
        self,
        kind: Kind,
        channel: Channel,
        domain_uuid: str,
        by: By,
        *,
        details: Mapping[str, str] | None = None,
        force: bool = False,
    ) -> Deferred[Outcome]:
        order = Order(
            kind=kind,
            seq=0,
            id=str(uuid.uuid4()),
            until=0,
            frontend=channel.frontend,
            uuid=domain_uuid,
            backend=channel.backend,
            device_class=channel.device_class,
            device=channel.device,
            details=details or {},
            force=force,
            reason=escape(by.reason or f"{by.subject} asked for it"),
        )
        return Deferred.fromCoroutine(self._give(order, str(channel), by))

    def event(self, path: str) -> bool:
        """A node changed; whether it is one of the agent's results."""
        if not f"{path}/".startswith(f"{ORDER_RESULTS}/"):
            return False
        place = path[len(ORDER_RESULTS) + 1 :]
        if place in self._waiting:
            reading = Deferred.fromCoroutine(self._look(place))
            reading.addErrback(lambda failure: failure.trap(StoreError) and None)
        return True

    async def _give(self, order: Order, about: str, by: By) -> Outcome:
        connection, audit = self._engine.connection, self._engine.audit
        free = [place for place in ORDER_PLACES if place not in self._waiting]
        if connection is None or self._engine.phase != "enforcing":
            return Outcome(ok=False, how="the broker does not enforce now", answered=False)
        if not free:
            how = f"{len(ORDER_PLACES)} orders are under way: wait for one of them"
            return Outcome(ok=False, how=how, answered=False)
        place = free[0]
        waiting: Deferred[Result] = Deferred()
        self._waiting[place] = (order.id, waiting)
        try:
            problem = await _not_taken(connection, order.kind)
            if problem:
                return Outcome(ok=False, how=problem, answered=False)
            now = time.time()
            seq = max(audit.state.order_seq + 1, int(now * 1000))
            numbered = msgspec.structs.replace(order, seq=seq, until=self._beat() + _BEATS)
            text = sign_order(numbered, self._key)
            line = events.Ordered(
                now,
                seq,
                order.id,
                order.kind,
                about,
                order.frontend,
                order.uuid,
                text.decode("ascii"),
                by.subject,
                by.role,
            )
            if not audit.commit([line]):
                how = f"the audit log cannot be written: {audit.broken}"
                return Outcome(ok=False, how=how, answered=False)
            outcome = await self._published(connection, place, text, waiting)
        except (StoreError, RecordError) as error:
            return Outcome(ok=False, how=escape(str(error)), answered=False)
        finally:
            del self._waiting[place]
        audit.note(events.OrderEnded(time.time(), seq, order.id, outcome.ok, outcome.how))
        self.log.info(
            "{kind} {about}: {end} {how}",
            kind=order.kind,
            about=about,
            end="done," if outcome.ok else "failed,",
            how=outcome.how,
        )
        return msgspec.structs.replace(outcome, seq=seq)

    async def _published(
        self, connection: StoreConnection, place: str, text: bytes, waiting: Deferred[Result]
    ) -> Outcome:
        """Put an order into the store, and wait for its result."""
        path = f"{ORDERS}/{place}"
        try:
            await connection.write(path, text)
        except StoreError as error:
            how = f"the order cannot be published: {error}: is dom0's helper running?"
            return Outcome(ok=False, how=how, answered=False)
        waiting.addTimeout(self._patience, self._clock)
        try:
            result = await waiting
        except (defer.TimeoutError, defer.CancelledError):
            how = f"no answer of dom0's agent within {self._patience:.0f} s: it may come yet"
            outcome = Outcome(ok=False, how=how, answered=False)
        else:
            outcome = Outcome(ok=result.ok, how=escape(result.reason, 300))
        # So that nobody begins it who sees it later; the connection may be another one by now.
        now = self._engine.connection
        if now is not None:
            maybeDeferred(now.write, path, b"").addErrback(_unwritten)
        return outcome

    async def _look(self, place: str) -> None:
        connection = self._engine.connection
        if connection is None:
            return
        text = await connection.read(f"{ORDER_RESULTS}/{place}")
        try:
            result = parse_result(text)
        except RecordError as error:
            if text:
                self.log.warn("{place}: no result: {e}", place=place, e=escape(str(error)))
            return
        order_id, waiting = self._waiting.get(place, ("", None))
        if waiting is not None and result.id == order_id and not waiting.called:
            waiting.callback(result)


async def _not_taken(connection: StoreConnection, kind: Kind) -> str:
    """Why dom0's agent takes no such order; empty if it does."""
    try:
        taken = await connection.read(ORDER_RESULTS)
    except NotFoundError:
        taken = b""
    if not taken:
        return "nobody takes orders in dom0: is broker-agent running there?"
    if kind.encode("ascii") not in taken.split(b","):
        return f"dom0's agent takes no orders to {kind}: orders in its agent.yaml"
    return ""


def _settled(how: str) -> Deferred[Outcome]:
    done: Deferred[Outcome] = Deferred()
    done.callback(Outcome(ok=False, how=how, answered=False))
    return done


def _unwritten(failure: Failure) -> None:
    failure.trap(StoreError)
