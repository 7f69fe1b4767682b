"""Each xenstore operation as a request: an operation number and its payload, paths checked.

Every function raises `InvalidError` for an argument that no daemon would accept, before anything
is sent: a request that breaks the protocol would cost the whole connection.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

from broker.xenstore import wire
from broker.xenstore.errors import InvalidError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Request = tuple[int, bytes]
"""Operation and payload."""
_T = TypeVar("_T")
_CACHED: Final = 16_384
"""Paths whose check is remembered: the same few nodes of each channel, over and over."""


@lru_cache(maxsize=_CACHED)
def read(path: str) -> Request:
    """The value of a node."""
    return wire.READ, _node(path) + b"\0"


def write(path: str, value: bytes) -> Request:
    """Set a node's value, making it and its parents as needed."""
    return wire.WRITE, bounded(_node(path) + b"\0" + value)


def mkdir(path: str) -> Request:
    """Make a node and its parents; one that exists is left as it is."""
    return wire.MKDIR, _node(path) + b"\0"


def rm(path: str) -> Request:
    """Remove a node and all below it."""
    return wire.RM, _node(path) + b"\0"


def directory(path: str) -> Request:
    """The names of a node's children."""
    return wire.DIRECTORY, _node(path) + b"\0"


def directory_part(path: str, offset: int) -> Request:
    """The names of a node's children from `offset`, in bytes of the NUL-separated list."""
    return wire.DIRECTORY_PART, wire.join_strings([_node(path), b"%d" % offset])


def get_perms(path: str) -> Request:
    """A node's permissions."""
    return wire.GET_PERMS, _node(path) + b"\0"


def set_perms(path: str, permissions: Sequence[str]) -> Request:
    """Replace a node's permissions: the owner's (`n0`) first, then `r1`, `w2`, `b3`."""
    listed = _checked(wire.check_permissions, permissions)
    return wire.SET_PERMS, bounded(_node(path) + b"\0" + listed)


def watch(path: str, token: str) -> Request:
    """Register a watch on a node and all below it, or on a special name."""
    return wire.WATCH, _watch(path, token)


def unwatch(path: str, token: str) -> Request:
    """Drop a watch."""
    return wire.UNWATCH, _watch(path, token)


def transaction_start() -> Request:
    """Open a transaction; the answer is its id."""
    return wire.TRANSACTION_START, b"\0"


def transaction_end(*, commit: bool) -> Request:
    """Commit or drop the transaction it is sent in."""
    return wire.TRANSACTION_END, b"T\0" if commit else b"F\0"


def introduce(domid: int, frame: int, port: int) -> Request:
    """Tell the store of a domain: its ring's frame number and event channel."""
    return wire.INTRODUCE, wire.join_strings([b"%d" % domid, b"%d" % frame, b"%d" % port])


def of_domain(operation: int, domid: int) -> Request:
    """RELEASE, RESUME, GET_DOMAIN_PATH or IS_DOMAIN_INTRODUCED of a domain."""
    return operation, b"%d\0" % domid


def set_target(domid: int, target: int) -> Request:
    """Give a stub domain its target's rights."""
    return wire.SET_TARGET, wire.join_strings([b"%d" % domid, b"%d" % target])


def reset_watches() -> Request:
    """Drop every watch and transaction of this connection's domain."""
    return wire.RESET_WATCHES, b"\0"


def bounded(payload: bytes) -> bytes:
    """`payload`, if a frame can carry it.

    Raises:
        QuotaError: it is longer than any daemon takes; sent, it would end the connection.
    """
    if len(payload) > wire.MAX_PAYLOAD:
        raise QuotaError("E2BIG", f"a request of {len(payload)} bytes, 4096 is the most")
    return payload


def _checked(check: Callable[[_T], bytes], argument: _T) -> bytes:
    try:
        return check(argument)
    except ValueError as error:
        raise InvalidError("EINVAL", str(error)) from None


@lru_cache(maxsize=_CACHED)
def _node(path: str) -> bytes:
    return _checked(wire.check_path, path)


def _watch(path: str, token: str) -> bytes:
    name = _checked(wire.check_watch_path, path)
    if not token.isascii() or "\0" in token:
        raise InvalidError("EINVAL", f"not a token: {token[:80]!a}")
    return bounded(wire.join_strings([name, token.encode("ascii")]))
