"""Reading both ends of a channel as they are at one moment: one transaction, a few levels deep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.xenstore.errors import AgainError, ConnectionLostError, StoreError

if TYPE_CHECKING:
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transaction import Transaction

    Ends = tuple[dict[str, bytes], dict[str, bytes]]
    """The frontend's and the backend's keys, `queue-0/tx-ring-ref` among them."""

_DEPTH: Final = 3
_MOST: Final = 512
"""Nodes of one directory that are read; a guest may make as many as its quota lets it."""
_ATTEMPTS: Final = 4


async def read_ends(connection: StoreConnection, front: str, back: str) -> Ends | None:
    """What both directories hold; None if they change faster than they can be read.

    A node that is missing, or may not be read, is not there.

    Raises:
        ConnectionLostError: the connection ended.
    """

    async def body(transaction: Transaction) -> Ends:
        return await _tree(connection, transaction, front), await _tree(
            connection, transaction, back
        )

    try:
        return await connection.transaction(body, _ATTEMPTS)
    except AgainError:
        return None


async def _tree(
    connection: StoreConnection, transaction: Transaction, top: str
) -> dict[str, bytes]:
    """The nodes below `top`: a directory below it is one whose value is empty."""
    found: dict[str, bytes] = {}
    level = [""]
    for _ in range(_DEPTH):
        listings = await connection.directory_many([top + it for it in level], transaction.id)
        below: list[str] = []
        for prefix, names in zip(level, listings, strict=True):
            if isinstance(names, list):
                below += [f"{prefix}/{name}" for name in names]
            elif isinstance(names, ConnectionLostError):
                raise names
        del below[max(_MOST - len(found), 0) :]
        values = await transaction.read_many([top + it for it in below])
        level = []
        for path, value in zip(below, values, strict=True):
            if isinstance(value, bytes):
                found[path[1:]] = value
                if not value:
                    level.append(path)
            elif isinstance(value, StoreError) and isinstance(value, ConnectionLostError):
                raise value
        if not level:
            break
    return found
