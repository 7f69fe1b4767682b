"""A store, many domains in it, and a responder: brokerd itself, or the raw floor beside it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from support.xenstoreds import StoreDaemon, start_store

from broker.rpc.client import Client
from broker.rpc.methods import LabelSet
from broker.sim.toolstack import attach_requests, create_requests, vif
from broker.xenstore import paths, wire
from broker.xenstore.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from support.blocking import BlockingClient

ROOT = Path(__file__).parents[2]
POLICY = """\
policy: bench
version: "1.0"
ste_types: [system, guests]
bootstrap: Dom0
labels:
  Dom0: {ste: [system, guests]}
  bench: {ste: [guests]}
classes:
  vif: {protocol: vif, default: ste}
host_authorization: true
"""
PATIENCE = 120.0


class Rig:
    """One store of `kind` in a temporary directory, seeded with `domains` of `devices` vifs each.

    The domains are nodes only: nobody speaks for them.
    """

    def __init__(self, kind: str, domains: int, devices: int) -> None:
        self.store: StoreDaemon = start_store(kind)
        self.directory = Path(tempfile.mkdtemp(prefix="xpb-bench-"))
        self.client: BlockingClient = self.store.client()
        self.channels = [(domid, dev) for domid in range(1, domains + 1) for dev in range(devices)]
        for domid in range(1, domains + 1):
            uuid = f"00000000-0000-4000-8000-{domid:012d}"
            changes = create_requests(domid, uuid, "bench")
            for dev in range(devices):
                changes += attach_requests(domid, vif(dev, f"00:16:3e:00:{dev:02x}:01"))
            # Permissions for a domid that was never introduced are refused by C xenstored; there
            # is nothing to remove in an empty store.
            dropped = (wire.SET_PERMS, wire.RM)
            send_all(self.client, [it for it in changes if it[0] not in dropped])

    def close(self) -> None:
        """End the store and remove everything."""
        self.client.close()
        self.store.stop()
        shutil.rmtree(self.directory)

    @contextmanager
    def brokerd(self, rpc_keys: str = "") -> Iterator[int]:
        """Brokerd on this store, all domains labelled, until the block ends; its pid.

        `rpc_keys` are more lines of its configuration's `rpc:`.
        """
        (self.directory / "policy.yaml").write_text(POLICY)
        config = self.directory / "broker.yaml"
        rpc = self.directory / "run" / "rpc.sock"
        config.write_text(
            f"store: {self.store.address}\nstate: {self.directory}/state\npolicy: policy.yaml\n"
            f"specs: {ROOT}/protocol_specs\nrpc:\n  socket: {rpc}\n{rpc_keys}"
            "audit_budget:\n  burst: 100000\n  refill_seconds: 1\n"
        )
        with process([*self._brokerd, "--init"], self.log) as it:
            self.wait_for(it, rpc.exists)
            self.wait_for(it, lambda: self.value("/broker/v1/state") == b"enforcing")
            Client(str(rpc)).call("label.set", LabelSet(domain="name:bench", label="bench"))
            domid, dev = self.channels[-1]
            last = f"/broker/v1/decision/0/vif/{domid}/{dev}"
            self.wait_for(it, lambda: b"pending" in (self.value(last) or b""))
            # What is only for people is written last; it is not measured.
            uuid = f"00000000-0000-4000-8000-{domid:012d}"
            shown = f"{paths.security_dir(uuid)}/channel/vif/{dev}"
            self.wait_for(it, lambda: self.value(shown))
            time.sleep(1)
            yield it.pid

    @contextmanager
    def brokerd_again(self) -> Iterator[None]:
        """Brokerd once more, with the state it left; it has only just been started."""
        with process(self._brokerd, self.log):
            yield

    @property
    def _brokerd(self) -> list[str]:
        code = "import sys; from broker.service.main import main; sys.exit(main())"
        return [sys.executable, "-c", code, "--config", str(self.directory / "broker.yaml")]

    @contextmanager
    def responder(self) -> Iterator[None]:
        """The raw floor on this store, until the block ends."""
        words = [sys.executable, "-m", "tools.bench.responder", str(self.store.path)]
        self.client.write("/bench/decision/0/0", b"")
        with process([*words, str(self.directory / "responder.log")], self.log) as it:
            self.wait_for(it, self._responds)
            yield

    @property
    def log(self) -> Path:
        """What the responders print."""
        return self.directory / "log"

    def value(self, path: str) -> bytes | None:
        """A node's value, or None."""
        try:
            return bytes(self.client.read(path))
        except StoreError:
            return None

    def wait_for(self, child: subprocess.Popen[bytes], condition: Callable[[], object]) -> None:
        """Poll until it is true; what the child printed is the error otherwise."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline or child.poll() is not None:
                raise RuntimeError(self.log.read_text()[-2000:])
            time.sleep(0.02)

    def _responds(self) -> bool:
        self.client.write("/bench/request/0/0", secrets.token_hex(16).encode())
        time.sleep(0.05)
        return bool(self.value("/bench/decision/0/0"))


def send_all(client: BlockingClient, changes: Sequence[tuple[int, bytes]]) -> None:
    """Send requests 32 at a time and look at each answer."""
    for start in range(0, len(changes), 32):
        part = changes[start : start + 32]
        frames = [struct.pack("<IIII", op, 1, 0, len(data)) + data for op, data in part]
        client.send(b"".join(frames))
        for _ in part:
            operation, _, _, payload = client.receive()
            if operation == wire.ERROR:
                raise RuntimeError(payload)


@contextmanager
def process(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, ended with the block."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, env=dict(os.environ)
        )
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
