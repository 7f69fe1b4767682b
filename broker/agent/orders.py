"""The broker's orders, as dom0's agent takes them: verified, noted, carried out, answered.

A node of `paths.ORDERS` holds an order. It is taken if the broker signed it, its number is higher
than that of every one taken before, and the broker's heartbeat is alive and has not passed `until`.
Taken means that its number is on the disk; then the host's own rules (order_rules.py) are asked,
and it is carried out (order_acts.py). The result is on the disk before it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from broker.agent.order_acts import ActError
from broker.core.order import KINDS, Result, encode_result, verify_order
from broker.core.record import RecordError
from broker.text.escape import escape
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.paths import ORDER_PLACES, ORDER_RESULTS, ORDERS
from broker.xenstore.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from broker.agent.order_acts import Acts
    from broker.agent.order_log import OrderLog
    from broker.agent.order_rules import OrderRules
    from broker.core.order import Order
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_RETRY: Final = 1.0
"""Seconds before orders that could not be taken yet are looked at again."""

Place = tuple[int, str | None, str | None]
"""What an order is about: frontend, class, device."""


class OrderSession(service.Service):
    """Takes orders over the store at `address`, as domain 0.

    `beat()` is the broker's heartbeat counter, None while it has stopped. `make_acts` is given
    where to find the connection.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        reactor: Reactor,
        *,
        key: Ed25519PublicKey,
        orders: OrderLog,
        rules: OrderRules,
        make_acts: Callable[[Callable[[], StoreConnection]], Acts],
        beat: Callable[[], int | None],
    ) -> None:
        self._reactor = reactor
        self._key = key
        self._orders = orders
        self._rules = rules
        self._beat = beat
        self._acts = make_acts(self.connected)
        self._store = StoreSession(
            address,
            reactor,
            on_connect=self._on_connect,
            on_event=self._on_event,
            on_disconnect=self._on_disconnect,
        )
        self._ready = False
        self._dirty = False
        self._busy = False
        self._looking: defer.Deferred[None] = defer.succeed(None)
        self._under_way: dict[str, defer.Deferred[None]] = {}
        self._places: set[Place] = set()
        self._told: dict[str, bytes] = {}
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """Connect and take orders until stopped."""
        service.Service.startService(self)
        if self._orders.problem:
            self.log.critical(
                "no order is taken, since it is not known which were: {why}; remove that file "
                "once nothing old is in {orders}",
                why=escape(self._orders.problem),
                orders=ORDERS,
            )
            return
        self._store.startService()

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802 - Twisted's name
        """Take no more; what is under way is gone on with at the next start."""
        service.Service.stopService(self)
        return defer.Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._ready = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._looking
        for doing in list(self._under_way.values()):
            doing.cancel()
        await self._store.stopService()

    def connected(self) -> StoreConnection:
        """The store's connection; raises `ConnectionLostError` while there is none."""
        connection = self._store.connection
        if connection is None:
            raise ConnectionLostError("there is no connection to the store")
        return connection

    async def _on_connect(self, connection: StoreConnection) -> None:
        await connection.watch(ORDERS, ORDERS)
        taken = ",".join(kind for kind in KINDS if kind in self._rules.kinds)
        await connection.write(ORDER_RESULTS, taken.encode("ascii"))
        for place, line in self._orders.results.items():
            await connection.write(f"{ORDER_RESULTS}/{place}", line)
        self._ready = self._dirty = True
        for place, text in self._orders.running.items():
            if place not in self._under_way:
                self._go_on(place, text)
        self._kick()

    def _go_on(self, place: str, text: bytes) -> None:
        """Take up an order that was under way when the agent or the connection ended."""
        try:
            order = verify_order(text, self._key)
        except RecordError as error:
            self.log.warn("an order of another broker's stays undone: {e}", e=escape(str(error)))
        else:
            self._begin(place, order, again=True)

    def _on_disconnect(self, _reason: Failure) -> None:
        self._ready = False

    def _on_event(self, _path: str, _token: str) -> None:
        self._dirty = True
        self._kick()

    def _kick(self) -> None:
        if not self._busy and self._ready and self._dirty:
            self._busy = True
            self._looking = defer.Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        while self._ready and self._dirty:
            self._dirty = False
            try:
                await self._take_all(self.connected())
            except ConnectionLostError:
                break
            except Exception as error:  # noqa: BLE001 - the executor's edge: nothing was done
                self.log.warn("orders: {error}; trying again", error=escape(repr(error)))
                self._look_later()
        self._busy = False
        self._kick()

    def _look_later(self) -> None:
        def again() -> None:
            self._timer = None
            self._on_event("", "")

        if self._timer is None:
            self._timer = self._reactor.callLater(_RETRY, again)

    async def _take_all(self, connection: StoreConnection) -> None:
        """Take what is new, in the order of its numbers."""
        texts = await connection.read_many([f"{ORDERS}/{place}" for place in ORDER_PLACES])
        found: list[tuple[int, str, Order, bytes]] = []
        for place, text in zip(ORDER_PLACES, texts, strict=True):
            if not isinstance(text, bytes) or not text or text == self._told.get(place):
                continue
            try:
                order = verify_order(text, self._key)
            except RecordError as error:
                self.log.warn("{o}/{p} is no order: {e}", o=ORDERS, p=place, e=escape(str(error)))
                self._told[place] = text
                continue
            found.append((order.seq, place, order, text))
        for _, place, order, text in sorted(found, key=lambda it: it[:2]):
            self._take(place, order, text)

    def _take(self, place: str, order: Order, text: bytes) -> None:
        if order.seq <= self._orders.seq:
            self._told[place] = text
            if text != self._orders.running.get(place):
                self.log.info("order {seq} is not taken again", seq=order.seq)
            return
        if place in self._under_way:
            return  # looked at again when that one has ended
        beat = self._beat()
        if beat is None:
            self._look_later()
            return
        self._told[place] = text
        try:
            self._orders.begin(place, order.seq, text)
        except OSError as error:
            self.log.critical("order {seq} cannot be noted: {e}", seq=order.seq, e=error)
            why = f"the agent cannot note that it took it: {error}"
            self._tell(place, encode_result(_failed(order, why)))
            return
        if beat > order.until:
            self._end(place, _failed(order, "it came too late: nobody expects it any more"))
            return
        self._begin(place, order, again=False)

    def _begin(self, place: str, order: Order, *, again: bool) -> None:
        doing = defer.Deferred.fromCoroutine(self._do(place, order, again=again))
        self._under_way[place] = doing
        doing.addBoth(self._done, place)

    def _done(self, result: Failure | None, place: str) -> None:
        del self._under_way[place]
        if result is not None:
            self.log.info("the order in {place} is gone on with at the next start", place=place)
        self._dirty = True
        self._kick()

    async def _do(self, place: str, order: Order, *, again: bool) -> None:
        """Carry one order out; its result goes to the disk, then to the broker."""
        about: Place = (order.frontend, order.device_class, order.device)
        self.log.info(
            "order {seq}: to {kind} {about}: {why}",
            seq=order.seq,
            kind=order.kind,
            about=_words(order),
            why=escape(order.reason),
        )
        why = self._rules.refusal(order)
        if not why and about in self._places:
            why = "another order about it is under way"
        if why:
            self._end(place, _failed(order, why))
            return
        self._places.add(about)
        try:
            words = await self._carried_out(order, again=again)
            result = Result(ok=True, seq=order.seq, id=order.id, reason=words)
        except (ConnectionLostError, defer.CancelledError):
            return  # gone on with once there is a store again, or at the next start
        except (ActError, StoreError) as error:
            result = _failed(order, str(error))
        except Exception as error:  # noqa: BLE001 - the executor's edge
            self.log.failure("order {seq} failed", seq=order.seq)
            result = _failed(order, repr(error))
        finally:
            self._places.discard(about)
        self._end(place, result)

    async def _carried_out(self, order: Order, *, again: bool) -> str:
        if not again:
            return await self._acts.carry_out(order)
        if order.kind == "reset":
            # Its first half may have been done, and the device must not stay away.
            return await self._acts.set_up_again(order)
        raise ActError("the agent was interrupted at it: it may have been done or not")

    def _end(self, place: str, result: Result) -> None:
        line = encode_result(result)
        self.log.info("order {seq}: {line}", seq=result.seq, line=escape(line))
        try:
            self._orders.end(place, line)
        except OSError as error:
            self.log.critical(
                "the result of order {seq} cannot be noted: {e}", seq=result.seq, e=error
            )
        self._tell(place, line)

    def _tell(self, place: str, line: bytes) -> None:
        if not self._ready:
            return  # told on connecting
        telling = self.connected().write(f"{ORDER_RESULTS}/{place}", line)
        telling.addErrback(
            lambda failure: self.log.warn(
                "a result cannot be told: {e}", e=escape(failure.getErrorMessage())
            )
        )


def _failed(order: Order, why: str) -> Result:
    return Result(ok=False, seq=order.seq, id=order.id, reason=escape(why, 300))


def _words(order: Order) -> str:
    if order.kind == "destroy":
        return f"domain {order.frontend}"
    device_class, device = escape(order.device_class or ""), order.device
    return f"{device_class}/{order.frontend}/{device} -> {order.backend}"
