"""Transactions: a body that is run anew on each conflict, and never left open.

Hold nothing but store requests in a body: while a transaction of domid 0 is open, C xenstored
slows every guest's writes. New siblings under one parent conflict on C even when independent.
"""

from __future__ import annotations

from secrets import SystemRandom
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet import defer, task

from broker.xenstore import requests
from broker.xenstore.errors import AgainError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from broker.xenstore.client import StoreConnection

ATTEMPTS: Final = 20
_FIRST_DELAY: Final = 0.001
_LONGEST_DELAY: Final = 0.1
"""Seconds between attempts: doubled each time, then drawn between half and the whole."""

_T = TypeVar("_T")
_random = SystemRandom()


class Transaction:
    """A connection's operations inside one transaction."""

    def __init__(self, connection: StoreConnection, transaction_id: int) -> None:
        self.id = transaction_id
        self._connection = connection

    def read(self, path: str) -> defer.Deferred[bytes]:
        """A node's value, as the transaction sees it."""
        return self._connection.read(path, self.id)

    def read_many(self, paths: Sequence[str]) -> defer.Deferred[list[bytes | StoreError]]:
        """The value of each node, or why not."""
        return self._connection.read_many(paths, self.id)

    def write(self, path: str, value: bytes) -> defer.Deferred[None]:
        """Set a node's value."""
        return self._connection.write(path, value, self.id)

    def write_many(
        self, items: Sequence[tuple[str, bytes]]
    ) -> defer.Deferred[list[StoreError | None]]:
        """Set each node's value; look at the list, a refusal does not end the transaction."""
        return self._connection.write_many(items, self.id)

    def mkdir(self, path: str) -> defer.Deferred[None]:
        """Make a node."""
        return self._connection.mkdir(path, self.id)

    def rm(self, path: str) -> defer.Deferred[None]:
        """Remove a node and all below it."""
        return self._connection.rm(path, self.id)

    def directory(self, path: str) -> defer.Deferred[list[str]]:
        """The names of a node's children."""
        return self._connection.directory(path, self.id)

    def get_perms(self, path: str) -> defer.Deferred[tuple[str, ...]]:
        """A node's permissions."""
        return self._connection.get_perms(path, self.id)

    def set_perms(self, path: str, permissions: Sequence[str]) -> defer.Deferred[None]:
        """Replace a node's permissions."""
        return self._connection.set_perms(path, permissions, self.id)


async def run_transaction(
    connection: StoreConnection,
    body: Callable[[Transaction], Awaitable[_T]],
    *,
    attempts: int,
    clock: IReactorTime,
) -> _T:
    """`body`'s result, once committed; what `body` raises drops the transaction and is raised.

    Raises:
        AgainError: every one of `attempts` met a conflict.
        ConnectionLostError: the connection ended; if during the commit, it is unknown whether
            it took effect.
    """
    delay = _FIRST_DELAY
    for attempt in range(1, attempts + 1):
        try:
            return await _attempt(connection, body)
        except AgainError:
            if attempt == attempts:
                raise
        await task.deferLater(clock, _random.uniform(delay / 2, delay), _nothing)
        delay = min(2 * delay, _LONGEST_DELAY)
    raise ValueError("a transaction needs at least one attempt")


async def _attempt(connection: StoreConnection, body: Callable[[Transaction], Awaitable[_T]]) -> _T:
    transaction = Transaction(connection, await _start(connection))
    committing = False
    try:
        result = await body(transaction)
        committing = True
        await connection.request(requests.transaction_end(commit=True), transaction.id)
    finally:
        if not committing:
            # The body failed or was cancelled. Whether the store still knew the transaction
            # makes no difference, and nothing waits for the answer.
            _drop(connection, transaction.id)
    return result


def _start(connection: StoreConnection) -> defer.Deferred[int]:
    """A new transaction's id; if nobody waits for it any more, it is dropped when it comes."""
    waiting: defer.Deferred[int] = defer.Deferred()

    def started(transaction_id: int) -> None:
        if waiting.called:
            _drop(connection, transaction_id)
        else:
            waiting.callback(transaction_id)

    def refused(failure: Failure) -> None:
        if not waiting.called:
            waiting.errback(failure)

    answer = connection.request(requests.transaction_start()).addCallback(_transaction_id)
    answer.addCallbacks(started, refused)
    return waiting


def _drop(connection: StoreConnection, transaction_id: int) -> None:
    dropped = connection.request(requests.transaction_end(commit=False), transaction_id)
    dropped.addErrback(_ignore_refusal)


def _transaction_id(payload: bytes) -> int:
    digits = payload.rstrip(b"\0")
    if not digits.isdigit() or not 0 < int(digits) <= 0xFFFFFFFF:
        raise StoreError("EIO", "the store's transaction id is not a number")
    return int(digits)


def _ignore_refusal(failure: Failure) -> None:
    failure.trap(StoreError)


def _nothing() -> None:
    return None
