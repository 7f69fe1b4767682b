"""Verifying the audit log of a state directory, or of a copy of one; no broker is needed."""

from __future__ import annotations

import hashlib
import time
from itertools import chain
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.audit import segments
from broker.audit.chain import MAX_LINE_BYTES, ChainError
from broker.audit.checkpoint import read_anchor
from broker.audit.verify import Anchor, Source, Verifier
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from broker.audit.verify import Report

PUBLIC_KEY: Final = "broker.pub"
_PATIENCE: Final = 0.5
"""Seconds in which a broker that is writing comes to a line's end."""


def read_key(path: Path) -> Ed25519PublicKey:
    """The broker's public key.

    Raises:
        ProblemsError: the file cannot be read, or holds no such key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        message = f"cannot be read: {error.strerror}; name the broker's public key with --key"
        raise ProblemsError([Problem(str(path), 1, 1, message)]) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ProblemsError([Problem(str(path), 1, 1, "no Ed25519 public key in PEM")])
    return key


def read_anchors(path: Path, keys: Sequence[Ed25519PublicKey]) -> list[Anchor]:
    """The checkpoints in a file, one a line.

    Raises:
        ProblemsError: it cannot be read, or a line is no checkpoint signed by one of `keys`.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ProblemsError([Problem(str(path), 1, 1, message)]) from None
    problems: list[Problem] = []
    anchors: list[Anchor] = []
    for number, raw in enumerate(lines, 1):
        try:
            anchors.append(Anchor(f"{path}:{number}", read_anchor(raw, keys)))
        except ChainError as error:
            problems.append(Problem(str(path), number, 1, f"no anchor: {error}"))
    if not lines:
        problems.append(Problem(str(path), 1, 1, "no anchor is in it"))
    if problems:
        raise ProblemsError(problems)
    return anchors


def verify_directory(
    directory: Path, keys: Sequence[Ed25519PublicKey], anchors: Sequence[Anchor] = ()
) -> Report:
    """Verify the log of a state directory; a broker may be writing it.

    Raises:
        ProblemsError: there is none, or it cannot be read.
    """
    verifier = Verifier(keys, anchors)
    try:
        _verify_files(directory, verifier)
    except OSError as error:
        where = str(error.filename or directory)
        message = f"cannot be read: {error.strerror or error}"
        raise ProblemsError([Problem(where, 1, 1, message)]) from None
    return verifier.finish()


def _verify_files(directory: Path, verifier: Verifier) -> None:
    newest = directory / segments.NEWEST
    # The newest is opened first: whatever a rotation renames meanwhile is found below.
    try:
        last: BinaryIO | None = newest.open("rb")
    except FileNotFoundError:
        last = None
    older = segments.older_segments(directory)
    if last is None:
        if not older:
            raise FileNotFoundError(2, "there is no audit log", str(newest))
        _verify_older(older, b"", directory, verifier)
        verifier.begin(Source(str(newest), None, ()))
        verifier.problem("is missing: the log's newest segment")
        return
    with last:
        begin = last.readline(MAX_LINE_BYTES)
        _verify_older(older, begin, directory, verifier)
        lines = chain([begin] if begin else [], _lines(last, wait=True))
        _verify_file(Source(str(newest), None, lines), directory, verifier)


def _verify_older(
    older: dict[int, Path], newest: bytes, directory: Path, verifier: Verifier
) -> None:
    """The segments before the one that begins with the line `newest`."""
    for first, path in older.items():
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue  # dropped meanwhile; if it was not the oldest, records are missing then
        with file:
            begin = file.readline(MAX_LINE_BYTES)
            # Cut short amid a rotation, the newest has both names.
            if begin != newest:
                lines = chain([begin] if begin else [], _lines(file, wait=False))
                _verify_file(Source(str(path), first, lines), directory, verifier)


def _verify_file(source: Source, directory: Path, verifier: Verifier) -> None:
    verifier.begin(source)
    for number, raw in enumerate(source.lines, 1):
        line = verifier.line(number, raw)
        if number == 1 and line is not None and line.kind == segments.KIND:
            kept = directory / segments.snapshot_name(line.n)
            try:
                named = segments.read_segment(line).state
                found = f"sha256:{hashlib.sha256(kept.read_bytes()).hexdigest()}"
            except (ChainError, FileNotFoundError):
                continue  # told already; and a copy of the log alone has no states
            if found != named:
                verifier.problem(f"{kept.name} is not the state that this line names")


def _lines(file: BinaryIO, *, wait: bool) -> Iterator[bytes]:
    """The lines of a file; at a torn end, wait for whoever is writing it."""
    while raw := file.readline(MAX_LINE_BYTES):
        end = time.monotonic() + _PATIENCE
        while wait and len(raw) < MAX_LINE_BYTES and not raw.endswith(b"\n"):
            if time.monotonic() > end:
                break
            time.sleep(_PATIENCE / 50)
            raw += file.readline(MAX_LINE_BYTES)
        yield raw
