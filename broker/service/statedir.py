"""The state directory: one broker's keys, its journal, its policy; locked while it runs.

Missing, corrupt or older state is refused, since a broker that starts afresh would number its
decisions anew and forget its labels: the gates stay as they are until an operator says `--init`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.service.journal import CorruptError, Journal, replay
from broker.service.state import State

if TYPE_CHECKING:
    from pathlib import Path

JOURNAL: Final = "audit.jsonl"
KEY: Final = "broker.key"
PUBLIC_KEY: Final = "broker.pub"
LOCK: Final = "lock"


class RefusedError(Exception):
    """The broker must not start on this state; the message says what, where and what to do."""


class StateDir:
    """An open, locked state directory."""

    def __init__(self, path: Path, *, init: bool) -> None:
        """Open it; with `init`, make or accept what is missing or corrupt.

        Raises:
            RefusedError: another broker runs on it, or it is missing or corrupt without `init`.
            OSError: it cannot be read or written.
        """
        self.path = path
        self.init = init
        self.note = ""
        if init:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not path.is_dir():
            raise RefusedError(_missing(path))
        self._lock = _lock(path)
        with contextlib.ExitStack() as unlock:
            unlock.callback(os.close, self._lock)
            journal, key = path / JOURNAL, path / KEY
            if not init:
                for file in (journal, key):
                    if not file.exists():
                        raise RefusedError(_missing(file))
            self.key = self._open_key(key)
            self.state = State()
            self.journal = self._open_journal(journal)
            unlock.pop_all()

    def close(self) -> None:
        """Flush the journal and let another broker have the directory."""
        self.journal.close()
        os.close(self._lock)

    def policy_file(self, digest: str) -> Path:
        """Where a policy's exact bytes are kept, by its digest `sha256:<hex>`."""
        return self.path / f"policy-{digest.removeprefix('sha256:')}.yaml"

    def keep_policy(self, digest: str, data: bytes) -> None:
        """Keep a policy's bytes, durably, before the journal refers to them.

        Raises:
            OSError: they cannot be written.
        """
        write_durably(self.policy_file(digest), data, 0o600)

    def _open_key(self, path: Path) -> Ed25519PrivateKey:
        if path.exists():
            try:
                key = serialization.load_pem_private_key(path.read_bytes(), None)
            except (ValueError, TypeError, UnsupportedAlgorithm):
                key = None
            if isinstance(key, Ed25519PrivateKey):
                self._publish_key(key)
                return key
            if not self.init:
                raise RefusedError(
                    f"{path} is no Ed25519 key in PEM; restore it, or start with --init to make "
                    f"another one (agents need the new {PUBLIC_KEY} then)"
                )
            path.rename(_aside(path))
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_durably(path, pem, 0o600)
        self._publish_key(key)
        return key

    def _publish_key(self, key: Ed25519PrivateKey) -> None:
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        path = self.path / PUBLIC_KEY
        if not path.exists() or path.read_bytes() != pem:
            write_durably(path, pem, 0o644)

    def _open_journal(self, path: Path) -> Journal:
        if not path.exists():
            return Journal(path, 0, 0)
        try:
            replayed = replay(path, self.state)
        except CorruptError as error:
            if not self.init:
                raise RefusedError(
                    f"{error}; restore the state directory, or start with --init to go on from "
                    "what can be read before that line (the file is kept aside)"
                ) from None
            aside = _aside(path)
            write_durably(aside, path.read_bytes(), 0o600)
            self.note = f"--init: went on from before a corrupt line, all of it is in {aside}"
            self.state = State()
            replayed = replay(path, self.state, end=error.offset)
        if not self.state.started and not self.init:
            raise RefusedError(_missing(path))
        if replayed.torn:
            self.note = f"a torn last line of {replayed.torn} bytes was cut off"
        return Journal(path, replayed.offset, replayed.lines)


def write_durably(path: Path, data: bytes, mode: int) -> None:
    """Replace a file whole, or not at all, and have it on the disk on return.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lock(path: Path) -> int:
    file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise RefusedError(f"another broker runs on {path}") from None
    return file


def _missing(path: Path) -> str:
    return (
        f"{path} is missing: restore the state directory, or, if there is none to restore, "
        "start once with --init (labels, and which decisions were made, start afresh)"
    )


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.corrupt-{int(time.time())}")
