"""A connection to the store in the same process, without frames: for simulations and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.xenstore import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.xenstore.store.store import EmbeddedStore


class LocalConnection:
    """Requests answered at once; every function raises `StoreError` if the store refuses.

    Paths are absolute, or relative to the domain's home. `on_events`, if set, is called (by
    whoever changed something) when there are events to take; it must not call the store.
    """

    def __init__(self, store: EmbeddedStore, domid: int) -> None:
        self._store = store
        self.domid = domid
        self.on_events: Callable[[], None] = lambda: None
        self.closed: str | None = None
        self._connection = store.open(domid, self._wake, self._end)

    def request(self, op: int, payload: bytes = b"\0", transaction: int = 0) -> bytes:
        """Any operation, with its payload as on the wire; the reply's payload."""
        try:
            return self._store.perform(self._connection, op, transaction, payload)
        finally:
            self._store.wake()

    def read(self, path: str, transaction: int = 0) -> bytes:
        """A node's value."""
        return self.request(wire.READ, path.encode() + b"\0", transaction)

    def write(self, path: str, value: bytes, transaction: int = 0) -> None:
        """Set a node's value; missing nodes on the way are made."""
        self.request(wire.WRITE, path.encode() + b"\0" + value, transaction)

    def mkdir(self, path: str, transaction: int = 0) -> None:
        """Make a node, if it is not there."""
        self.request(wire.MKDIR, path.encode() + b"\0", transaction)

    def rm(self, path: str, transaction: int = 0) -> None:
        """Remove a node and all below it."""
        self.request(wire.RM, path.encode() + b"\0", transaction)

    def directory(self, path: str, transaction: int = 0) -> list[str]:
        """The names of a node's children, however many."""
        listing = b""
        while not listing.endswith(b"\0\0"):
            asked = path.encode() + b"\0" + str(len(listing)).encode() + b"\0"
            _, _, part = self.request(wire.DIRECTORY_PART, asked, transaction).partition(b"\0")
            listing += part
            if part == b"\0":
                break
        return [name.decode("ascii") for name in listing.split(b"\0") if name]

    def get_perms(self, path: str, transaction: int = 0) -> tuple[str, ...]:
        """A node's permissions, the owner's first: `("n0", "r5")`."""
        reply = self.request(wire.GET_PERMS, path.encode() + b"\0", transaction)
        return tuple(text.decode("ascii") for text in wire.split_strings(reply))

    def set_perms(self, path: str, permissions: Sequence[str], transaction: int = 0) -> None:
        """Replace a node's permissions."""
        texts = [path.encode(), *(text.encode() for text in permissions)]
        self.request(wire.SET_PERMS, wire.join_strings(texts), transaction)

    def start(self) -> int:
        """Begin a transaction: its id, for the other functions."""
        return int(self.request(wire.TRANSACTION_START).rstrip(b"\0"))

    def end(self, transaction: int, *, commit: bool = True) -> None:
        """End a transaction; AgainError if it conflicts with a later change."""
        self.request(wire.TRANSACTION_END, b"T\0" if commit else b"F\0", transaction)

    def watch(self, path: str, token: str) -> None:
        """Be told of changes at or below `path`; the first event comes at once."""
        self.request(wire.WATCH, wire.join_strings([path.encode(), token.encode()]))

    def unwatch(self, path: str, token: str) -> None:
        """Be told no more."""
        self.request(wire.UNWATCH, wire.join_strings([path.encode(), token.encode()]))

    def introduce(self, domid: int) -> None:
        """Let a domain speak to the store."""
        self.request(wire.INTRODUCE, wire.join_strings([str(domid).encode(), b"1", b"1"]))

    def release(self, domid: int) -> None:
        """End a domain: its connections, its nodes, what it was granted."""
        self.request(wire.RELEASE, wire.join_strings([str(domid).encode()]))

    def is_domain_introduced(self, domid: int) -> bool:
        """Whether a domain may speak to the store."""
        asked = wire.join_strings([str(domid).encode()])
        return self.request(wire.IS_DOMAIN_INTRODUCED, asked) == b"T\0"

    def take_events(self) -> list[tuple[str, str]]:
        """The events since the last call, as path and token; identical ones are given once."""
        events = self._connection.take_events()
        return [(path, token.decode("latin-1")) for path, token in events]

    def close(self) -> None:
        """End the connection, its watches and its transactions."""
        self._store.close(self._connection)
        self.closed = "closed"

    def _wake(self) -> None:
        self.on_events()

    def _end(self, reason: str) -> None:
        self.closed = reason
