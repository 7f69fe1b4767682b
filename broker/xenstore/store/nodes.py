"""The operations on nodes: read, write, list, remove, permissions; in a transaction or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from broker.xenstore import wire
from broker.xenstore.errors import error_for
from broker.xenstore.store.names import name_of, parent_of
from broker.xenstore.store.permissions import OWN, READ, WRITE, parse_permissions
from broker.xenstore.store.transactions import Transaction
from broker.xenstore.store.watches import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.xenstore.store.connections import Connection
    from broker.xenstore.store.permissions import Permissions
    from broker.xenstore.store.store import EmbeddedStore
    from broker.xenstore.store.tree import Node

SPECIAL: Final = (b"@introduceDomain", b"@releaseDomain")
"""Events whose receivers are governed by permissions, as if they were nodes."""

_OK: Final = b"OK\0"


class View(Protocol):
    """The nodes as a request sees them: the `Tree` itself, or a `Transaction` over it."""

    @property
    def generation(self) -> int:
        """When a permission set now is set."""

    def get(self, path: str) -> Node | None:
        """The node at `path`."""

    def get_listed(self, path: str) -> Node | None:
        """The node at `path`, for its children."""

    def count_owned(self, domid: int) -> int:
        """How many nodes a domain owns."""

    def create(self, path: str, value: bytes, permissions: Permissions) -> None:
        """Make a node under a parent that exists."""

    def set_value(self, path: str, value: bytes) -> None:
        """Replace a node's value."""

    def set_permissions(self, path: str, permissions: Permissions) -> None:
        """Replace a node's permissions."""

    def remove(self, path: str) -> None:
        """Remove a node that has no children."""


class NodeOperations:
    """The operations that a transaction can hold, by number."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self.table: Final[dict[int, Callable[[Connection, View, bytes], bytes]]] = {
            wire.DIRECTORY: self._directory,
            wire.DIRECTORY_PART: self._directory_part,
            wire.READ: self._read,
            wire.GET_PERMS: self._get_perms,
            wire.SET_PERMS: self._set_perms,
            wire.WRITE: self._write,
            wire.MKDIR: self._mkdir,
            wire.RM: self._rm,
        }

    # Reading.

    def _read(self, connection: Connection, view: View, payload: bytes) -> bytes:
        return self._require(connection, view, connection.resolve(_path(payload)), READ).value

    def _directory(self, connection: Connection, view: View, payload: bytes) -> bytes:
        names = _names(self._listed(connection, view, _path(payload)))
        if len(names) > wire.MAX_PAYLOAD:
            raise error_for("E2BIG", "ask with DIRECTORY_PART")
        return names

    def _directory_part(self, connection: Connection, view: View, payload: bytes) -> bytes:
        texts = payload.split(b"\0")
        if len(texts) != 3 or texts[2] or not texts[1].isdigit():
            raise error_for("EINVAL", "a path and an offset expected")
        node = self._listed(connection, view, texts[0])
        names, offset = _names(node), int(texts[1][:10])
        # As C xenstored: the list's own generation, so that a reader notices a change.
        head = b"%d\0" % max(node.generation, node.listing)
        if offset >= len(names):
            return head + b"\0"
        room = wire.MAX_PAYLOAD - len(head) - 1
        part = names[offset : offset + room]
        if offset + len(part) == len(names):
            return head + part + b"\0"
        return head + part[: part.rfind(b"\0") + 1]

    def _get_perms(self, connection: Connection, view: View, payload: bytes) -> bytes:
        node = self._require(connection, view, connection.resolve(_path(payload)), READ)
        return b"".join(
            [b"%s\0" % str(permission).encode("ascii") for permission in node.permissions]
        )

    # Changing.

    def _write(self, connection: Connection, view: View, payload: bytes) -> bytes:
        text, nul, value = payload.partition(b"\0")
        if not nul:
            raise error_for("EINVAL", "a path expected")
        path = connection.resolve(text)
        node = self._require_or_missing(connection, view, path, WRITE)
        if node is None:
            self._create(connection, view, path, value)
        else:
            if not connection.privileged:
                self._store.quotas.check_size(node, value)
            view.set_value(path, value)
        self._changed(view, path)
        return _OK

    def _mkdir(self, connection: Connection, view: View, payload: bytes) -> bytes:
        path = connection.resolve(_path(payload))
        if self._require_or_missing(connection, view, path, WRITE) is None:
            self._create(connection, view, path, b"")
            self._changed(view, path)
        return _OK

    def _rm(self, connection: Connection, view: View, payload: bytes) -> bytes:
        path = connection.resolve(_path(payload))
        if self._require_or_missing(connection, view, path, WRITE) is None:
            # As C xenstored: nothing to remove is well, if the parent is there.
            if view.get(parent_of(path)) is None:
                raise error_for("ENOENT", path)
            return _OK
        if path == "/":
            raise error_for("EINVAL", "the root stays")
        self.remove(view, path)
        return _OK

    def _set_perms(self, connection: Connection, view: View, payload: bytes) -> bytes:
        texts = payload.split(b"\0")
        if texts.pop() or len(texts) < 2:
            raise error_for("EINVAL", "a path and permissions expected")
        if not connection.privileged:
            self._store.quotas.check_permissions(len(texts) - 1)
        for permission in parse_permissions(texts[1:], 0):
            if connection.privileged:
                self._store.domains.begin(permission.domid)
            elif not self._store.domains.is_living(permission.domid):
                raise error_for("ENOENT", f"no domain {permission.domid}")
        permissions = parse_permissions(texts[1:], view.generation)
        if texts[0] in SPECIAL and connection.privileged:
            view.set_permissions(texts[0].decode("ascii"), permissions)
            return _OK
        path = connection.resolve(texts[0])
        node = self._require(connection, view, path, WRITE | OWN)
        if not connection.privileged:
            if permissions[0].domid != node.permissions[0].domid:
                raise error_for("EPERM", "only a privileged domain gives nodes away")
            size = len(node.value) + node.names_bytes
            self._store.quotas.check_bytes(size, len(permissions))
        before = node.permissions
        view.set_permissions(path, permissions)
        self._changed(view, path, before)
        return _OK

    def remove(self, view: View, path: str) -> None:
        """Remove a node and all below it; whoever watches any of them is told."""
        subtree: list[str] = []
        waiting = [path]
        while waiting:
            one = waiting.pop()
            subtree.append(one)
            node = view.get_listed(one)
            if node is not None:
                waiting.extend([f"{one}/{name}" for name in node.children])
        for one in reversed(subtree):
            if one == path or isinstance(view, Transaction) or self._store.watches.watched(one):
                self._changed(view, one, exact=one != path)
            view.remove(one)

    def remove_owned(self, domid: int) -> None:
        """Remove every node of a dead domain, with all below it; what must stay is domain 0's."""
        tree = self._store.tree
        for path in tree.owned_by(domid):
            node = tree.get(path)
            if node is None:
                continue
            if path == "/" or path.startswith("@"):
                owner = node.permissions[0]._replace(domid=0)
                tree.set_permissions(path, (owner, *node.permissions[1:]))
            else:
                self.remove(tree, path)

    def seen_now(self, view: View, event: Event) -> Event:
        """The event with, added, the permissions that now let its path be known."""
        node = view.get(event.path)
        if node is None:
            return event
        now = [node.permissions]
        parent = view.get(parent_of(event.path))
        if parent is not None:
            now.append(parent.permissions)
        return event._replace(readable=(*event.readable, *now))

    # Helpers.

    def _create(self, connection: Connection, view: View, path: str, value: bytes) -> None:
        """Make a node, and those missing above it, all with the nearest parent's permissions."""
        missing = [path]
        while (parent := view.get(parent_of(missing[-1]))) is None:
            missing.append(parent_of(missing[-1]))
        permissions = parent.permissions
        if not connection.privileged:
            owner = permissions[0]._replace(domid=connection.domid, since=view.generation)
            permissions = (owner, *permissions[1:])
            quotas, count = self._store.quotas, len(permissions)
            quotas.check_nodes(view.count_owned(connection.domid) + len(missing) - 1)
            quotas.check_size(parent, parent.value, len(name_of(missing[-1])) + 1)
            for below in missing[:-1]:
                quotas.check_bytes(len(name_of(below)) + 1, count)
            quotas.check_bytes(len(value), count)
        for one in reversed(missing):
            view.create(one, value if one == path else b"", permissions)

    def _changed(
        self, view: View, path: str, before: Permissions | None = None, *, exact: bool = False
    ) -> None:
        event = Event(path, exact, () if before is None else (before,))
        if isinstance(view, Transaction):
            view.queue(self._seen_before(event))
        else:
            self._store.fire(self.seen_now(view, event))

    def _seen_before(self, event: Event) -> Event:
        """For a transaction: who could read the node before it may know of the change."""
        node = self._store.tree.get(event.path)
        return event if node is None else event._replace(readable=(node.permissions,))

    def _require(self, connection: Connection, view: View, path: str, wanted: int) -> Node:
        node = self._require_or_missing(connection, view, path, wanted)
        if node is None:
            raise error_for("ENOENT", path)
        return node

    def _require_or_missing(
        self, connection: Connection, view: View, path: str, wanted: int
    ) -> Node | None:
        """The node, if the caller has all of `wanted`; None if it may know that there is none."""
        node = view.get(path)
        if connection.privileged:
            return node
        access = self._store.domains.access
        if node is not None and access(connection.domid, node.permissions) & wanted == wanted:
            return node
        # Whether the node is missing or closed is told only to who may use the nearest parent.
        above = path
        parent: Node | None = None
        while parent is None:
            above = parent_of(above)
            parent = view.get(above)
        if (
            node is None
            and parent is not None
            and access(connection.domid, parent.permissions) & wanted
        ):
            return None
        raise error_for("EACCES", path)

    def _listed(self, connection: Connection, view: View, text: bytes) -> Node:
        path = connection.resolve(text)
        node = self._require(connection, view, path, READ)
        return view.get_listed(path) or node


def _path(payload: bytes) -> bytes:
    """The one string of a request; InvalidError if there are more, or it has no NUL."""
    text, _, rest = payload.partition(b"\0")
    if rest or not payload.endswith(b"\0"):
        raise error_for("EINVAL", "one path expected")
    return text


def _names(node: Node) -> bytes:
    return b"".join([name.encode("ascii") + b"\0" for name in node.children])
