"""Carrying the broker's orders out: devices set up and taken away as libxl does it.

Each step is one transaction, and in it the domain is looked at again: it has to be the one that the
order is for. Nothing here depends on the guest; it is asked to let go first, and not waited for
beyond that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet import task

from broker.text.escape import escape
from broker.xenstore.devices import attach_requests, from_copy, remove_device
from broker.xenstore.errors import NotFoundError, StoreError
from broker.xenstore.paths import (
    domain_dir,
    frontend_dir,
    libxl_device_dir,
    parse_backend_dir,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from broker.agent.order_rules import OrderRules
    from broker.core.order import Order
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.devices import Device
    from broker.xenstore.transaction import Transaction

PATIENCE: Final = 10.0
"""Seconds that a guest has for letting go: LIBXL_DESTROY_TIMEOUT."""
PAUSE: Final = 2.0
"""Seconds without a device in a reset: both ends' kernels have to see that it is gone. Linux let
go within one; a directory that is back before that is the old device to it.
"""
_STEP: Final = 0.1
_CLOSED: Final = b"6"
_RESETTABLE: Final = frozenset({"vif", "vbd"})


class ActError(Exception):
    """An order was not carried out; the message says why, and nothing was done."""


class Acts:
    """What orders can bring about, over whatever connection there is.

    `destroy(domid, reason)` runs the toolstack. Every function raises `ActError`, and `StoreError`
    if the store would not have it.
    """

    def __init__(
        self,
        connection: Callable[[], StoreConnection],
        clock: IReactorTime,
        rules: OrderRules,
        destroy: Callable[[int, str], Deferred[bool]],
        *,
        patience: float = PATIENCE,
        pause: float = PAUSE,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._rules = rules
        self._destroy = destroy
        self._patience = patience
        self._pause = pause

    async def carry_out(self, order: Order) -> str:
        """Do what the order says; how, in words."""
        if order.kind == "connect":
            return await self._connect(order)
        if order.kind == "disconnect":
            return await self._disconnect(order)
        if order.kind == "reset":
            await self._connection().transaction(partial(_take_ends_away, order))
            await task.deferLater(self._clock, self._pause)
            return await self.set_up_again(order)
        return await self._destroy_domain(order)

    async def set_up_again(self, order: Order) -> str:
        """The second half of a reset, also one that was interrupted: from the toolstack's copy."""
        connection = self._connection()

        async def set_up(tx: Transaction) -> str:
            device = await _recorded(tx, order, self._rules.protocol)
            if await _exists(tx, device.frontend_dir(order.frontend)):
                raise ActError("its frontend is there: it was never away, or is back already")
            await _send(connection, tx, order.frontend, device)
            return "taken away and set up again"

        return await connection.transaction(set_up)

    async def _connect(self, order: Order) -> str:
        connection, device = self._connection(), self._rules.device(order)

        async def set_up(tx: Transaction) -> str:
            await _must_live(tx, order)
            if await _exists(tx, device.libxl_dir(order.frontend)):
                raise ActError(f"there is a {device.kind} {device.devid} already")
            if not await _exists(tx, domain_dir(device.backend)):
                raise ActError(f"the backend, domain {device.backend}, does not run")
            await _send(connection, tx, order.frontend, device)
            return "set up"

        return await connection.transaction(set_up)

    async def _disconnect(self, order: Order) -> str:
        how = "taken away"
        if not order.force:
            backend = await self._connection().transaction(partial(_ask, order))
            if not await self._let_go(backend):
                how += f", though its guest did not let go within {self._patience:.0f} s"
        await self._connection().transaction(partial(_take_away, order))
        return how

    async def _let_go(self, backend: str) -> bool:
        """Wait until a backend that was told to close has, or is gone."""
        deadline = self._clock.seconds() + self._patience
        while True:
            (state,) = await self._connection().read_many([f"{backend}/state"])
            if isinstance(state, NotFoundError) or state == _CLOSED:
                return True
            if self._clock.seconds() >= deadline:
                return False
            await task.deferLater(self._clock, _STEP)

    async def _destroy_domain(self, order: Order) -> str:
        await self._connection().transaction(partial(_must_live, order=order))
        if not await self._destroy(order.frontend, order.reason):
            raise ActError("xl destroy failed; the agent's log says why")
        return "destroyed"


async def _must_live(tx: Transaction, order: Order) -> None:
    try:
        vm = await tx.read(f"{domain_dir(order.frontend)}/vm")
    except NotFoundError:
        vm = b""
    if vm != f"/vm/{order.uuid}".encode("ascii"):
        raise ActError(f"domain {order.frontend} is not (any more) the one of uuid {order.uuid}")


async def _exists(tx: Transaction, path: str) -> bool:
    try:
        await tx.read(path)
    except NotFoundError:
        return False
    return True


async def _backend(tx: Transaction, order: Order) -> str:
    """The backend's directory by the toolstack's copy, which has to be the order's."""
    await _must_live(tx, order)
    untrusted_class, device = order.device_class or "", order.device or ""
    copy = libxl_device_dir(order.frontend, untrusted_class, device)
    try:
        backend = (await tx.read(f"{copy}/backend")).decode("latin-1")
    except NotFoundError:
        raise ActError(f"there is no {untrusted_class} {device} (any more)") from None
    parsed = parse_backend_dir(backend)
    wanted = (order.backend, order.frontend, device)
    if parsed is None or (parsed[0], *parsed[2:]) != wanted:
        raise ActError(f"its backend is {escape(backend, 100)}, not in domain {order.backend}")
    return backend


async def _recorded(tx: Transaction, order: Order, protocol: str | None) -> Device:
    """The device as the toolstack's copy has it, if it can be set up from that."""
    kind, device = order.device_class or "", order.device or ""
    parsed = parse_backend_dir(await _backend(tx, order))
    if parsed is None or kind not in _RESETTABLE or parsed[1] != kind:
        raise ActError(f"only a vif or vbd with a backend in the kernel is reset, not this {kind}")
    copy = libxl_device_dir(order.frontend, kind, device)
    names = await tx.directory(copy)
    values: dict[str, str] = {}
    for name, value in zip(
        names, await tx.read_many([f"{copy}/{name}" for name in names]), strict=True
    ):
        if isinstance(value, StoreError):
            raise value
        values[name] = value.decode("utf-8", "surrogateescape")
    layout = protocol if kind == "vbd" else None
    return from_copy(kind, int(device), parsed[0], values, layout)


async def _send(connection: StoreConnection, tx: Transaction, domid: int, device: Device) -> None:
    for answer in await connection.request_many(attach_requests(domid, device), tx.id):
        if isinstance(answer, StoreError):
            raise answer


async def _ask(order: Order, tx: Transaction) -> str:
    """Have the backend close, as libxl__initiate_device_generic_remove does; its directory."""
    backend = await _backend(tx, order)
    if await _exists(tx, f"{backend}/state"):
        await tx.write(f"{backend}/online", b"0")
        await tx.write(f"{backend}/state", b"5")
    return backend


async def _take_away(order: Order, tx: Transaction) -> None:
    """Remove a device at all three places, as libxl__device_destroy does."""
    backend = await _backend(tx, order)
    place = (order.frontend, order.device_class or "", order.device or "")
    await remove_device(tx, frontend_dir(*place), libxl_device_dir(*place), backend)


async def _take_ends_away(order: Order, tx: Transaction) -> None:
    """Remove both ends; the toolstack's copy stays, from which they are made again."""
    device = await _recorded(tx, order, None)
    ends = (device.frontend_dir(order.frontend), device.backend_dir(order.frontend))
    await remove_device(tx, *ends)
