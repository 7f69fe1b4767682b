"""The state directory: one broker's keys, its journal, its policy; locked while it runs.

Missing, corrupt or older state is refused, since a broker that starts afresh would number its
decisions anew and forget its labels: the gates stay as they are until an operator says `--init`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.segments import NEWEST
from broker.service.durable import write_durably
from broker.service.journal import Journal, JournalError, Rotation
from broker.service.recover import Recovered, aside, recover, tidy
from broker.service.replay import CorruptError, Replayed, replay, state_before
from broker.service.snapshot import encode_snapshot
from broker.service.state import State

if TYPE_CHECKING:
    from pathlib import Path

KEY: Final = "broker.key"
PUBLIC_KEY: Final = "broker.pub"
LOCK: Final = "lock"
Kept = Literal["policy", "proposal", "filter"]
"""What is kept byte for byte: policies, policies that wait for approval, stored filter profiles."""


class RefusedError(Exception):
    """The broker must not start on this state; the message says what, where and what to do."""


class StateDir:
    """An open, locked state directory."""

    def __init__(self, path: Path, *, init: bool, rotation: Rotation | None = None) -> None:
        """Open it; with `init`, make or accept what is missing or corrupt.

        Raises:
            RefusedError: another broker runs on it, or it is missing or corrupt without `init`.
            OSError: it cannot be read or written.
        """
        self.path = path
        self.init = init
        self.note = ""
        self._rotation = rotation or Rotation()
        if init:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not path.is_dir():
            raise RefusedError(_missing(path))
        self._lock = _lock(path)
        with contextlib.ExitStack() as unlock:
            unlock.callback(os.close, self._lock)
            journal, key = path / NEWEST, path / KEY
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
        try:
            self.journal.close()
        finally:
            os.close(self._lock)

    def file_of(self, kind: Kept, digest: str) -> Path:
        """Where exact bytes are kept, by their digest `sha256:<hex>`."""
        return self.path / f"{kind}-{digest.removeprefix('sha256:')}.yaml"

    def keep(self, kind: Kept, digest: str, data: bytes) -> None:
        """Keep bytes, durably, before the journal refers to them.

        Raises:
            OSError: they cannot be written.
        """
        write_durably(self.file_of(kind, digest), data, 0o600)

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
            path.rename(aside(path))
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
            if path.exists():
                # What the former key signed of the audit log can be verified with it alone.
                path.rename(aside(path))
            write_durably(path, pem, 0o644)

    def _open_journal(self, path: Path) -> Journal:
        try:
            tidy(self.path)
            found = self._read(path)
        except CorruptError as error:
            if not self.init:
                raise RefusedError(
                    f"{error}; restore the state directory, or start with --init to go on from "
                    "what can be read before that (the rest is kept aside)"
                ) from None
            found = recover(self.path, str(error))
        if not found.state.started and not self.init:
            raise RefusedError(_missing(path))
        self.state, self.note = found.state, found.note
        journal = Journal(path, found.replayed, self.key, self._rotation)
        journal.set_in_force(self.state.policy_digest)
        if found.restate:
            try:
                journal.rotate(encode_snapshot(self.state, journal.head))
            except JournalError as error:
                raise RefusedError(f"the audit log cannot be written: {error}") from None
        return journal

    def _read(self, path: Path) -> Recovered:
        if not path.exists():
            return Recovered(State(), Replayed(), restate=False, note="")
        state, before = state_before(path)
        found = replay(path, state, before)
        torn = f"a torn last line of {found.torn} bytes was cut off" if found.torn else ""
        return Recovered(state, found, restate=False, note=torn)


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
