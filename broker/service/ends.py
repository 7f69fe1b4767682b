"""Reading both ends of a channel as they are at one moment: one transaction, a few levels deep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from broker.xenstore.errors import AgainError, ConnectionLostError, DeniedError, StoreError

if TYPE_CHECKING:
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transaction import Transaction

    Side = Literal["frontend", "backend"]
    Ends = tuple[dict[str, bytes], dict[str, bytes]]
    """The frontend's and the backend's keys, `queue-0/tx-ring-ref` among them."""

_DEPTH: Final = 3
_MOST: Final = 512
"""Nodes of one directory that are read; a guest may make as many as its quota lets it."""
_ATTEMPTS: Final = 4


class UnreadableError(Exception):
    """A part of one end's directory may not be read; `side` is whose it is."""

    def __init__(self, side: Side, path: str) -> None:
        super().__init__(f"{path} may not be read")
        self.side: Side = side


async def read_ends(connection: StoreConnection, front: str, back: str) -> Ends | None:
    """What both directories hold; None if they change faster than they can be read.

    Raises:
        UnreadableError: a node may not be read: taken for missing, it would look like a new life.
        ConnectionLostError: the connection ended.
    """

    async def body(transaction: Transaction) -> Ends:
        return await _tree(connection, transaction, front, "frontend"), await _tree(
            connection, transaction, back, "backend"
        )

    try:
        return await connection.transaction(body, _ATTEMPTS)
    except AgainError:
        return None


async def _tree(
    connection: StoreConnection, transaction: Transaction, top: str, side: Side
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
            else:
                _heed(names, side, top + prefix)
        del below[max(_MOST - len(found), 0) :]
        values = await transaction.read_many([top + it for it in below])
        level = []
        for path, value in zip(below, values, strict=True):
            if isinstance(value, bytes):
                found[path[1:]] = value
                if not value:
                    level.append(path)
            else:
                _heed(value, side, top + path)
        if not level:
            break
    return found


def _heed(error: StoreError, side: Side, path: str) -> None:
    """What is missing is not there; what may not be read is another thing."""
    if isinstance(error, ConnectionLostError):
        raise error
    if isinstance(error, DeniedError):
        raise UnreadableError(side, path)
