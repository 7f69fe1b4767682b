"""Listening sockets that the service manager made before the program was started."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST: Final = 3
"""Descriptors that are handed over begin here. sd_listen_fds(3)."""


def inherited_unix_sockets(environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """The listening unix sockets handed over, by their path; the others are somebody else's.

    How many descriptors there are is told by their names: Twisted takes `LISTEN_FDS` out of the
    environment. So each is looked at, and only one that is what it should be is taken.
    """
    names = environ.get("LISTEN_FDNAMES", "")
    count = len(names.split(":")) if names else 0
    found: dict[str, int] = {}
    for descriptor in range(_FIRST, _FIRST + count):
        path = _listens_at(descriptor)
        if path:
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - the standard library's signature
            found[path] = descriptor
    return found


def _listens_at(descriptor: int) -> str:
    """The path that a descriptor listens at, or nothing."""
    try:
        duplicate = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return ""
    with duplicate as found:
        if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM:
            return ""
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return ""
        name = found.getsockname()
        return name if isinstance(name, str) and name.startswith("/") else ""
