"""A node's permissions: who owns it, who else may read or write it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.xenstore.errors import error_for

if TYPE_CHECKING:
    from collections.abc import Sequence

READ: Final = 1
WRITE: Final = 2
OWN: Final = 4
ALL: Final = READ | WRITE | OWN
ACCESS: Final = {"n": 0, "r": READ, "w": WRITE, "b": READ | WRITE}

_TEXT: Final = re.compile(rb"([nrwb])(0|[1-9][0-9]{0,4})")


class Permission(NamedTuple):
    """`access` (`n`, `r`, `w` or `b`) for `domid`, as it was at the tree's generation `since`.

    A domid is used again by later domains; `since` tells whose life the grant was made in.
    """

    access: str
    domid: int
    since: int

    def __str__(self) -> str:
        """As on the wire: `r5`."""
        return f"{self.access}{self.domid}"


Permissions = tuple[Permission, ...]
"""The first names the owner, and its letter is what everybody not named later may do."""


def parse_permissions(texts: Sequence[bytes], since: int) -> Permissions:
    """Permissions from their wire texts.

    Raises:
        InvalidError: there is none, or one is malformed.
    """
    permissions: list[Permission] = []
    for text in texts:
        match = _TEXT.fullmatch(text)
        if match is None:
            raise error_for("EINVAL", f"not a permission: {text[:80]!r}")
        permissions.append(Permission(match[1].decode("ascii"), int(match[2]), since))
    if not permissions:
        raise error_for("EINVAL", "a node has at least one permission: its owner's")
    return tuple(permissions)
