"""One peer of the store: its domid, its transactions, its watches, its unread events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.xenstore.store.names import resolve, resolve_special

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.xenstore.store.transactions import Transaction
    from broker.xenstore.store.watches import Watch

MAX_PENDING_EVENTS: Final = 1 << 16
MAX_PENDING_BYTES: Final = 8 << 20
"""A peer that leaves more than this unread is disconnected; identical events count once."""


class Connection:
    """A peer that speaks as `domid`; its relative paths begin at the domain's own directory.

    `on_events` is called when there are events to take, `on_close` when the store ends the
    connection; neither may call the store. Who has events waiting is entered in `woken`.
    """

    def __init__(
        self,
        domid: int,
        woken: dict[Connection, None],
        on_events: Callable[[], None],
        on_close: Callable[[str], None],
    ) -> None:
        self.domid = domid
        self.home = f"/local/domain/{domid}"
        self.on_events = on_events
        self.on_close = on_close
        self.transactions: dict[int, Transaction] = {}
        self.watches: dict[tuple[str, bytes], Watch] = {}
        self.last_transaction = 0
        self.overrun = False
        self._pending: dict[tuple[str, bytes], None] = {}
        self._pending_bytes = 0
        self._woken = woken

    @property
    def privileged(self) -> bool:
        """Whether it may do anything."""
        return self.domid == 0

    @property
    def has_events(self) -> bool:
        """Whether `take_events` would return any."""
        return bool(self._pending)

    def resolve(self, text: bytes) -> str:
        """The absolute path that `text` names here; InvalidError if none."""
        return resolve(text, self.home)

    def resolve_watch(self, text: bytes) -> tuple[str, str | None]:
        """The path to watch and, for a relative one, what it was completed with."""
        if text.startswith(b"@"):
            return resolve_special(text), None
        return self.resolve(text), None if text.startswith(b"/") else self.home

    def deliver(self, path: str, token: bytes) -> None:
        """Take an event; one that is pending already changes nothing."""
        key = (path, token)
        if self.overrun or key in self._pending:
            return
        self._pending[key] = None
        self._pending_bytes += len(path) + len(token)
        self._woken[self] = None
        if len(self._pending) > MAX_PENDING_EVENTS or self._pending_bytes > MAX_PENDING_BYTES:
            self.overrun = True

    def take_events(self) -> list[tuple[str, bytes]]:
        """All pending events, path and token, oldest first."""
        events = list(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return events
