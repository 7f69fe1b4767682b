"""Which names the store takes for nodes, and how they hang together."""

from __future__ import annotations

import re
from typing import Final

from broker.xenstore import wire
from broker.xenstore.errors import error_for

_ABSOLUTE: Final = re.compile(r"/|(?:/[A-Za-z0-9_@-]+)+")
_DOMAIN_PREFIX: Final = re.compile(r"/local/domain/[0-9]{1,5}/")


def parent_of(path: str) -> str:
    """The path of the node that holds `path`; `/` for `/` itself."""
    return path[: path.rfind("/")] or "/"


def name_of(path: str) -> str:
    """The last component of `path`."""
    return path[path.rfind("/") + 1 :]


def resolve(text: bytes, home: str) -> str:
    """The absolute path that `text` names for a domain whose home is `home`.

    As C xenstored: what follows `/local/domain/<domid>/`, or else the whole path, is limited
    to the 2048 bytes of a relative path.

    Raises:
        InvalidError: a character, an empty component or a length that is not allowed.
    """
    path = text.decode("latin-1")
    special = path.startswith("@")
    if not path.startswith("/"):
        path = f"{home}/{path}"
    prefix = _DOMAIN_PREFIX.match(path)
    length = len(path) - (prefix.end() if prefix else 0)
    if special or length > wire.MAX_RELATIVE_PATH or not _ABSOLUTE.fullmatch(path):
        raise error_for("EINVAL", f"not a path: {path[:80]!a}")
    return path


def resolve_special(text: bytes) -> str:
    """A name that starts with `@`: a special event.

    Raises:
        InvalidError: it is too long or holds bytes that no name may.
    """
    name = text.decode("latin-1")
    if len(name) > wire.MAX_RELATIVE_PATH or not name.isascii() or not name.isprintable():
        raise error_for("EINVAL", f"not a special watch: {name[:80]!a}")
    return name
