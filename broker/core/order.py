"""Orders of the broker to dom0's agent: exact text, canonical parsing, signatures. Pure.

An unprivileged broker cannot set devices up or take them away: it orders that, in one signed line
in one xenstore node, as a decision record is one. The agent's result is a line too:

    reset seq=9 id=… until=412 fe=3 uuid=… be=0 class=vif dev=0 params=- … reason=… sig=…
    ok seq=9 id=… reason=…

An order is for one life of one domain (`fe` with `uuid`); `seq` only ever grows, so that none is
carried out twice; `until` is the last count of the broker's heartbeat at which it may be begun, so
that one that was held back is not carried out once nobody expects it any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec

from broker.core.record import (
    DECIMAL,
    MAX_SIGNED_BYTES,
    UUID,
    RecordError,
    decode_value,
    encode_value,
    matched_value,
    read_line,
    required_value,
    sign_line,
    verify_line,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

Kind = Literal["connect", "disconnect", "reset", "destroy"]

KINDS: Final = ("connect", "disconnect", "reset", "destroy")
DETAILS: Final = ("params", "mode", "bridge", "mac", "ip")
"""What a device to be connected is made from, in the order of the text."""
FIELDS: Final = (
    *("seq", "id", "until", "fe", "uuid", "be", "class", "dev"),
    *DETAILS,
    *("force", "reason"),
)
MAX_REASON: Final = 300
"""Characters of a reason, in an order and in a result."""

_CONTEXT: Final = b"xpb-order-v1\n"
_RESULT_FIELDS: Final = ("seq", "id", "reason")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent shall do.

    `connect` gives `frontend` a device `device` of `device_class` from `backend`, made from
    `details` (keys of `DETAILS`). `disconnect` takes one away, with `force` without asking the
    guest first; `reset` takes one away and sets the same one up anew. `destroy` is about a whole
    domain and has no device. `uuid` is that of the frontend's domain.
    """

    kind: Kind
    seq: int
    id: str
    until: int
    frontend: int
    uuid: str
    backend: int | None = None
    device_class: str | None = None
    device: str | None = None
    details: Mapping[str, str] = {}
    force: bool = False
    reason: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How an order ended: whether it was carried out, and why not, or how."""

    ok: bool
    seq: int
    id: str
    reason: str


def sign_order(order: Order, key: Ed25519PrivateKey) -> bytes:
    """The order's one line, signed.

    Raises:
        RecordError: it says what an order of its kind cannot, or does not fit into a node.
    """
    unsigned = _unsigned_text(order)
    _check(order)
    if len(unsigned) + len(" sig=") + 86 > MAX_SIGNED_BYTES:
        raise RecordError(f"an order's text exceeds {MAX_SIGNED_BYTES} bytes")
    return sign_line(unsigned, _CONTEXT, key)


def verify_order(text: bytes, key: Ed25519PublicKey) -> Order:
    """Read an order that `key` signed.

    Raises:
        RecordError: anything is missing, doubled, unknown, out of order or not canonical, it
            says what an order of its kind cannot, or the signature is not good.
    """
    kind, raw = read_line(text, KINDS, FIELDS)
    details = {name: matched_value(raw, name, None) for name in DETAILS}
    backend = matched_value(raw, "be", DECIMAL)
    force = matched_value(raw, "force", None)
    order = Order(
        kind=cast("Kind", kind),
        seq=int(required_value(raw, "seq", DECIMAL)),
        id=required_value(raw, "id", UUID),
        until=int(required_value(raw, "until", DECIMAL)),
        frontend=int(required_value(raw, "fe", DECIMAL)),
        uuid=required_value(raw, "uuid", UUID),
        backend=None if backend is None else int(backend),
        device_class=matched_value(raw, "class", None),
        device=matched_value(raw, "dev", DECIMAL),
        details={name: value for name, value in details.items() if value is not None},
        force=force is not None,
        reason=matched_value(raw, "reason", None) or "",
    )
    if f"{_unsigned_text(order)} sig={raw['sig']}".encode("ascii") != text:
        raise RecordError("not in canonical form")
    _check(order)
    verify_line(text, _CONTEXT, key)
    return order


def encode_result(result: Result) -> bytes:
    """A result's one line; a reason that is too long is cut."""
    word = "ok" if result.ok else "failed"
    reason = encode_value(result.reason[:MAX_REASON] or None)
    return f"{word} seq={result.seq} id={result.id} reason={reason}".encode("ascii")


def parse_result(text: bytes) -> Result:
    """Read a result's line.

    Raises:
        RecordError: it is none.
    """
    if len(text) > MAX_SIGNED_BYTES:
        raise RecordError(f"longer than {MAX_SIGNED_BYTES} bytes")
    words = text.decode("latin-1").split(" ")
    keys = tuple(word.partition("=")[0] for word in words[1:])
    if words[0] not in ("ok", "failed") or keys != _RESULT_FIELDS:
        raise RecordError(f"not ok or failed with {' '.join(_RESULT_FIELDS)}")
    raw = {word.partition("=")[0]: word.partition("=")[2] for word in words[1:]}
    return Result(
        ok=words[0] == "ok",
        seq=int(required_value(raw, "seq", DECIMAL)),
        id=required_value(raw, "id", UUID),
        reason=decode_value(raw["reason"]) or "",
    )


def _unsigned_text(order: Order) -> str:
    """All before ` sig=`, the fields in the order of `FIELDS`."""
    values: dict[str, str | None] = {
        "seq": str(order.seq),
        "id": order.id,
        "until": str(order.until),
        "fe": str(order.frontend),
        "uuid": order.uuid,
        "be": None if order.backend is None else str(order.backend),
        "class": order.device_class,
        "dev": order.device,
        **{name: order.details.get(name) for name in DETAILS},
        "force": "1" if order.force else None,
        "reason": order.reason[:MAX_REASON] or None,
    }
    return " ".join([order.kind, *(f"{name}={encode_value(values[name])}" for name in FIELDS)])


def _check(order: Order) -> None:
    """Refuse what an order of this kind cannot say."""
    place = (order.backend, order.device_class, order.device)
    if order.kind == "destroy" and any(it is not None for it in place):
        raise RecordError("an order to destroy a domain names a device")
    if order.kind != "destroy" and (None in place or not order.device_class):
        raise RecordError(f"an order to {order.kind} names no device")
    if order.kind != "connect" and order.details:
        raise RecordError(f"an order to {order.kind} has what a device is made from")
    if not set(order.details) <= set(DETAILS) or "" in order.details.values():
        raise RecordError("what a device is made from is unknown or empty")
    if order.force and order.kind != "disconnect":
        raise RecordError(f"an order to {order.kind} is not by force")
