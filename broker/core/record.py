"""The decision record and the heartbeat: exact text, canonical parsing, Ed25519 signatures.

One record is one xenstore node, one line (docs/consuming-decisions.md):

    grant seq=7 id=… fe=3 be=0 class=vif dev=0 uuid=… nonce=… inputs=… labels=red,dom0 … sig=…

The text is canonical: there is exactly one text for one record, so a record can be compared,
signed and verified as bytes. Everything that is not that one text is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec
from cryptography.exceptions import InvalidSignature

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

Verdict = Literal["grant", "deny", "pending"]

VERDICTS: Final = ("grant", "deny", "pending")
FIELDS: Final = (
    *("seq", "id", "fe", "be", "class", "dev", "uuid", "nonce", "inputs"),
    *("labels", "resource", "policy", "spec", "reason"),
)
MAX_RECORD_BYTES: Final = 2048
"""The longest record that is read."""
MAX_SIGNED_BYTES: Final = 1900
"""The longest record that is made: C xenstored counts a node's permissions and its own header
towards the 2048 bytes that an unprivileged domain may write (`quota_max_entry_size`).
"""
INPUT_KEYS: Final = ("params", "mode", "type", "script", "bridge", "mac", "ip")
"""What a decision is made on, of a device's toolstack-written keys, in digest order."""

_RECORD_CONTEXT: Final = b"xpb-decision-v1\n"
_HEARTBEAT_CONTEXT: Final = b"xpb-heartbeat-v1\n"
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@,+-")
_ENCODED: Final = [chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256)]
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/@,+-]+")
_ESCAPE: Final = re.compile(rb"%([0-9A-F]{2})")
DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NONCE: Final = re.compile(r"[0-9a-f]{32}")
_HEX256: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class RecordError(ValueError):
    """A record, or a heartbeat, is not the one canonical text, or its signature is not good."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A decision on one channel; `None` stands for an absent value (`-` in the text).

    `seq` grows for every record of one path and is durable in the broker. `nonce` is the
    backend agent's, 32 hex digits: one life of one device. `inputs` is `inputs_digest()`.
    `labels` is the frontend's and the backend's label, each `-` where there is none.
    `policy` and `spec` are `sha256:<hex>` of the files' exact bytes.
    """

    verdict: Verdict
    seq: int
    id: str
    frontend: int
    backend: int
    device_class: str
    device: str
    uuid: str | None
    nonce: str | None
    inputs: str | None
    labels: tuple[str | None, str | None]
    resource: str | None
    policy: str | None
    spec: str | None
    reason: str


@lru_cache(maxsize=4096)
def encode_value(value: str | None) -> str:
    """Percent-encode `value`; `None` is `-`, and a value that is just `-` becomes `%2D`."""
    if value is None:
        return "-"
    if value == "-":
        return "%2D"
    if _PLAIN.fullmatch(value):
        return value
    return "".join([_ENCODED[byte] for byte in value.encode("utf-8", "surrogateescape")])


def decode_value(text: str) -> str | None:
    """Undo `encode_value`.

    Raises:
        RecordError: `text` is not what `encode_value` makes of any value, or is empty.
    """
    if text == "-":
        return None
    if _PLAIN.fullmatch(text):
        return text
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode("utf-8", "replace"))
    value = raw.decode("utf-8", "surrogateescape")
    if not text or encode_value(value) != text:
        raise RecordError(f"value is not canonically encoded: {encode_value(text)[:80]}")
    return value


def inputs_digest(device: Mapping[str, bytes]) -> str:
    """SHA-256, in hex, of what a decision is made on: the `INPUT_KEYS` of a device directory.

    One line `key=value` for each key in order; absent is `-`, other values as in a record.
    Both the broker (from `/libxl`) and the agent (from what it is about to use) compute it.
    """
    lines: list[str] = []
    for key in INPUT_KEYS:
        value = device.get(key)
        text = None if value is None else value.decode("utf-8", "surrogateescape")
        lines.append(f"{key}={encode_value(text)}\n")
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()


def _unsigned_text(record: Record) -> str:
    """All before ` sig=`, the fields in the order of `FIELDS`."""
    frontend_label, backend_label = record.labels
    labels = encode_value(f"{frontend_label or '-'},{backend_label or '-'}")
    return (
        f"{record.verdict} seq={record.seq} id={record.id} fe={record.frontend} "
        f"be={record.backend} class={encode_value(record.device_class)} "
        f"dev={encode_value(record.device)} uuid={encode_value(record.uuid)} "
        f"nonce={_hex_value(record.nonce)} inputs={encode_value(record.inputs)} "
        f"labels={labels} resource={encode_value(record.resource)} "
        f"policy={encode_value(record.policy)} spec={encode_value(record.spec)} "
        f"reason={encode_value(record.reason or None)}"
    )


def _hex_value(value: str | None) -> str:
    """As `encode_value`, past its memory: a nonce is seen once and would push others out."""
    return encode_value.__wrapped__(value)


def sign_record(record: Record, key: Ed25519PrivateKey) -> bytes:
    """The record's one line, signed.

    A reason that does not fit is cut, so that the line never exceeds `MAX_SIGNED_BYTES`.

    Raises:
        RecordError: it would not fit even without a reason.
    """
    unsigned = _unsigned_text(record)
    room = MAX_SIGNED_BYTES - len(" sig=") - 86
    reason = record.reason
    while reason and len(unsigned) > room:
        reason = reason[: len(reason) * 3 // 4]
        unsigned = _unsigned_text(msgspec.structs.replace(record, reason=reason))
    if len(unsigned) > room:
        raise RecordError(f"a record's fields exceed {MAX_SIGNED_BYTES} bytes, its reason aside")
    return sign_line(unsigned, _RECORD_CONTEXT, key)


def parse_record(text: bytes) -> Record:
    """Read a record's fields, without looking at the signature: for display only.

    Raises:
        RecordError: anything is missing, doubled, unknown, out of order or not canonical.
    """
    verdict, raw = read_line(text, VERDICTS, FIELDS)
    labels = matched_value(raw, "labels", None) or ""
    frontend_label, comma, backend_label = labels.partition(",")
    if not (frontend_label and comma and backend_label) or "," in backend_label:
        raise RecordError("labels must be frontend,backend")
    record = Record(
        verdict=cast("Verdict", verdict),
        seq=int(required_value(raw, "seq", DECIMAL)),
        id=required_value(raw, "id", UUID),
        frontend=int(required_value(raw, "fe", DECIMAL)),
        backend=int(required_value(raw, "be", DECIMAL)),
        device_class=required_value(raw, "class", None),
        device=required_value(raw, "dev", DECIMAL),
        uuid=matched_value(raw, "uuid", UUID),
        nonce=matched_value(raw, "nonce", _NONCE),
        inputs=matched_value(raw, "inputs", _HEX256),
        labels=(
            None if frontend_label == "-" else frontend_label,
            None if backend_label == "-" else backend_label,
        ),
        resource=matched_value(raw, "resource", None),
        policy=matched_value(raw, "policy", _DIGEST),
        spec=matched_value(raw, "spec", _DIGEST),
        reason=matched_value(raw, "reason", None) or "",
    )
    if f"{_unsigned_text(record)} sig={raw['sig']}" != text.decode("ascii"):
        raise RecordError("not in canonical form")
    return record


def record_id(text: str) -> str:
    """The `id` of a record that was made here, from its text."""
    start = text.index(" id=") + len(" id=")
    return text[start : text.index(" ", start)]


def verify_record(text: bytes, key: Ed25519PublicKey) -> Record:
    """Read a record that `key` signed; whoever acts on a record uses this and nothing else.

    Raises:
        RecordError: as `parse_record`, or the signature is not `key`'s over these bytes.
    """
    record = parse_record(text)
    verify_line(text, _RECORD_CONTEXT, key)
    return record


def sign_heartbeat(counter: int, key: Ed25519PrivateKey) -> bytes:
    """The heartbeat's text: a counter that grows for ever, and its signature."""
    return sign_line(str(counter), _HEARTBEAT_CONTEXT, key)


def verify_heartbeat(text: bytes, key: Ed25519PublicKey) -> int:
    """The counter of a heartbeat that `key` signed.

    Raises:
        RecordError: the text is malformed or the signature is not good.
    """
    beat, separator, _ = text.partition(b" sig=")
    if not separator or not DECIMAL.fullmatch(beat.decode("latin-1")):
        raise RecordError("heartbeat is not a counter and its signature")
    verify_line(text, _HEARTBEAT_CONTEXT, key)
    return int(beat)


def sign_line(unsigned: str, context: bytes, key: Ed25519PrivateKey) -> bytes:
    """A line of ASCII with its signature under `context`, which keeps kinds of lines apart."""
    signed = unsigned.encode("ascii")
    return signed + b" sig=" + _base64url(key.sign(context + signed))


def verify_line(text: bytes, context: bytes, key: Ed25519PublicKey) -> None:
    """Check the signature at the end of a line.

    Raises:
        RecordError: it is not `key`'s over what stands before it, under `context`.
    """
    signed, _, signature = text.rpartition(b" sig=")
    _verify(key, signature, context + signed)


def read_line(
    text: bytes, words: Collection[str], fields: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """The first word of a signed line, one of `words`, and its fields, still encoded.

    Raises:
        RecordError: it is too long, no ASCII, or its fields are not exactly `fields` and `sig`.
    """
    if len(text) > MAX_RECORD_BYTES:
        raise RecordError(f"longer than {MAX_RECORD_BYTES} bytes")
    try:
        first, *rest = text.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise RecordError("bytes outside ASCII") from None
    if first not in words:
        raise RecordError(f"does not begin with one of {', '.join(words)}")
    expected = (*fields, "sig")
    keys = tuple(word.partition("=")[0] for word in rest)
    if keys != expected or not all("=" in word for word in rest):
        raise RecordError(f"fields must be exactly {' '.join(expected)}, in this order")
    return first, dict(zip(expected, (word.partition("=")[2] for word in rest), strict=True))


def required_value(raw: Mapping[str, str], key: str, pattern: re.Pattern[str] | None) -> str:
    """A field that may not be absent; as `matched_value`."""
    value = matched_value(raw, key, pattern)
    if value is None:
        raise RecordError(f"{key} is absent")
    return value


def matched_value(raw: Mapping[str, str], key: str, pattern: re.Pattern[str] | None) -> str | None:
    """A field's value, decoded; None where it is absent.

    Raises:
        RecordError: it is not canonically encoded, or not as `pattern` has it.
    """
    value = decode_value(raw[key])
    if value is not None and pattern is not None and not pattern.fullmatch(value):
        raise RecordError(f"{key} is malformed: {encode_value(value)[:80]}")
    return value


def _base64url(signature: bytes) -> bytes:
    return base64.urlsafe_b64encode(signature).rstrip(b"=")


def _verify(key: Ed25519PublicKey, encoded: bytes, message: bytes) -> None:
    try:
        signature = base64.b64decode(encoded + b"==", altchars=b"-_", validate=True)
    except binascii.Error:
        raise RecordError("signature is not base64url") from None
    if _base64url(signature) != encoded:
        raise RecordError("signature is not canonical base64url")
    try:
        key.verify(signature, message)
    except InvalidSignature:
        raise RecordError("signature is not good") from None
