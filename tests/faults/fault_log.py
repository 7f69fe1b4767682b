"""The audit log as an auditor reads it: line by line, once durable; each grant is held to it.

What is in force is what the log says before the grant: labels, policy, quarantine, sanctions, who
was admitted and in which order. The rules are `fault_policies`, not the product's.
"""

from __future__ import annotations

import json

import msgspec
from fault_policies import BY_DIGEST, WALL

from broker.core.record import Record, verify_record


class Decided(msgspec.Struct, frozen=True):
    """One decision that became durable: its text, what it says, the log's line."""

    record: Record
    text: bytes
    line: int


class FaultLog:
    """What the log says up to its last durable line; `problems` what should not be in it.

    `key()` is the broker's public key; `on_quarantine(uuid, reason)` hears of each.
    """

    def __init__(self, key, on_quarantine):
        self.problems = []
        self.labels = {}
        self.rules = None
        self.quarantine = {}
        self.admitted = {}
        self.sanctions = {}
        self.damped = {}
        self.by_text = {}
        self.last = {}
        self.grants = 0
        self._key = key
        self._on_quarantine = on_quarantine
        self._lines = 0
        self._seq = -1

    def hear(self, raw):
        """One more line."""
        line = json.loads(raw)
        self._lines += 1
        effect = getattr(self, f"_{line['event']}", None)
        if effect is not None:
            effect(line)

    def standing(self, domid):
        """The label under which a domain may take part in channels; None if it may not."""
        return self._standings().get(domid)

    def allows(self, device_class, frontend, backend, disk):
        """Whether a channel of two domids may be open by what the log says now."""
        standings = self._standings()
        ends = (standings.get(frontend), standings.get(backend))
        return self.rules is not None and self.rules.allow(device_class, *ends, disk)

    def _standings(self):
        found = {0: "SystemManagement"}
        for domid, (uuid, label) in self.admitted.items():
            if self.rules is None or label not in self.rules.labels or uuid in self.quarantine:
                continue
            if WALL.get(label) not in found.values() or label not in WALL:
                found[domid] = label
        return found

    def _decided(self, line):
        text = line["text"].encode("ascii")
        record = verify_record(text, self._key())
        if record.seq <= self._seq:
            self.problems.append(f"seq went back: {text}")
        self._seq = record.seq
        decided = Decided(record, text, self._lines)
        self.by_text[text] = decided
        self.last[line["path"]] = decided
        if record.verdict == "grant":
            self.grants += 1
            wrong = self._wrong(line["path"], record)
            if wrong:
                self.problems.append(f"granted although {wrong}: {text}")

    def _wrong(self, path, record):
        standings = self._standings()
        ends = (standings.get(record.frontend), standings.get(record.backend))
        if self.rules is None or record.policy != self.rules.digest:
            return "another policy is in force"
        if record.labels != ends:
            return f"the ends stand as {ends}"
        if not self.rules.allow(record.device_class, *ends, record.resource):
            return "the policy denies it"
        if self.admitted[record.frontend][0] != record.uuid:
            return "another domain has that number"
        if self.sanctioned(path, record.nonce):
            return "the channel is closed by a sanction"
        return ""

    def sanctioned(self, path, nonce):
        """Whether this life of a channel is closed by a sanction."""
        return path in self.sanctions and self.sanctions[path] in (None, nonce)

    def _label_set(self, line):
        self.labels[line["key"]] = line["label"]

    def _label_removed(self, line):
        self.labels.pop(line["key"], None)

    def _policy_loaded(self, line):
        self.rules = BY_DIGEST[line["digest"]]

    def _admitted(self, line):
        self.admitted.pop(line["domid"], None)
        self.admitted[line["domid"]] = (line["uuid"], line["label"])

    def _released(self, line):
        self.admitted.pop(line["domid"], None)

    def _vanished(self, line):
        self.sanctions.pop(line["path"], None)

    def _quarantined(self, line):
        self.quarantine[line["uuid"]] = line["reason"]
        self._on_quarantine(line["uuid"], line["reason"])

    def _quarantine_lifted(self, line):
        self.quarantine.pop(line["uuid"], None)

    def _sanctioned(self, line):
        self.sanctions[line["path"]] = line["nonce"]

    def _damped(self, line):
        self.damped[line["uuid"]] = line["until"]
