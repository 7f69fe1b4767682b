"""A policy of ten thousand pairs of classes changed the whole way, while guests talk.

brokerd loads it, decides anew and signs; broker-agent follows the records it publishes; the
frames of two guests, allowed by both policies, and of a third, allowed by neither, are counted.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from support.xenstoreds import start_store

from broker.net.readback import Readback
from broker.rpc.client import Client
from broker.rpc.methods import LabelSet, PolicyLoad
from broker.sim.toolstack import attach_requests, create_requests, vif
from broker.xenstore import wire
from broker.xenstore.errors import StoreError
from tools.bench.bridge.bed import GUESTS, Bed
from tools.bench.rig import ROOT, process, send_all

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

LABELS = 101
"""Of which the first three are the guests'; each is in a class of its own."""
_DOMIDS = dict(zip(GUESTS, (3, 4, 5), strict=True))
_PATIENCE = 60.0
_CHANGES: Final = 16
"""While it is quiet: to the narrow policy and back."""


def policy(*, wide: bool) -> str:
    """All labels may talk, each but with its partner; or each with itself, and the first two."""
    own = [f"t{n}" for n in range(1, LABELS + 1)]
    types = ", ".join(["all", *own])
    ste = [("all, " if wide else "") + it for it in own]
    if not wide:
        ste[1] += ", t1"
    labels = "".join(f"  L{n}: {{ste: [{it}]}}\n" for n, it in enumerate(ste, 1))
    partners = [(1, 3), (2, 3), *((n, n + 1) for n in range(4, LABELS, 2))]
    rules = "".join(
        f"  - {{deny: {{class: vif, between: [L{one}, L{other}]}}}}\n" for one, other in partners
    )
    return (
        f'policy: {"wide" if wide else "narrow"}\nversion: "1.0"\nste_types: [{types}]\n'
        f"bootstrap: L0\nlabels:\n  L0: {{ste: [{types}]}}\n{labels}"
        f"classes:\n  vif: {{protocol: vif, default: ste}}\nchannels:\n{rules}"
    )


class Change(NamedTuple):
    """Milliseconds of one change.

    From the `call` to brokerd, or from its first `record` for the agent, until the kernel's last
    transaction; and how long agent and helper kept a `processor` until the report.
    """

    call: float
    record: float
    processor: float


class Measured(NamedTuple):
    """Changes to the wide policy while it is quiet, and changes either way under traffic.

    `blasted` is packets sent to b and to c, got by b, got by c.
    """

    quiet: list[Change]
    loaded: list[Change]
    blasted: tuple[int, int, int]


class Whole:
    """A store, brokerd, broker-agent in the bed's host, and guests a, b and c as domains 3 to 5."""

    def __init__(self) -> None:
        self.bed = Bed()
        self.directory = Path(tempfile.mkdtemp(prefix="xpb-bench-"))
        self.log = self.directory / "log"
        self.store = start_store("C")
        self._client = self.store.client()
        self._rpc = self.directory / "run" / "rpc.sock"
        self._texts = [policy(wide=True), policy(wide=False)]
        for guest, domid in _DOMIDS.items():
            self.bed.ip("host", f"link set g{guest} down nomaster name vif{domid}.0")
        (self.directory / "policies").mkdir()
        for n, text in enumerate(self._texts):
            (self.directory / "policies" / f"{n}.yaml").write_text(text)

    def close(self) -> None:
        """Leave nothing behind."""
        self._client.close()
        self.store.stop()
        self.bed.close()
        shutil.rmtree(self.directory)

    def run(self, rate: int, seconds: float) -> Measured:
        """Changes while it is quiet, and changes under traffic."""
        with process(self._brokerd(), self.log) as brokerd:
            self._wait(brokerd, self._rpc.exists)
            self._wait(brokerd, lambda: self._value("/broker/v1/state") == b"enforcing")
            with process(self._agent(), self.log) as agent:
                self._make_guests(agent)
                changes = [self.change(agent) for _ in range(_CHANGES)]
                quiet = changes[1::2]
                self.bed.trip(10)  # the bridge is to know where they are
                blast, loaded = self.bed.blast(rate, seconds), []
                while blast.poll() is None:
                    loaded.append(self.change(agent))
                sent, allowed, denied = map(int, blast.communicate()[0].split())
        return Measured(quiet, loaded, (sent, allowed, denied))

    def _brokerd(self) -> list[str]:
        config = self.directory / "broker.yaml"
        config.write_text(
            f"store: {self.store.address}\nstate: {self.directory}/state\n"
            f"policy: {self.directory}/policies/0.yaml\nspecs: {ROOT}/protocol_specs\n"
            f"rpc:\n  socket: {self._rpc}\n"
            "audit_budget:\n  burst: 100000\n  refill_seconds: 1\n"
        )
        code = "import sys; from broker.service.main import main; sys.exit(main())"
        return [sys.executable, "-c", code, "--config", str(config), "--init"]

    def _agent(self) -> list[str]:
        config = self.directory / "agent.yaml"
        config.write_text(
            f"store: {self.store.address}\ndomid: 0\nbroker_key: state/broker.pub\nstate: agent\n"
            "bridges: [br0]\npolicies: policies\nnet_report: net.json\n"
        )
        code = "import sys; from broker.agent.main import main; sys.exit(main())"
        inside = ["ip", "netns", "exec", self.bed.names["host"]]
        return [*inside, sys.executable, "-c", code, "--config", str(config)]

    def _make_guests(self, agent: subprocess.Popen[bytes]) -> None:
        client = Client(str(self._rpc))
        for n, (guest, domid) in enumerate(_DOMIDS.items(), 1):
            uuid = f"00000000-0000-4000-8000-{domid:012d}"
            device = vif(0, f"02:00:00:00:00:{n:02x}", bridge="br0")
            changes = create_requests(domid, uuid, guest) + attach_requests(domid, device)
            dropped = (wire.SET_PERMS, wire.RM)  # as in tools.bench.rig
            send_all(self._client, [it for it in changes if it[0] not in dropped])
            self._wait(agent, lambda d=domid: self._reports(d))  # type: ignore[misc]
            client.call("label.set", LabelSet(domain=f"uuid:{uuid}", label=f"L{n}"))
        self._wait(agent, lambda: all(self._open(domid) for domid in _DOMIDS.values()))

    def change(self, agent: subprocess.Popen[bytes]) -> Change:
        """The other policy, until the agent reports that it is in force."""
        self._texts.reverse()
        text = self._texts[0]
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        with self.bed.entered():
            kernel = Readback()  # who listens has the kernel tell him each element: it is asked
        generation = kernel.generation()
        busy = _processor_time(agent.pid)
        began = last = time.perf_counter()
        loading = threading.Thread(target=self._load, args=(text,))
        loading.start()
        published = 0.0
        while not self._shown(digest):
            if not published and self._decided(digest):
                published = time.perf_counter()
            now = kernel.generation()
            if now != generation:
                generation, last = now, time.perf_counter()
            if agent.poll() is not None or last - began > _PATIENCE:
                raise RuntimeError(self.log.read_text()[-3000:])
            time.sleep(0.0005)
        if kernel.generation() != generation:
            last = time.perf_counter()
        loading.join()
        kernel.close()
        taken = (_processor_time(agent.pid) - busy) * 1000
        return Change((last - began) * 1000, (last - published) * 1000, taken)

    def _load(self, text: str) -> None:
        Client(str(self._rpc)).call("policy.load", PolicyLoad(text=text))

    def _decided(self, digest: str) -> bool:
        """Whether a record under this policy is there for the agent to read."""
        records = (self._value(f"/broker/v1/decision/0/vif/{it}/0") for it in _DOMIDS.values())
        return any(digest.encode() in (text or b"") for text in records)

    def _shown(self, digest: str) -> bool:
        try:
            return digest in (self.directory / "net.json").read_text()
        except OSError:
            return False

    def _reports(self, domid: int) -> bytes | None:
        return self._value(f"/broker/v1/report/0/vif/{domid}/0/nonce")

    def _open(self, domid: int) -> bool:
        return (self._value(f"/broker/v1/report/0/vif/{domid}/0/enforced") or b"").startswith(
            b"open"
        )

    def _value(self, path: str) -> bytes | None:
        try:
            return bytes(self._client.read(path)) or None
        except StoreError:
            return None

    def _wait(self, child: subprocess.Popen[bytes], condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline or child.poll() is not None:
                raise RuntimeError(self.log.read_text()[-3000:])
            time.sleep(0.002)


def _processor_time(pid: int) -> float:
    """Seconds that a process and its children have had a processor."""
    with Path(f"/proc/{pid}/task/{pid}/children").open() as file:
        children = [int(it) for it in file.read().split()]
    listed = (Path(f"/proc/{it}/schedstat").read_text() for it in (pid, *children))
    return sum(int(text.split()[0]) for text in listed) / 1e9
