"""Signed policy bundles: DSSE envelopes (Ed25519) over a policy file's exact bytes.

    {"payloadType": "...", "payload": "<base64>", "signatures": [{"keyid": "...", "sig": "..."}]}

What is signed is `DSSEv1 <len> <type> <len> <payload>`, so that a signature over a policy is one
over nothing else. A key's id is the SHA-256 of its public half (DER), in hex.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

POLICY_TYPE: Final = "application/vnd.xen-policy-broker.policy+yaml"
MOST_SIGNATURES: Final = 16


class BundleError(ValueError):
    """A bundle is malformed, or signed by nobody who is trusted; the message says which."""


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature; `keyid` is a hint and nothing more."""

    sig: str
    keyid: str = ""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A DSSE envelope."""

    payload: str
    payloadType: str  # noqa: N815 - DSSE's own name
    signatures: tuple[Signature, ...]


class Opened(msgspec.Struct, frozen=True):
    """A bundle's exact payload, and the id of a trusted key that signed it."""

    payload: bytes
    signer: str


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """A bundle of a policy's exact bytes, as one line of JSON."""
    made = key.sign(_encoded(POLICY_TYPE, payload))
    envelope = Envelope(
        payload=base64.b64encode(payload).decode("ascii"),
        payloadType=POLICY_TYPE,
        signatures=(
            Signature(sig=base64.b64encode(made).decode("ascii"), keyid=key_id(key.public_key())),
        ),
    )
    return msgspec.json.encode(envelope) + b"\n"


def is_bundle(data: bytes) -> bool:
    """Whether this is an envelope, good or not."""
    try:
        msgspec.json.decode(data, type=Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def open_bundle(untrusted_data: bytes, signers: Mapping[str, Ed25519PublicKey]) -> Opened:
    """The payload of a bundle that one of `signers` (by key id) has signed.

    Raises:
        BundleError: it is none.
    """
    try:
        envelope = msgspec.json.decode(untrusted_data, type=Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, ValueError):
        raise BundleError(
            "not a signed policy (a DSSE envelope); see brokerctl policy sign"
        ) from None
    if envelope.payloadType != POLICY_TYPE:
        raise BundleError(f"not a policy but {envelope.payloadType[:80]!a}")
    signed = _encoded(envelope.payloadType, payload)
    for signature in envelope.signatures[:MOST_SIGNATURES]:
        for signer, key in signers.items():
            if _verifies(key, signature.sig, signed):
                return Opened(payload, signer)
    known = ", ".join(it[:16] for it in signers)
    raise BundleError(f"signed by none of those who may sign policies here ({known})")


def key_id(key: Ed25519PublicKey) -> str:
    """The id of a public key."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def read_signer(pem: bytes, source: str) -> Ed25519PublicKey:
    """A public key that may sign policies; `source` is the file's name in messages.

    Raises:
        BundleError: it is no Ed25519 public key in PEM.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{source} is no Ed25519 public key in PEM")
    return key


def _encoded(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    name = kind.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def _verifies(key: Ed25519PublicKey, signature: str, signed: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), signed)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
