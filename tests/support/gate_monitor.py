"""Watches every simulated gate and decision node beside the product, and notes what may not be.

When a gate opens, the grant for its nonce and inputs must already be in the audit log, signed;
when a signed record is seen in its node, it must be in the audit log. Each opening and closing is
kept, so that a test can say that nothing closed.
"""

from __future__ import annotations

import threading
import time

import msgspec

from broker.core.record import INPUT_KEYS, RecordError, inputs_digest, verify_record
from broker.xenstore.errors import NotFoundError, StoreError
from broker.xenstore.paths import DECISIONS, parse_backend_dir

GATES = "/local/domain/0/backend"
REPLACED_WITHIN = 2.0
"""Seconds in which a grant may have been replaced by the time that its effect is seen."""


class Move(msgspec.Struct, frozen=True):
    """One gate moved: its backend directory, `open` or not, in which life."""

    path: str
    open: bool
    nonce: bytes | None


class GateMonitor(threading.Thread):
    """`start()`, look at `moves` and `problems`, `stop()`; a store that ends is waited for."""

    def __init__(self, daemon, audit):
        super().__init__(name="gate monitor", daemon=True)
        self.moves = []
        self.problems = []
        self._daemon = daemon
        self._audit = audit
        self._open = {}
        self._stopping = threading.Event()
        self.lock = threading.Lock()
        """Held while the audit log is read."""

    def stop(self):
        """Returns when the thread has ended."""
        self._stopping.set()
        self.join()

    def closings(self, path):
        """How often the gate of this backend directory was seen to close."""
        return sum(1 for move in self.moves if move.path == path and not move.open)

    def run(self):
        while not self._stopping.is_set():
            try:
                with self._daemon.client() as client:
                    client.watch(GATES, "gates")
                    client.watch(DECISIONS, "decisions")
                    self._follow(client)
            except (OSError, StoreError):
                time.sleep(0.02)

    def _follow(self, client):
        while not self._stopping.is_set():
            try:
                path, token = client.next_event(0.1)
            except TimeoutError:
                continue
            if token == "gates":
                self._gate(client, "/".join(path.split("/")[:8]))
            else:
                self._decision(client, path)

    def _gate(self, client, path):
        found = parse_backend_dir(path)
        if found is None:
            for known in [it for it in self._open if it.startswith(f"{path}/")]:
                self._gate(client, known)
            return
        life = _read(client, f"{path}/xpb-life")
        if found[1] == "vif":
            is_open = _read(client, f"{path}/hotplug-status") == b"connected"
        else:
            is_open = _read(client, f"{path}/physical-device") is not None
        inputs = {key: _read(client, f"{path}/{key}") for key in INPUT_KEYS}
        if is_open == self._open.get(path, False) or life != _read(client, f"{path}/xpb-life"):
            return
        self._open[path] = is_open
        self.moves.append(Move(path, is_open, life))
        if is_open:
            digest = inputs_digest({key: it for key, it in inputs.items() if it is not None})
            self._justified(found, life, digest)

    def _justified(self, found, life, inputs):
        backend, kind, frontend, device = found
        path = f"{DECISIONS}/{backend}/{kind}/{frontend}/{device}"
        with self.lock:
            self._audit.refresh()
            all_decided = list(self._audit.by_text.values())
            last = self._audit.last.get(path)
        nonce = (life or b"").decode("ascii", "replace")
        grants = [
            it
            for it in all_decided
            if it.path == path
            and (it.record.verdict, it.record.nonce, it.record.inputs) == ("grant", nonce, inputs)
        ]
        if not grants:
            self.problems.append(f"{path} opened for {nonce} {inputs} without an audited grant")
        elif last not in grants and time.time() - last.t > REPLACED_WITHIN:
            self.problems.append(f"{path} opened although last was {last.text}")

    def _decision(self, client, path):
        text = _read(client, path)
        with self.lock:
            self._audit.refresh()
            if text in self._audit.by_text:
                return
            try:
                verify_record(text or b"", self._audit.key())
            except RecordError:
                return  # a test's own, that no agent believes
            self.problems.append(f"{path} was published without an audit line: {text}")


def _read(client, path):
    try:
        return client.read(path)
    except NotFoundError:
        return None
