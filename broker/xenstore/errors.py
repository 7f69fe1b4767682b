"""What a xenstore daemon answers instead of a value, alike for every daemon.

C xenstored, oxenstored and the embedded store name some failures differently (ENOSPC, EQUOTA,
E2BIG for one full quota): `error_for` maps a wire error name to one class, so that no caller
ever compares errno names.
"""

from __future__ import annotations

from typing import Final


class StoreError(Exception):
    """The store refused a request; `errno_name` is the word it sent (`ENOENT`)."""

    def __init__(self, errno_name: str, what: str = "") -> None:
        super().__init__(f"{errno_name}: {what}" if what else errno_name)
        self.errno_name = errno_name
        self.what = what


class NotFoundError(StoreError):
    """ENOENT: no such node (C xenstored also says this for an unknown transaction)."""


class DeniedError(StoreError):
    """EACCES, EPERM: the caller may not do this."""


class AgainError(StoreError):
    """EAGAIN: the transaction conflicted; it may be tried again."""


class ExistsError(StoreError):
    """EEXIST: the watch is registered already."""


class InvalidError(StoreError):
    """EINVAL: the request is malformed."""


class QuotaError(StoreError):
    """ENOSPC, EQUOTA, E2BIG, ENOMEM: some quota or size limit is met."""


class UnsupportedError(StoreError):
    """ENOSYS: this daemon does not know the operation."""


class ConnectionLostError(StoreError):
    """The connection ended before the answer came; whether the request took effect is unknown."""

    def __init__(self, what: str = "connection to the store lost") -> None:
        super().__init__("EPIPE", what)


_CLASSES: Final[dict[str, type[StoreError]]] = {
    "ENOENT": NotFoundError,
    "EACCES": DeniedError,
    "EPERM": DeniedError,
    "EAGAIN": AgainError,
    "EEXIST": ExistsError,
    "EINVAL": InvalidError,
    "ENOSPC": QuotaError,
    "EQUOTA": QuotaError,
    "E2BIG": QuotaError,
    "ENOMEM": QuotaError,
    "ENOSYS": UnsupportedError,
}


def error_for(errno_name: str, what: str = "") -> StoreError:
    """The exception for a wire error name; an unknown name is a plain `StoreError`."""
    return _CLASSES.get(errno_name, StoreError)(errno_name, what)
