"""An audit log on a state directory without a broker: commits, kills, restarts."""

from __future__ import annotations

import contextlib
import os
import uuid
from copy import copy

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.task import Clock

from broker.core.channels import decision_of
from broker.core.plan import Entry
from broker.core.record import Record, parse_record, record_id, sign_record
from broker.service import events
from broker.service.audit import Audit
from broker.service.budget import Budget
from broker.service.journal import Rotation
from broker.service.statedir import StateDir
from broker.xenstore import paths

KEY = Ed25519PrivateKey.generate()
UUID = "00000000-0000-4000-8000-000000000003"
SMALL = Rotation(size=6000, keep=3)
POLICY = "sha256:" + "0" * 64


def decided(seq, *, nonce="0" * 32, device="0", domain=UUID, verdict="grant"):
    channel = paths.Channel(0, "vif", 3, device)
    record = Record(
        verdict=verdict,
        seq=seq,
        id=str(uuid.uuid4()),
        frontend=3,
        backend=0,
        device_class="vif",
        device=device,
        uuid=domain,
        nonce=nonce,
        inputs="0" * 64,
        labels=("a", "b"),
        resource=None,
        policy=POLICY,
        spec="sha256:" + "0" * 64,
        reason="why not",
    )
    text = sign_record(record, KEY).decode()
    return events.Decided(1.0, paths.decision_path(channel), text, record_id(text))


def entry_of(event):
    record = parse_record(event.text.encode())
    return event.path, Entry(record.seq, event.text.encode(), decision_of(record))


class Log:
    """The audit log and the state of one directory."""

    def __init__(self, path, *, init=False, rotation=SMALL):
        self.path = path
        self.statedir = StateDir(path, init=init, rotation=rotation)
        self.audit = Audit(self.statedir.journal, self.statedir.state, Budget(), Clock())
        if not self.state.started:
            self.commit(events.Started(1.0, "1"))

    @property
    def state(self):
        return self.audit.state

    @property
    def journal(self):
        return self.statedir.journal

    def commit(self, *lines):
        entries = [entry_of(line) for line in lines if isinstance(line, events.Decided)]
        return self.audit.commit(lines, entries)

    def label(self, name, label="a"):
        return self.commit(events.LabelSet(1.0, "name", name, label, "corp", "me"))

    def decide(self, count=1):
        for _ in range(count):
            seq = self.state.seq + 1
            assert self.commit(decided(seq, nonce=f"{seq:032x}"))

    def rotations(self, count=1):
        """Decide until the log was rotated so often."""
        for _ in range(count):
            first = self.journal.first
            while self.journal.first == first:
                self.decide()

    def labels(self):
        return {key for _, key in self.state.labels}

    def close(self):
        self.statedir.close()

    def abandon(self):
        """As a kill leaves it: files closed, nothing written."""
        for file in (self.journal._file, self.statedir._lock):
            with contextlib.suppress(OSError):
                os.close(file)


def content(state):
    """All of a state that a restart has to find again."""
    return {name: copy(value) for name, value in vars(state).items() if name != "_effects"}


def names(path, pattern):
    return sorted(it.name for it in path.glob(pattern))
