"""The store put together: connections come and go, requests are answered, events delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.xenstore import wire
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.store.connections import Connection
from broker.xenstore.store.domains import Domains
from broker.xenstore.store.local import LocalConnection
from broker.xenstore.store.operations import Operations
from broker.xenstore.store.permissions import READ
from broker.xenstore.store.quotas import Quotas
from broker.xenstore.store.tree import Tree
from broker.xenstore.store.watches import Event, Watches

if TYPE_CHECKING:
    from collections.abc import Callable


class EmbeddedStore:
    """A xenstore in this process, without I/O.

    `connect` is for whoever lives in the same process; a server opens connections with `open`,
    passes each request to `answer` and calls `wake` after.
    `on_domain(domid, introduced)` is called when a domain has been introduced or released.
    """

    def __init__(self, quotas: Quotas | None = None) -> None:
        self.quotas = quotas or Quotas()
        self.tree = Tree()
        self.domains = Domains(self.tree)
        self.watches = Watches()
        self.on_domain: Callable[[int, bool], None] = lambda _domid, _introduced: None
        self._operations = Operations(self)
        self._connections: dict[int, dict[Connection, None]] = {}
        self._woken: dict[Connection, None] = {}

    def connect(self, domid: int = 0) -> LocalConnection:
        """A connection in this process that speaks as `domid`.

        Raises:
            NotFoundError: the domain has not been introduced.
        """
        return LocalConnection(self, domid)

    def open(
        self, domid: int, on_events: Callable[[], None], on_close: Callable[[str], None]
    ) -> Connection:
        """Begin a connection; NotFoundError if the domain has not been introduced."""
        self.domains.introduced(domid)
        connection = Connection(domid, self._woken, on_events, on_close)
        self._connections.setdefault(domid, {})[connection] = None
        return connection

    def close(self, connection: Connection) -> None:
        """End a connection, with its watches and transactions."""
        peers = self._connections.get(connection.domid, {})
        if connection in peers:
            self.reset(connection)
            del peers[connection]
        self._woken.pop(connection, None)

    def is_open(self, connection: Connection) -> bool:
        """Whether the connection has not been ended."""
        return connection in self._connections.get(connection.domid, {})

    def answer(
        self, connection: Connection, op: int, transaction: int, payload: bytes
    ) -> tuple[int, bytes]:
        """Carry out one request: the reply's operation and payload."""
        try:
            return op, self._operations.perform(connection, op, transaction, payload)
        except StoreError as error:
            return wire.ERROR, error.errno_name.encode("ascii") + b"\0"

    def perform(self, connection: Connection, op: int, transaction: int, payload: bytes) -> bytes:
        """Carry out one request: the reply's payload.

        Raises:
            ConnectionLostError: the connection has been ended.
            StoreError: the request is refused.
        """
        if not self.is_open(connection):
            raise ConnectionLostError("the store has ended the connection")
        return self._operations.perform(connection, op, transaction, payload)

    def wake(self) -> None:
        """Tell every connection with new events; end those that left too many unread."""
        while self._woken:
            connection, _ = self._woken.popitem()
            if connection.overrun:
                self.close(connection)
                connection.on_close("too many events left unread")
            elif connection.has_events:
                connection.on_events()

    # For the operations.

    def peers(self, domid: int) -> list[Connection]:
        """The connections of a domain."""
        return list(self._connections.get(domid, ()))

    def reset(self, connection: Connection) -> None:
        """Drop a connection's watches, transactions and pending events."""
        for path, token in list(connection.watches):
            self.watches.remove(connection, path, token)
        connection.watches.clear()
        for transaction in connection.transactions.values():
            transaction.close()
        connection.transactions.clear()
        connection.take_events()

    def disconnect(self, domid: int) -> None:
        """End every connection of a domain that is gone."""
        for connection in self.peers(domid):
            self.close(connection)
            connection.on_close(f"domain {domid} is released")
        self._connections.pop(domid, None)

    def close_all(self, reason: str) -> None:
        """End every connection."""
        for peers in self._connections.copy().values():
            for connection in list(peers):
                self.close(connection)
                connection.on_close(reason)

    def fire(self, event: Event) -> None:
        """Deliver an event to all who may have it."""
        self.watches.fire(event, self._permitted)

    def _permitted(self, domid: int, event: Event) -> bool:
        access = self.domains.access
        return any(access(domid, permissions) & READ for permissions in event.readable)
