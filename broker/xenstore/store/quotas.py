"""How much of the store a domain may use: the limits of C xenstored, and the errors it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.xenstore.errors import error_for

if TYPE_CHECKING:
    from broker.xenstore.store.tree import Node

_HEADER_BYTES: Final = 24
_PERMISSION_BYTES: Final = 8
"""What C xenstored's record of a node counts beside value and children's names."""


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for each unprivileged domain; a privileged one has none.

    The defaults are those of xenstored's command line. Where C xenstored 4.17 lets one more
    than its option says through (watches, transactions), so do these.
    """

    nodes: int = 1000
    node_bytes: int = 2048
    permissions: int = 5
    watches: int = 128
    transactions: int = 10
    transaction_nodes: int = 1024

    def check_nodes(self, owned: int) -> None:
        """Whether a domain that owns so many nodes may make one more; QuotaError if not."""
        if owned >= self.nodes:
            raise error_for("ENOSPC", f"the domain owns {owned} nodes already")

    def check_commit(self, before: int, after: int) -> None:
        """Whether a transaction may bring a domain's nodes to `after`; QuotaError if not."""
        if after > max(before, self.nodes):
            raise error_for("ENOSPC", f"the domain would own {after} nodes")

    def check_size(self, node: Node, value: bytes, extra_names: int = 0) -> None:
        """Whether `node` may hold `value` and so many more bytes of names; QuotaError if not."""
        permissions = len(node.permissions)
        self.check_bytes(len(value) + node.names_bytes + extra_names, permissions)

    def check_bytes(self, content: int, permissions: int) -> None:
        """Whether a node may hold so many bytes of value and names; QuotaError if not."""
        size = _HEADER_BYTES + _PERMISSION_BYTES * permissions + content
        if size >= self.node_bytes:
            raise error_for(
                "ENOSPC", f"a node of {size} bytes; less than {self.node_bytes} is allowed"
            )

    def check_permissions(self, count: int) -> None:
        """Whether a node may have so many permissions; QuotaError if not."""
        if count > self.permissions:
            raise error_for("ENOSPC", f"{count} permissions, {self.permissions} is the most")

    def check_watches(self, count: int) -> None:
        """Whether a domain with so many watches may add one; QuotaError if not."""
        if count > self.watches:
            raise error_for("E2BIG", f"the domain has {count} watches already")

    def check_transactions(self, count: int) -> None:
        """Whether a domain with so many open transactions may begin one; QuotaError if not."""
        if count > self.transactions:
            raise error_for("ENOSPC", f"the domain has {count} transactions open")
