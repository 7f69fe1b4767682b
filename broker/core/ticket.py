"""A label's ticket: what one broker vouches for when a domain moves to another's host. Pure.

    label uuid=… label=web policy=corp version=1.4 digest=sha256:… expires=… uses=vif/-/w/dom0
        filters=clean-traffic/0123456789abcdef sig=…

One line in the form of a decision record (`broker.core.record`), signed by the broker of the
source under a context of its own. `uses` are the channels that the domain has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec

from broker.core.record import (
    DECIMAL,
    MAX_RECORD_BYTES,
    UUID,
    RecordError,
    encode_value,
    matched_value,
    read_line,
    required_value,
    sign_line,
    verify_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

FIELDS: Final = ("uuid", "label", "policy", "version", "digest", "expires", "uses", "filters")
_CONTEXT: Final = b"xpb-label-ticket-v1\n"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.()-]*"
_USE: Final = re.compile(rf"([A-Za-z0-9_-]{{1,32}})/(-|{_NAME})/([rw])/({_NAME})")

_FILTER: Final = r"[a-z][a-z0-9-]{0,47}/[0-9a-f]{16}"
_FILTERS: Final = re.compile(rf"{_FILTER}(,{_FILTER})*")


class Use(msgspec.Struct, frozen=True):
    """A channel that a domain has: its class, resource, mode, and the backend's label."""

    device_class: str
    resource: str | None
    mode: Literal["r", "w"]
    backend: str

    def __str__(self) -> str:
        """`vbd/lun_red/w/SystemManagement`; a channel without a resource has `-` there."""
        return f"{self.device_class}/{self.resource or '-'}/{self.mode}/{self.backend}"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Under which policy a uuid has which label, until `expires` (POSIX seconds).

    `filters` are the filter profiles of its vifs: `NAME/` and 16 hex digits of what they say.
    """

    uuid: str
    label: str
    policy: str
    version: str
    digest: str
    expires: int
    uses: tuple[Use, ...]
    filters: tuple[str, ...] = ()


def parse_use(text: str) -> Use:
    """Read a use as it is written.

    Raises:
        RecordError: it is none.
    """
    match = _USE.fullmatch(text)
    if match is None:
        raise RecordError("not CLASS/RESOURCE/MODE/BACKEND-LABEL (as vbd/lun_red/w/dom0)")
    device_class, resource, mode, backend = match.groups()
    kept = None if resource == "-" else resource
    return Use(device_class, kept, cast("Literal['r', 'w']", mode), backend)


def sign_ticket(ticket: Ticket, key: Ed25519PrivateKey) -> bytes:
    """The ticket's one line, signed.

    Raises:
        RecordError: it is too long: the domain has too many different channels.
    """
    unsigned = _unsigned(ticket)
    if len(unsigned) + len(" sig=") + 86 > MAX_RECORD_BYTES:
        raise RecordError(f"a ticket of {len(ticket.uses)} channels is too long")
    return sign_line(unsigned, _CONTEXT, key)


def verify_ticket(untrusted_text: bytes, keys: Iterable[Ed25519PublicKey]) -> Ticket | None:
    """The ticket in a line, None if none of `keys` signed it; its expiry is not looked at.

    Raises:
        RecordError: it is no ticket.
    """
    ticket = read_ticket(untrusted_text)
    for key in keys:
        try:
            verify_line(untrusted_text, _CONTEXT, key)
        except RecordError:
            continue
        return ticket
    return None


def read_ticket(untrusted_text: bytes) -> Ticket:
    """What a line says, whoever signed it: for knowing what is asked, and nothing else.

    Raises:
        RecordError: it is no ticket.
    """
    _, raw = read_line(untrusted_text, ("label",), FIELDS)
    uses = matched_value(raw, "uses", None)
    filters = matched_value(raw, "filters", _FILTERS)
    ticket = Ticket(
        uuid=required_value(raw, "uuid", UUID),
        label=required_value(raw, "label", None),
        policy=required_value(raw, "policy", None),
        version=required_value(raw, "version", _VERSION),
        digest=required_value(raw, "digest", _DIGEST),
        expires=int(required_value(raw, "expires", DECIMAL)),
        uses=() if uses is None else tuple(parse_use(use) for use in uses.split(",")),
        filters=() if filters is None else tuple(filters.split(",")),
    )
    if f"{_unsigned(ticket)} sig={raw['sig']}".encode("ascii") != untrusted_text:
        raise RecordError("not in canonical form")
    return ticket


def _unsigned(ticket: Ticket) -> str:
    uses = ",".join(str(use) for use in ticket.uses) or None
    return (
        f"label uuid={ticket.uuid} label={encode_value(ticket.label)} "
        f"policy={encode_value(ticket.policy)} version={ticket.version} digest={ticket.digest} "
        f"expires={ticket.expires} uses={encode_value(uses)} "
        f"filters={encode_value(','.join(ticket.filters) or None)}"
    )
