"""Who is told of which change, and who may know of it (as xenstored since XSA-115)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from broker.xenstore import wire
from broker.xenstore.errors import error_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.xenstore.store.permissions import Permissions


class Event(NamedTuple):
    """A node changed.

    `exact` tells only those who watch this very path (nodes under a removed one).
    `readable` are permissions by any of which the change may be known: the node's before the
    change, the node's after it, its parent's.
    """

    path: str
    exact: bool
    readable: tuple[Permissions, ...]


class Watcher(Protocol):
    """What a connection does for its watches."""

    @property
    def domid(self) -> int:
        """Whose rights decide what it may know."""

    def deliver(self, path: str, token: bytes) -> None:
        """Take an event."""


class Watch(NamedTuple):
    """One registration; `prefix` is what a relative path was completed with, None if absolute."""

    watcher: Watcher
    path: str
    token: bytes
    prefix: str | None

    def fire(self, path: str) -> None:
        """Tell the watcher of a change at `path`, named as the watch names paths.

        As C xenstored: an event that no frame can hold is dropped.
        """
        if self.prefix is not None:
            path = path[len(self.prefix) :].removeprefix("/")
        if len(path) + len(self.token) + 2 <= wire.MAX_PAYLOAD:
            self.watcher.deliver(path, self.token)


class Watches:
    """All watches, by the path they are set on."""

    def __init__(self) -> None:
        self._by_path: dict[str, list[Watch]] = {}

    def add(self, watch: Watch) -> None:
        """Register a watch.

        Raises:
            ExistsError: that watcher has one with the same path and token.
        """
        known = self._by_path.setdefault(watch.path, [])
        if any(one.watcher is watch.watcher and one.token == watch.token for one in known):
            raise error_for("EEXIST", watch.path)
        known.append(watch)

    def remove(self, watcher: Watcher, path: str, token: bytes) -> Watch:
        """Take a watch away and return it.

        Raises:
            NotFoundError: that watcher has none with this path and token.
        """
        known = self._by_path.get(path, [])
        for watch in known:
            if watch.watcher is watcher and watch.token == token:
                known.remove(watch)
                if not known:
                    del self._by_path[path]
                return watch
        raise error_for("ENOENT", path)

    def watched(self, path: str) -> bool:
        """Whether anyone watches exactly this path."""
        return path in self._by_path

    def fire(self, event: Event, permitted: Callable[[int, Event], bool]) -> None:
        """Tell everyone who watches the changed node, or one above it, and may know."""
        verdicts: dict[int, bool] = {}  # by domid
        for watched in (event.path,) if event.exact else _with_ancestors(event.path):
            for watch in self._by_path.get(watched, ()):
                domid = watch.watcher.domid
                if domid not in verdicts:
                    verdicts[domid] = permitted(domid, event)
                if verdicts[domid]:
                    watch.fire(event.path)


def _with_ancestors(path: str) -> Iterator[str]:
    yield path
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)
    if path != "/" and end == 0:
        yield "/"
