"""A transaction: a snapshot, the changes laid over it, and what the outcome depends on.

It commits only if nothing it depended on has changed since it began: a node it read, wrote or
missed (by the node's generation) and a list of children it read. Two transactions that make
different children of one parent do not conflict; C xenstored would have them conflict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.xenstore.errors import error_for
from broker.xenstore.store.names import name_of, parent_of
from broker.xenstore.store.tree import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.xenstore.store.permissions import Permissions
    from broker.xenstore.store.tree import Tree
    from broker.xenstore.store.watches import Event


class Transaction:
    """A `Tree` of its own for whoever is inside; `max_nodes` bounds the nodes it touches (0: not).

    Raises, from every function that reads or changes:
        AgainError: the transaction is so old that its snapshot was given up.
        QuotaError: it touches more than `max_nodes` nodes.
    """

    def __init__(self, tree: Tree, max_nodes: int = 0) -> None:
        self._tree = tree
        self._max_nodes = max_nodes
        self._snapshot = tree.open_snapshot()
        self._overlay: dict[str, Node | None] = {}
        self._touched: dict[str, None] = {}
        self._seen: dict[str, None] = {}
        self._listed: dict[str, None] = {}
        self._owned: dict[int, int] = {}
        self._events: dict[str, Event] = {}

    @property
    def generation(self) -> int:
        """The generation that a permission set now is set at."""
        return self._tree.generation

    def get(self, path: str) -> Node | None:
        """The node at `path` as this transaction sees it."""
        if path not in self._seen:
            if 0 < self._max_nodes <= len(self._seen):
                raise error_for("ENOSPC", f"transaction of more than {self._max_nodes} nodes")
            self._seen[path] = None
        return self._peek(path)

    def get_listed(self, path: str) -> Node | None:
        """The same, for its children: a child made or removed meanwhile is a conflict."""
        node = self.get(path)
        self._listed[path] = None
        return node

    def count_owned(self, domid: int) -> int:
        """How many nodes `domid` owns as this transaction sees it."""
        return self._tree.count_owned(domid) + self._owned.get(domid, 0)

    def create(self, path: str, value: bytes, permissions: Permissions) -> None:
        """Make a node under a parent that exists."""
        self._writable(parent_of(path)).add_child(name_of(path), self._snapshot)
        self._overlay[path] = Node(value, permissions, self._snapshot)
        # Commit makes nodes in this order: a parent is in the tree already, or comes first.
        self._touched[path] = None
        self._count(permissions, 1)

    def set_value(self, path: str, value: bytes) -> None:
        """Replace a node's value."""
        self._writable(path).value = value
        self._touched[path] = None

    def set_permissions(self, path: str, permissions: Permissions) -> None:
        """Replace a node's permissions."""
        node = self._writable(path)
        self._count(node.permissions, -1)
        self._count(permissions, 1)
        node.permissions = permissions
        self._touched[path] = None

    def remove(self, path: str) -> None:
        """Remove a node that has no children."""
        self._count(self._writable(path).permissions, -1)
        self._writable(parent_of(path)).drop_child(name_of(path), self._snapshot)
        self._overlay[path] = None
        self._touched[path] = None

    def queue(self, event: Event) -> None:
        """Hold an event back until commit: one for a path, and a whole-subtree one wins."""
        known = self._events.get(event.path)
        if known is None:
            self._events[event.path] = event
        elif known.exact and not event.exact:
            self._events[event.path] = known._replace(exact=False)

    def commit(self) -> Mapping[str, Event]:
        """Bring the changes into the tree; the events to fire, by path.

        Raises:
            AgainError: something that this transaction depends on has changed.
        """
        if self._conflicts():
            raise error_for("EAGAIN", "the transaction conflicts with a later change")
        removed = [path for path in self._touched if self._overlay[path] is None]
        for path in sorted(removed, key=lambda path: path.count("/"), reverse=True):
            if self._tree.get(path) is not None:
                self._tree.remove(path)
        for path in self._touched:
            node = self._overlay[path]
            if node is not None:
                self._bring(path, node)
        return self._events

    def close(self) -> None:
        """End it, committed or not."""
        self._tree.close_snapshot(self._snapshot)

    def _bring(self, path: str, node: Node) -> None:
        present = self._tree.get(path)
        if present is None:
            self._tree.create(path, node.value, node.permissions)
            return
        self._tree.set_value(path, node.value)
        if present.permissions != node.permissions:
            self._tree.set_permissions(path, node.permissions)

    def _conflicts(self) -> bool:
        tree, snapshot = self._tree, self._snapshot
        if not tree.is_open(snapshot):
            return True
        for path in self._seen:
            now = tree.get(path)
            if now is None:
                if tree.get_at(path, snapshot) is not None:
                    return True
            elif now.generation > snapshot:
                return True
        for path in self._listed:
            now = tree.get(path)
            if now is not None and now.listing > snapshot:
                return True
        return False

    def _peek(self, path: str) -> Node | None:
        if path in self._overlay:
            return self._overlay[path]
        if not self._tree.is_open(self._snapshot):
            raise error_for("EAGAIN", "the transaction has been open for too long")
        return self._tree.get_at(path, self._snapshot)

    def _writable(self, path: str) -> Node:
        node = self._peek(path)
        if node is None:
            raise error_for("ENOENT", path)
        if path not in self._overlay:
            node = self._overlay[path] = node.copy()
        return node

    def _count(self, permissions: Permissions, change: int) -> None:
        domid = permissions[0].domid
        self._owned[domid] = self._owned.get(domid, 0) + change
