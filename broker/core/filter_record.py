"""What a backend's agent is told of filters, as signed lines: which profiles, which variables.

Two kinds, both read like decision records (`record`): one line, canonical, signed.

A vif's, in `/broker/v1/filter/<be>/<class>/<fe>/<dev>`:

    filter seq=9 fe=3 be=0 class=vif dev=0 uuid=… nonce=… head=8 profiles=clean-traffic
        variables=IP@10.0.0.5+MAC@00:16:3e:00:00:01 sig=…

The profiles' texts, the same for every vif, in the nodes `/broker/v1/profiles/<n>`: in `head`

    profiles seq=8 digest=sha256:… bytes=5120 chunks=4 sig=…

and in `0` to `3` the bytes that have this digest, which `unpack_profiles` undoes. An update is one
new head, whatever the number of vifs; until chunks and head agree, what was in force stays.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.observation import OBSERVED
from broker.core.record import (
    DECIMAL,
    MAX_SIGNED_BYTES,
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
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

MAX_CHUNKS: Final = 32
"""Nodes that hold the profiles' texts; they are always there."""
CHUNK_BYTES: Final = 1900
MAX_PROFILES_BYTES: Final = 512 * 1024
"""Of all texts together, unpacked."""
MAX_ATTACHED: Final = 16
"""Profiles attached to one vif."""
FILTERED: Final = "filtered:"
"""A vif's grant whose reason begins with this is for frames held to profiles: no agent acts upon it
without the filter record. So where a record is missing, a signed line says that it is.
"""

_CONTEXT: Final = b"xpb-filter-v1\n"
_HEAD_CONTEXT: Final = b"xpb-profiles-v1\n"
_FIELDS: Final = (
    *("seq", "fe", "be", "class", "dev", "uuid", "nonce"),
    *("head", "profiles", "variables"),
)
_HEAD_FIELDS: Final = ("seq", "digest", "bytes", "chunks")
_NONCE: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PROFILES: Final = re.compile(r"[a-z][a-z0-9-]{0,47}(,[a-z][a-z0-9-]{0,47}){0,15}")
_NAME: Final = "[A-Z][A-Z0-9_]{0,31}"
_VALUE: Final = "[A-Za-z0-9.:/-]{1,80}"
_VARIABLES: Final = re.compile(
    rf"{_NAME}@(?:{_VALUE}(?:,{_VALUE})*)?(?:\+{_NAME}@(?:{_VALUE}(?:,{_VALUE})*)?)*"
)


def as_filtered(reason: str) -> str:
    """A grant's reason, for a vif that has profiles; observe mode's word stays the first."""
    if reason.startswith(OBSERVED):
        return f"{OBSERVED} {FILTERED}{reason.removeprefix(OBSERVED)}"
    return f"{FILTERED} {reason}".rstrip()


def is_filtered(reason: str) -> bool:
    """Whether a grant with this reason is for a vif that has profiles."""
    return reason.removeprefix(OBSERVED).lstrip().startswith(FILTERED)


class FilterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The profiles of one life of one vif; all of them must accept a frame. None may be empty.

    `variables` are given by the toolstack and by parameters; a profile's own defaults are not
    among them, nor are those that the profiles let the agent learn: `broker.filters.bind` tells
    which, and binding has to succeed before the vif opens. `head` numbers the texts that were in
    force when it was signed: older ones must not be used for this life. So who has no state left,
    and is given an old head again, does not open a vif with it.
    """

    seq: int
    frontend: int
    backend: int
    device_class: str
    device: str
    uuid: str | None
    nonce: str | None
    head: int = 0
    profiles: tuple[str, ...] = ()
    variables: Mapping[str, tuple[str, ...]] = {}


class ProfilesHead(msgspec.Struct, frozen=True, kw_only=True):
    """Which texts are in force: the digest and the length of what the chunks hold."""

    seq: int
    digest: str
    bytes: int
    chunks: int


def sign_filter(record: FilterRecord, key: Ed25519PrivateKey) -> bytes:
    """The record's one line, signed.

    Raises:
        RecordError: a name or value is none, or the line would not fit into a node.
    """
    return sign_line(checked_text(record), _CONTEXT, key)


def checked_text(record: FilterRecord) -> str:
    """The record's line without its signature.

    Raises:
        RecordError: as `sign_filter`.
    """
    text = _text(record)
    if len(text) > MAX_SIGNED_BYTES - len(" sig=") - 86:
        raise RecordError(
            f"a filter record of {len(text) + 91} bytes, at most {MAX_SIGNED_BYTES} fit: give "
            "networks or ranges instead of single addresses"
        )
    if parse_filter(f"{text} sig=-".encode("ascii")) != record:
        raise RecordError("a variable's value is empty")
    return text


def verify_filter(text: bytes, key: Ed25519PublicKey) -> FilterRecord:
    """Read a record that `key` signed; whoever acts on one uses this.

    Raises:
        RecordError: it is not the one canonical text, or the signature is not good.
    """
    record = parse_filter(text)
    verify_line(text, _CONTEXT, key)
    return record


def parse_filter(text: bytes) -> FilterRecord:
    """Read a record's fields without looking at the signature: for display only.

    Raises:
        RecordError: as `verify_filter`.
    """
    _, raw = read_line(text, ("filter",), _FIELDS)
    profiles = matched_value(raw, "profiles", _PROFILES)
    variables = matched_value(raw, "variables", _VARIABLES)
    record = FilterRecord(
        seq=int(required_value(raw, "seq", DECIMAL)),
        frontend=int(required_value(raw, "fe", DECIMAL)),
        backend=int(required_value(raw, "be", DECIMAL)),
        device_class=required_value(raw, "class", None),
        device=required_value(raw, "dev", DECIMAL),
        uuid=matched_value(raw, "uuid", UUID),
        nonce=matched_value(raw, "nonce", _NONCE),
        head=int(required_value(raw, "head", DECIMAL)),
        profiles=() if profiles is None else tuple(profiles.split(",")),
        variables={} if variables is None else _variables(variables),
    )
    if f"{_text(record)} sig={raw['sig']}" != text.decode("ascii"):
        raise RecordError("not in canonical form")
    return record


def _text(record: FilterRecord) -> str:
    """All before ` sig=`; variables in the order of their names."""
    variables = "+".join(
        f"{name}@{','.join(values)}" for name, values in sorted(record.variables.items())
    )
    return (
        f"filter seq={record.seq} fe={record.frontend} be={record.backend} "
        f"class={encode_value(record.device_class)} dev={encode_value(record.device)} "
        f"uuid={encode_value(record.uuid)} nonce={encode_value(record.nonce)} "
        f"head={record.head} profiles={encode_value(','.join(record.profiles) or None)} "
        f"variables={encode_value(variables or None)}"
    )


def _variables(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split("+"):
        name, _, values = part.partition("@")
        if name in found:
            raise RecordError(f"variable {name} is there twice")
        found[name] = tuple(values.split(",")) if values else ()
    return found


def sign_head(head: ProfilesHead, key: Ed25519PrivateKey) -> bytes:
    """The head's one line, signed."""
    return sign_line(_head_text(head), _HEAD_CONTEXT, key)


def verify_head(text: bytes, key: Ed25519PublicKey) -> ProfilesHead:
    """Read a head that `key` signed.

    Raises:
        RecordError: as `verify_filter`.
    """
    head = _read_head(text)
    verify_line(text, _HEAD_CONTEXT, key)
    return head


def head_number(text: bytes) -> int:
    """The number of a head, without looking at the signature: for what is our own.

    Raises:
        RecordError: it is no head.
    """
    return _read_head(text).seq


def _read_head(text: bytes) -> ProfilesHead:
    _, raw = read_line(text, ("profiles",), _HEAD_FIELDS)
    head = ProfilesHead(
        seq=int(required_value(raw, "seq", DECIMAL)),
        digest=required_value(raw, "digest", _DIGEST),
        bytes=int(required_value(raw, "bytes", DECIMAL)),
        chunks=int(required_value(raw, "chunks", DECIMAL)),
    )
    if f"{_head_text(head)} sig={raw['sig']}" != text.decode("ascii"):
        raise RecordError("not in canonical form")
    if head.chunks > MAX_CHUNKS or head.bytes > MAX_PROFILES_BYTES:
        raise RecordError("more profiles than can be")
    return head


def _head_text(head: ProfilesHead) -> str:
    return f"profiles seq={head.seq} digest={head.digest} bytes={head.bytes} chunks={head.chunks}"


def pack_profiles(texts: Mapping[str, bytes]) -> tuple[str, int, tuple[bytes, ...]]:
    """Profiles' exact bytes by their sources: the digest, the length, and the chunks to write.

    Raises:
        RecordError: they do not fit.
    """
    data = msgspec.json.encode({name: text.decode("utf-8") for name, text in sorted(texts.items())})
    packed = base64.b64encode(zlib.compress(data, 9))
    chunks = tuple(
        packed[start : start + CHUNK_BYTES] for start in range(0, len(packed), CHUNK_BYTES)
    )
    if len(chunks) > MAX_CHUNKS or len(data) > MAX_PROFILES_BYTES:
        raise RecordError(
            f"the profiles in use have {len(data)} bytes, {len(packed)} packed: at most "
            f"{MAX_PROFILES_BYTES} and {MAX_CHUNKS * CHUNK_BYTES} can be told to agents"
        )
    return f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), chunks


def unpack_profiles(head: ProfilesHead, chunks: Sequence[bytes]) -> dict[str, bytes]:
    """The profiles' bytes by their sources, from exactly the head's chunks.

    Raises:
        RecordError: they are not what the head was signed for; wait for the others.
    """
    unpacker = zlib.decompressobj()
    try:
        packed = base64.b64decode(b"".join(chunks[: head.chunks]), validate=True)
        data = unpacker.decompress(packed, head.bytes + 1)
    except (binascii.Error, zlib.error) as error:
        raise RecordError(f"the profiles cannot be unpacked: {error}") from None
    if len(data) != head.bytes or f"sha256:{hashlib.sha256(data).hexdigest()}" != head.digest:
        raise RecordError("the profiles are not those that the head was signed for")
    try:
        texts = msgspec.json.decode(data, type=dict[str, str])
    except msgspec.DecodeError as error:
        raise RecordError(f"the profiles cannot be read: {error}") from None
    return {name: text.encode("utf-8") for name, text in texts.items()}
