"""A reader of the audit log beside the broker: what was decided, ever, and whether it verifies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.core.record import Record, RecordError, verify_record

if TYPE_CHECKING:
    from pathlib import Path


class Decided(msgspec.Struct, frozen=True):
    """One audited decision: where, the record, its text, and when (seconds since 1970)."""

    path: str
    record: Record
    text: bytes
    t: float


class AuditReader:
    """Follows `audit.jsonl` of a state directory; keeps what it saw even if the file is cut."""

    def __init__(self, state: Path):
        self._file = state / "audit.jsonl"
        self._key_file = state / "broker.pub"
        self._offset = 0
        self.lines = []
        self.by_text = {}
        self.last = {}
        self.problems = []

    def refresh(self):
        """Read what is new; a file that became shorter is read from its beginning."""
        data = self._file.read_bytes() if self._file.exists() else b""
        if len(data) < self._offset:
            self._offset = 0
        complete = data[self._offset : data.rfind(b"\n") + 1]
        self._offset += len(complete)
        key = self.key() if complete else None
        for raw in complete.splitlines():
            line = json.loads(raw)
            self.lines.append(line)
            if line["event"] == "decided":
                self._decided(line, key)

    def key(self):
        """The broker's public key."""
        return load_pem_public_key(self._key_file.read_bytes())

    def events(self, kind):
        """The lines of one kind."""
        self.refresh()
        return [line for line in self.lines if line["event"] == kind]

    def _decided(self, line, key):
        text = line["text"].encode("ascii")
        try:
            record = verify_record(text, key)
        except RecordError as error:
            self.problems.append(f"an audited record does not verify: {error}: {text}")
            return
        decided = Decided(line["path"], record, text, line["t"])
        before = self.last.get(decided.path)
        if text not in self.by_text and before is not None and record.seq <= before.record.seq:
            self.problems.append(f"seq went back on {decided.path}: {text}")
        self.by_text[text] = decided
        self.last[decided.path] = decided
