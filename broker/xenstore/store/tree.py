"""The nodes, by path, with as much of their past as open transactions still see.

The dictionary is flat: nothing here recurses over a tree that a guest shaped. Every change takes
a new generation; a transaction's snapshot is the generation it began at. While a snapshot is
open, the first change to a node after it puts the node's old form into `_past`.
"""

from __future__ import annotations

from typing import Final

from broker.xenstore.store.names import name_of, parent_of
from broker.xenstore.store.permissions import Permission, Permissions

MAX_PAST: Final = 1 << 16
"""Old forms kept; beyond it the oldest snapshots are given up (their transactions conflict)."""

_ROOT_PERMISSIONS: Final = (Permission("n", 0, 0),)
_FIRST_NODES: Final = ("/tool", "/tool/xenstored")
_SPECIAL_NODES: Final = ("@introduceDomain", "@releaseDomain")


class Node:
    """A node's value, permissions and children's names (in the order they were made).

    `generation` is when it was made or its value or permissions last set; `listing` when a child
    was last added or removed; `names_bytes` is the length of the children's list on the wire.
    """

    __slots__ = ("children", "generation", "listing", "names_bytes", "permissions", "value")

    def __init__(self, value: bytes, permissions: Permissions, generation: int) -> None:
        self.value = value
        self.permissions = permissions
        self.generation = generation
        self.children: dict[str, None] = {}
        self.listing = generation
        self.names_bytes = 0

    def copy(self) -> Node:
        """A node that can be changed without changing this one."""
        node = Node(self.value, self.permissions, self.generation)
        node.children = self.children.copy()
        node.listing = self.listing
        node.names_bytes = self.names_bytes
        return node

    def add_child(self, name: str, generation: int) -> None:
        """Enter a child's name."""
        self.children[name] = None
        self.names_bytes += len(name) + 1
        self.listing = generation

    def drop_child(self, name: str, generation: int) -> None:
        """Strike a child's name out."""
        del self.children[name]
        self.names_bytes -= len(name) + 1
        self.listing = generation


class Tree:
    """The store's nodes; the view of whoever is in no transaction.

    Paths are absolute and checked by the caller (`names.resolve`); a changed node exists.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._nodes: dict[str, Node] = {"/": Node(b"", _ROOT_PERMISSIONS, 0)}
        self._owned: dict[int, dict[str, None]] = {}
        self._past: dict[str, list[tuple[int, Node | None]]] = {}
        self._past_size = 0
        self._snapshots: dict[int, int] = {}
        self._newest = -1
        for path in _FIRST_NODES:
            self.create(path, b"", _ROOT_PERMISSIONS)
        for name in _SPECIAL_NODES:
            self._nodes[name] = Node(b"", _ROOT_PERMISSIONS, 0)

    # Reading.

    def get(self, path: str) -> Node | None:
        """The node now at `path`."""
        return self._nodes.get(path)

    def get_listed(self, path: str) -> Node | None:
        """The node now at `path`, for its children."""
        return self._nodes.get(path)

    def get_at(self, path: str, snapshot: int) -> Node | None:
        """The node as the open snapshot of that generation sees it."""
        for replaced, node in self._past.get(path, ()):
            if replaced > snapshot:
                return node
        return self._nodes.get(path)

    def count_owned(self, domid: int) -> int:
        """How many nodes a domain other than 0 owns."""
        return len(self._owned.get(domid, ()))

    def owned_by(self, domid: int) -> list[str]:
        """The paths of the nodes that a domain other than 0 owns."""
        return list(self._owned.get(domid, ()))

    # Changing.

    def create(self, path: str, value: bytes, permissions: Permissions) -> None:
        """Make a node under a parent that exists."""
        parent_path = parent_of(path)
        generation = self._next_generation()
        self._writable(parent_path).add_child(name_of(path), generation)
        self._keep(path, None)
        self._nodes[path] = Node(value, permissions, generation)
        self._charge(path, permissions)

    def set_value(self, path: str, value: bytes) -> None:
        """Replace a node's value."""
        generation = self._next_generation()
        node = self._writable(path)
        node.value = value
        node.generation = generation

    def set_permissions(self, path: str, permissions: Permissions) -> None:
        """Replace a node's permissions, and with them its owner."""
        generation = self._next_generation()
        node = self._writable(path)
        if node.permissions[0].domid != permissions[0].domid:
            self._discharge(path, node.permissions)
            self._charge(path, permissions)
        node.permissions = permissions
        node.generation = generation

    def remove(self, path: str) -> None:
        """Remove a node that has no children."""
        generation = self._next_generation()
        self._writable(parent_of(path)).drop_child(name_of(path), generation)
        node = self._nodes.pop(path)
        self._keep(path, node)
        self._discharge(path, node.permissions)

    def advance(self) -> int:
        """Take a new generation for a change outside the tree: a domain's life begins."""
        return self._next_generation()

    # Snapshots.

    def open_snapshot(self) -> int:
        """Keep the tree as it is now readable by `get_at`; the result names the snapshot."""
        self._newest = self.generation
        self._snapshots[self._newest] = self._snapshots.get(self._newest, 0) + 1
        return self._newest

    def is_open(self, snapshot: int) -> bool:
        """Whether the snapshot can be read: false once it was given up."""
        return snapshot in self._snapshots

    def close_snapshot(self, snapshot: int) -> None:
        """Let go of a snapshot; nothing happens if it was given up already."""
        users = self._snapshots.get(snapshot, 0)
        if users > 1:
            self._snapshots[snapshot] = users - 1
        elif users:
            self._forget(snapshot)

    def _forget(self, snapshot: int) -> None:
        del self._snapshots[snapshot]
        if not self._snapshots:
            self._past.clear()
            self._past_size = 0
            self._newest = -1
        elif snapshot == self._newest:
            self._newest = max(self._snapshots)

    def _next_generation(self) -> int:
        self.generation += 1
        return self.generation

    def _writable(self, path: str) -> Node:
        """The node at `path`, in a form that no snapshot shares."""
        node = self._nodes[path]
        if self._newest >= 0 and self._keep(path, node):
            node = self._nodes[path] = node.copy()
        return node

    def _keep(self, path: str, node: Node | None) -> bool:
        """Save what is replaced at this generation, if some snapshot sees it."""
        if self._newest < 0:
            return False
        past = self._past.setdefault(path, [])
        if past and past[-1][0] > self._newest:
            return False
        before = len(past)
        self._past[path] = past = self._seen(past)
        past.append((self.generation, node))
        self._past_size += len(past) - before
        if self._past_size > MAX_PAST:
            self._shed()
        return True

    def _seen(self, past: list[tuple[int, Node | None]]) -> list[tuple[int, Node | None]]:
        """Those of a path's old forms that some open snapshot sees."""
        kept: list[tuple[int, Node | None]] = []
        made = -1
        for replaced, node in past:
            if any(made <= snapshot < replaced for snapshot in self._snapshots):
                kept.append((replaced, node))
            made = replaced
        return kept

    def _shed(self) -> None:
        """Give up the older half of the snapshots (all, if there is one) and what only they see."""
        snapshots = sorted(self._snapshots)
        for snapshot in snapshots[: (len(snapshots) + 1) // 2]:
            self._forget(snapshot)
        if self._snapshots:
            seen = {path: self._seen(past) for path, past in self._past.items()}
            self._past = {path: past for path, past in seen.items() if past}
            self._past_size = sum(map(len, self._past.values()))

    # Who owns what.

    def _charge(self, path: str, permissions: Permissions) -> None:
        domid = permissions[0].domid
        if domid:
            self._owned.setdefault(domid, {})[path] = None

    def _discharge(self, path: str, permissions: Permissions) -> None:
        domid = permissions[0].domid
        if domid:
            owned = self._owned[domid]
            del owned[path]
            if not owned:
                del self._owned[domid]
