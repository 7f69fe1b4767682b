"""Checkpoints: lines that the broker signs, so that all before them can be shown to be its own.

A checkpoint's `head` is the hash of the line before it, and `sig` the Ed25519 signature (base64url)
over `xpb-audit-v1`, a newline, and `<n of the line before> <head> <t with three decimals>`. Taken
out of the log and kept elsewhere, the line is an anchor: it shows a log that was cut before it,
or written anew.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidSignature

from broker.audit.chain import ChainError, unframe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from broker.audit.chain import Framed, Head

KIND: Final = "checkpoint"
_CONTEXT: Final = b"xpb-audit-v1\n"


class Checkpoint(
    msgspec.Struct, frozen=True, tag_field="event", tag=KIND, forbid_unknown_fields=True
):
    """What a checkpoint says; `t` is in seconds since 1970, UTC.

    `subject` and `role` are of who asked for it, if anybody did.
    """

    t: float
    head: str
    sig: str
    subject: str = ""
    role: str = ""


_DECODER: Final = msgspec.json.Decoder(Checkpoint)


def sign_checkpoint(
    before: Head, t: float, key: Ed25519PrivateKey, subject: str = "", role: str = ""
) -> Checkpoint:
    """A checkpoint of all up to the line `before`."""
    t = round(t, 3)
    head = before.hash.decode("ascii")
    signature = key.sign(_signed(before.n, head, t))
    sig = base64.urlsafe_b64encode(signature).rstrip(b"=").decode("ascii")
    return Checkpoint(t, head, sig, subject, role)


def read_checkpoint(line: Framed) -> Checkpoint:
    """The checkpoint that a line is.

    Raises:
        ChainError: it is none.
    """
    try:
        return _DECODER.decode(line.event)
    except msgspec.MsgspecError:
        raise ChainError("not a checkpoint") from None


def is_signed(line: Framed, checkpoint: Checkpoint, key: Ed25519PublicKey) -> bool:
    """Whether `key` signed the checkpoint that stands on `line`."""
    try:
        signature = base64.b64decode(checkpoint.sig + "==", altchars=b"-_", validate=True)
        key.verify(signature, _signed(line.n - 1, checkpoint.head, checkpoint.t))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def read_anchor(line: bytes, keys: Iterable[Ed25519PublicKey]) -> Framed:
    """An anchor: one checkpoint's line, as `brokerctl audit checkpoint` prints it.

    Raises:
        ChainError: it is no checkpoint, or none of `keys` signed it.
    """
    framed = unframe(line.rstrip(b"\r\n") + b"\n")
    checkpoint = read_checkpoint(framed)
    if not framed.follows(checkpoint.head.encode("ascii", "replace")):
        raise ChainError("this checkpoint was changed")
    if not any(is_signed(framed, checkpoint, key) for key in keys):
        raise ChainError("this checkpoint is not signed by the broker's key")
    return framed


def _signed(n: int, head: str, t: float) -> bytes:
    return _CONTEXT + f"{n} {head} {t:.3f}\n".encode("utf-8", "replace")
