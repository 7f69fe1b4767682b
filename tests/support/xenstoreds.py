"""Stores to test against: real C xenstored, real oxenstored, and the embedded store.

Each is a process of its own in a short directory, alike to its user:

    daemon = start_store("C")            # or "oxenstored", "embedded"
    daemon.address                       # "unix:/tmp/xs-…/socket", domain 0's
    daemon.client()                      # a BlockingClient as domain 0
    guest = daemon.guest(7)              # a domain with its own ring, home /local/domain/7
    guest.address, guest.client()        # the same, speaking as domid 7
    guest.die()                          # the domain is gone; the store has noticed
    daemon.restart_empty()               # killed and started anew, at the same address
    daemon.stop()
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.blocking import DEADLINE, BlockingClient
from support.ring import PORT_VIRQ, Ring, RingBridge
from support.shim import build_shim

XEN = Path("/usr/lib/xen-4.17/bin")
KINDS = ("C", "oxenstored", "embedded")


def wait_until(condition, what="the condition"):
    """Poll `condition` until it is true; AssertionError after the deadline."""
    end = time.monotonic() + DEADLINE
    while not (result := condition()):
        assert time.monotonic() < end, f"{what} did not come about in {DEADLINE} s"
        time.sleep(0.002)
    return result


class StoreDaemon:
    """A store process; the subclasses say how it is started and how a domain comes and goes."""

    kind = ""

    def __init__(self, options=()):
        self.directory = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
        self.path = self.directory / "socket"
        self.address = f"unix:{self.path}"
        self.guests = {}
        self._options = options
        self._process = None
        self._log = (self.directory / "log").open("ab")
        self._prepare()
        self.start()

    @property
    def pid(self):
        return self._process.pid

    def start(self):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("XENSTORED_") and name != "LD_PRELOAD"
        }
        environment.update(self._environment())
        self._process = subprocess.Popen(
            self._command(), env=environment, stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        wait_until(self._answers, f"{self.kind} answering on {self.path}")

    def kill(self):
        """SIGKILL: connections end, whatever was stored is lost."""
        self._end(signal.SIGKILL)

    def restart_empty(self):
        """A crash and a restart, as after `systemctl restart`: the store comes back empty."""
        self.kill()
        for guest in list(self.guests.values()):
            guest.forget()
        self.path.unlink(missing_ok=True)
        self.start()

    def stop(self):
        for guest in list(self.guests.values()):
            guest.forget()
        self._end(signal.SIGTERM)
        self._log.close()
        shutil.rmtree(self.directory)

    def log_text(self):
        return (self.directory / "log").read_text(errors="replace")

    def client(self):
        """A blocking connection as domain 0."""
        return BlockingClient(self.path)

    def guest(self, domid):
        """Make domain `domid`: home directory, introduction, its own connection."""
        guest = self._make_guest(domid)
        self.guests[domid] = guest
        return guest

    def _introduce(self, domid):
        home = f"/local/domain/{domid}"
        with self.client() as client:
            client.mkdir(home)
            client.set_perms(home, f"n{domid}")
            client.introduce(domid, 1, 1)

    def _end(self, first_signal):
        process = self._process
        if process.poll() is None:
            process.send_signal(first_signal)
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                # One of the daemons has been seen to outlive SIGTERM.
                process.kill()
                process.wait()

    def _answers(self):
        assert self._process.poll() is None, f"{self.kind} ended at once: {self.log_text()}"
        try:
            with BlockingClient(self.path) as client:
                client.directory("/")
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            return False  # the last: others are before us in a short queue
        return True

    def _prepare(self):
        pass


class Guest:
    """A domain and its way to the store."""

    def __init__(self, daemon, domid, path):
        self.daemon = daemon
        self.domid = domid
        self.path = path
        self.address = f"unix:{path}"
        self.home = f"/local/domain/{domid}"

    def client(self):
        """A blocking connection as this domain."""
        return BlockingClient(self.path)

    def forget(self):
        """The domain is gone with its store."""
        self.daemon.guests.pop(self.domid, None)

    def _gone(self):
        with self.daemon.client() as client:
            return not client.is_introduced(self.domid)


class RingGuest(Guest):
    """A domain that speaks the shared-ring protocol to a real daemon."""

    def __init__(self, daemon, domid):
        super().__init__(daemon, domid, daemon.directory / f"guest.{domid}")
        self._dom = daemon.directory / f"dom.{domid}"
        self._dom.write_text("r")
        self.ring = Ring(daemon.directory, domid)
        daemon._introduce(domid)
        self._bridge = RingBridge(self.ring, self.path)
        self._bridge.start()

    def shut_down(self, state="s"):
        """The kernel has stopped (`s`), crashed (`c`) or is dying (`d`); the domain remains."""
        self._dom.write_text(state)
        self._exception()

    def die(self):
        """The domain is destroyed; returns when the daemon has noticed."""
        self._dom.unlink()
        self._exception()
        wait_until(self._gone, f"the end of domain {self.domid}")
        self.forget()

    def forget(self):
        super().forget()
        self._bridge.stop()
        self._dom.unlink(missing_ok=True)

    def _exception(self):
        with (self.daemon.directory / "evtchn").open("r+b", buffering=0) as fifo:
            fifo.write(struct.pack("I", PORT_VIRQ))


class ShimmedDaemon(StoreDaemon):
    """A real daemon under the shim."""

    def _prepare(self):
        (self.directory / "ring.0").write_bytes(bytes(4096))
        (self.directory / "xsd_port").write_text("2")
        os.mkfifo(self.directory / "evtchn")

    def _environment(self):
        return {"LD_PRELOAD": str(build_shim()), "XENSTORED_SHIM_DIR": str(self.directory)}

    def _make_guest(self, domid):
        return RingGuest(self, domid)


class CXenstored(ShimmedDaemon):
    kind = "C"

    def _command(self):
        return [XEN / "xenstored", "-N", *self._options]

    def _environment(self):
        return {**super()._environment(), "XENSTORED_RUNDIR": str(self.directory)}


class Oxenstored(ShimmedDaemon):
    kind = "oxenstored"

    def _command(self):
        lines = (
            f"pid-file = {self.directory}/pid",
            f"xenstored-log-file = {self.directory}/oxenstored.log",
            f"xenstored-kva = {self.directory}/ring.0",
            f"xenstored-port = {self.directory}/xsd_port",
            "persistent = false",
            "quota-activate = true",
            "perms-watch-activate = true",
            *self._options,
        )
        config = self.directory / "oxenstored.conf"
        config.write_text("\n".join(lines) + "\n")
        return [XEN / "oxenstored", "--no-fork", "--config-file", config]


class SocketGuest(Guest):
    """A domain of the embedded store, on the socket made for it."""

    def __init__(self, daemon, domid):
        super().__init__(daemon, domid, daemon.directory / "guests" / f"{domid}.sock")
        daemon._introduce(domid)
        wait_until(self.path.exists, f"the socket of domain {domid}")

    def die(self):
        """The domain is destroyed: without a hypervisor to tell, the toolstack's release does."""
        with self.daemon.client() as client:
            client.release(self.domid)
        wait_until(self._gone, f"the end of domain {self.domid}")
        self.forget()


class Embedded(StoreDaemon):
    kind = "embedded"

    def _command(self):
        program = [sys.executable, "-c", _RUN_STORE, "--socket", self.path]
        return [*program, "--guest-sockets", self.directory / "guests", *self._options]

    def _environment(self):
        return {}

    def _make_guest(self, domid):
        return SocketGuest(self, domid)


_RUN_STORE = "import sys; from broker.xenstore.store.main import main; sys.exit(main())"


def start_store(kind, options=()):
    """A running store of `kind`; `options` are the daemon's own (lines, for oxenstored)."""
    return {"C": CXenstored, "oxenstored": Oxenstored, "embedded": Embedded}[kind](options)
