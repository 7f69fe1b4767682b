"""Which domains there are, and what each may do with a node.

There is no hypervisor to ask. A domid's life begins when a privileged domain first names it (in
SET_PERMS or INTRODUCE) and ends with RELEASE. What was granted to it or owned by it in an earlier
life counts for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.xenstore.errors import error_for
from broker.xenstore.store.permissions import ACCESS, ALL, Permissions

if TYPE_CHECKING:
    from broker.xenstore.store.tree import Tree

FIRST_RESERVED_DOMID: Final = 0x7FF0
"""DOMID_FIRST_RESERVED of xen/include/public/xen.h."""
DOMID_SELF: Final = 0x7FF0


class Life:
    """One life of a domid, begun at the tree's generation `start`.

    `target` is the domid whose rights it has beside its own (a stub domain's guest).
    """

    __slots__ = ("introduced", "start", "target")

    def __init__(self, start: int) -> None:
        self.start = start
        self.introduced = False
        self.target: int | None = None


class Domains:
    """The living domains; domid 0 is introduced from the start and privileged, no other is."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lives: dict[int, Life] = {}
        self.begin(0).introduced = True

    def begin(self, domid: int) -> Life:
        """The life of `domid`, begun now if there is none.

        Raises:
            NotFoundError: no domain can have this number.
        """
        life = self._lives.get(domid)
        if life is None:
            if not 0 <= domid < FIRST_RESERVED_DOMID:
                raise error_for("ENOENT", f"no domain can have the number {domid}")
            life = self._lives[domid] = Life(self._tree.advance())
        return life

    def end(self, domid: int) -> None:
        """The domain is no more; whoever had it as target has none."""
        del self._lives[domid]
        for life in self._lives.values():
            if life.target == domid:
                life.target = None

    def is_living(self, domid: int) -> bool:
        """Whether the store knows of such a domain, introduced or not."""
        return domid in self._lives

    def is_introduced(self, domid: int) -> bool:
        """Whether the domain may speak to the store."""
        life = self._lives.get(domid)
        return life is not None and life.introduced

    def introduced(self, domid: int) -> Life:
        """The life of a domain that has been introduced.

        Raises:
            NotFoundError: it has not.
        """
        life = self._lives.get(domid)
        if life is None or not life.introduced:
            raise error_for("ENOENT", f"domain {domid} is not introduced")
        return life

    def access(self, domid: int, permissions: Permissions) -> int:
        """READ, WRITE and OWN, as far as `domid` has them on a node with these permissions."""
        if domid == 0:
            return ALL
        life = self._lives.get(domid)
        if life is None:
            return 0
        if life.target is None:
            starts = {domid: life.start}
        else:
            starts = {domid: life.start, life.target: self._lives[life.target].start}
        if starts.get(permissions[0].domid, permissions[0].since + 1) <= permissions[0].since:
            return ALL
        for permission in permissions[1:]:
            if starts.get(permission.domid, permission.since + 1) <= permission.since:
                return ACCESS[permission.access]
        return ACCESS[permissions[0].access]
