"""An agent as a program, on a store of its own, in a host of network namespaces."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

from bed import Bed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from netns import Lab
from records import KEY
from support.xenstoreds import start_store, wait_until

from broker.agent.gates import loopdev

COMMAND = Path(sys.executable).parent / "broker-agent"


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def config(directory, **changes):
    """An agent.yaml with its key beside it."""
    (directory / "broker.pub").write_bytes(pem(KEY))
    values = {"store": "unix:/nowhere", "domid": 0, "broker_key": "broker.pub", "state": "state"}
    path = directory / "agent.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in {**values, **changes}.items()))
    path.chmod(0o600)
    return path


class Host(Bed):
    """A store, a bridge with two guests, and the program in the middle."""

    def __init__(self, daemon, lab, directory):
        super().__init__(daemon)
        self.lab = lab
        self.directory = directory
        self.config = config(directory, store=daemon.address)
        self.log = (directory / "log").open("ab")
        self.process = None
        self.image = directory / "disk.img"
        self.image.write_bytes(bytes(1 << 20))

    def start(self):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.lab.host.name, str(COMMAND), "--config", str(self.config)],
            stderr=self.log,
        )

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(10)

    def beat_until(self, condition, what):
        """As `wait_until`, with a broker that lives."""

        def looked():
            self.send_beat()
            return condition()

        return wait_until(looked, what)

    def tables(self):
        words = ["ip", "netns", "exec", self.lab.host.name, "nft", "list", "tables"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def loops(self):
        nonce = (self.report("vbd/51712", "nonce") or b"").decode()
        return loopdev.tagged(nonce)

    def text(self):
        return (self.directory / "log").read_text()


@contextlib.contextmanager
def agent_host(kind, directory, **how):
    """A host of this `kind`, and all that it left behind taken away."""
    daemon, lab = start_store("C"), Lab()
    host = kind(daemon, lab, directory, **how)
    try:
        yield host
    finally:
        if host.process is not None and host.process.poll() is None:
            host.end(signal.SIGKILL)
        for loop in host.loops():
            loopdev.detach(loop)
        host.close()
        lab.close()
        daemon.stop()
