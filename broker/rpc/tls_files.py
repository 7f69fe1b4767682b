"""What TLS is configured with, and what an operator is told of it; without TLS itself."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read at run time, for the struct
from typing import Literal

import msgspec


class TlsFilesError(Exception):
    """The certificates the broker was given will not do; the message says which and why."""


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files: the broker's chain and key, who vouches for callers; and the denylist, if any."""

    certificate: Path
    key: Path
    ca: Path
    revoked: Path | None = None


NoticeKind = Literal[
    "certificate_expired", "certificate_expiring", "certificate_unread", "denylist_unread"
]


class Notice(msgspec.Struct, frozen=True):
    """What an operator should know, and what to do; `urgent`: somebody is kept out by it."""

    kind: NoticeKind
    text: str
    action: str
    urgent: bool = False
