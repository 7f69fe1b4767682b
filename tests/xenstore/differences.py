"""Where the daemons differ, once: the conformance tests ask here, docs/xenstore-daemons.md says it.

Each row: a name, what it is about, then what C xenstored, oxenstored and the embedded store do.
A value is what a test compares with: a wire error name, a result, or None for "done".
"""

from __future__ import annotations

import msgspec


class Difference(msgspec.Struct, frozen=True):
    name: str
    about: str
    c: object
    oxenstored: object
    embedded: object


ROWS = (
    Difference("transaction.unknown", "an unknown transaction id", "ENOENT", "EIO", "ENOENT"),
    Difference(
        "transaction.same_value",
        "commit, after another wrote the same value to a node that was read",
        *("EAGAIN", None, "EAGAIN"),
    ),
    Difference(
        "transaction.siblings",
        "commit of a new node, after another made a sibling",
        *("EAGAIN", None, None),
    ),
    Difference(
        "transaction.read_only",
        "commit without a write, after what was read has changed",
        *("EAGAIN", None, "EAGAIN"),
    ),
    Difference(
        "transaction.blind_write",
        "commit of a write, after another wrote the same node",
        *("EAGAIN", None, "EAGAIN"),
    ),
    Difference("transaction.events", "events for two writes to one node in a transaction", 1, 2, 1),
    Difference("quota.node_size", "a guest's value over its quota", "ENOSPC", "E2BIG", "ENOSPC"),
    Difference("quota.nodes", "a guest's node over its quota", "ENOSPC", "EQUOTA", "ENOSPC"),
    Difference("quota.watches", "a guest's watch over its quota", "E2BIG", "EQUOTA", "E2BIG"),
    Difference(
        "quota.transactions", "a guest's 11th open transaction", "ENOSPC", "EQUOTA", "ENOSPC"
    ),
    Difference(
        "quota.permissions", "a guest's sixth permission on a node", "ENOSPC", None, "ENOSPC"
    ),
    Difference("quota.domain_0", "domain 0's value of 4088 bytes", None, "E2BIG", None),
    Difference("permissions.unknown_domain", "SET_PERMS to an unknown domid", "ENOENT", None, None),
    Difference(
        "permissions.take_owner", "a guest giving its node away", "EPERM", "EACCES", "EPERM"
    ),
    Difference(
        "permissions.created_below",
        "owner of a node that a guest made below domain 0's",
        *("n7", "n0", "n7"),
    ),
    Difference(
        "permissions.missing_in_hidden",
        "reading a missing node below an unreadable one",
        *("EACCES", "ENOENT", "EACCES"),
    ),
    Difference(
        "directory.long",
        "DIRECTORY of a listing over 4096 bytes",
        *("E2BIG", "one reply of any length", "E2BIG"),
    ),
    Difference("directory.part", "DIRECTORY_PART", "answered", "ENOSYS", "answered"),
    Difference("root.names", "special names among the children of /", False, True, False),
    Difference("root.remove", "RM of /", "EINVAL", "all is lost", "EINVAL"),
    Difference("special.read", "READ of @releaseDomain", "EINVAL", b"", "EINVAL"),
    Difference("request.unterminated", "a path without its NUL", "ENOENT", "EINVAL", "EINVAL"),
    Difference("request.too_long", "a request over 4096 bytes", *("closed", "EINVAL", "closed")),
    Difference("introduce.changed", "INTRODUCE anew with another port", None, "EINVAL", None),
    Difference("introduce.no_domain", "INTRODUCE of no domain", *("ENOENT", "EINVAL", None)),
    Difference("release.unknown", "RELEASE of an unknown domid", "ENOENT", "EINVAL", "ENOENT"),
    Difference("release.zero", "RELEASE of domain 0", "EINVAL", "ENOENT", "EINVAL"),
    Difference("death.event", "an event for a dead domain's node elsewhere", True, False, True),
    Difference(
        "death.grants",
        "permissions of a dead domain, as listed",
        *(["n0", "r7"], ["n0"], ["n0", "r7"]),
    ),
)  # fmt: skip


def table():
    """The rows, as docs/xenstore-daemons.md holds them."""
    lines = ["| about | C xenstored | oxenstored | embedded |", "|---|---|---|---|"]
    lines += [
        f"| {row.about} | {_text(row.c)} | {_text(row.oxenstored)} | {_text(row.embedded)} |"
        for row in ROWS
    ]
    return "\n".join(lines)


def expected(daemon, name):
    """What this daemon does, by a row's name."""
    row = next(it for it in ROWS if it.name == name)
    return {"C": row.c, "oxenstored": row.oxenstored, "embedded": row.embedded}[daemon.kind]


def _text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value)
    return {None: "done", b"": "empty"}.get(value, str(value))
