"""The emulated machine: one QEMU without KVM, and the channel to the server in its dom0."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.testbed.cache import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.testbed.bed import Guest

CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand"
MEMORY_MIB = 3072
BOOT_SECONDS = 180.0


class MachineError(RuntimeError):
    """The machine, or the channel to it, is not what it should be."""


class NoBootError(MachineError):
    """dom0 did not get to its first program."""


class Machine:
    """Xen and dom0, from `boot` to `stop`.

    dom0 sees `shared` as /host and `results` as /results, where it writes. `rpc` is the way to the
    broker from in there, as dom0's server takes it. With `shell` the console is the terminal this
    runs in, with a shell on it.
    """

    def __init__(
        self,
        *,
        xen: Path,
        kernel: Path,
        initrd: Path,
        root: Path,
        shared: Path,
        results: Path,
        rpc: Mapping[str, object],
        shell: bool = False,
        options: str = "",
    ) -> None:
        self.rpc = rpc
        self.lasting: dict[int, Guest] = {}
        """Guests that outlive a scenario: lasting.py."""
        self._sockets = tempfile.TemporaryDirectory(prefix="xs-e2e-")
        self._channel = Path(self._sockets.name) / "channel"
        console = "mon:stdio" if shell else f"file:{results / 'console-xen-dom0.log'}"
        quick = "quiet panic=-1 cryptomgr.notests"
        dom0 = f"{kernel} console=hvc0 {quick} {'testbed.shell ' if shell else ''}{options}"
        self._words = [
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-cpu",
            CPU,
            "-m",
            str(MEMORY_MIB),
            "-smp",
            "1",
            "-display",
            "none",
            "-no-reboot",
            "-net",
            "none",
            "-serial",
            console,
            "-kernel",
            str(xen),
            "-initrd",
            f"{dom0},{initrd}",
            "-append",
            "console=com1 dom0_mem=1024M,max:1024M loglvl=warning guest_loglvl=warning",
            # The second one is a driver domain's, if there is one.
            *2 * ("-drive", f"file={root},format=raw,if=virtio,snapshot=on"),
            "-virtfs",
            f"local,path={shared},mount_tag=host,security_model=none",
            "-virtfs",
            f"local,path={results},mount_tag=results,security_model=none",
            "-device",
            "virtio-serial-pci",
            "-chardev",
            f"socket,id=channel,path={self._channel},server=on,wait=off",
            "-device",
            "virtserialport,chardev=channel,name=testbed",
        ]
        self._log = results / "qemu.log"
        self._requests = results / "requests.log"
        self._started = time.monotonic()
        self._shell = shell
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._asked: dict[int, Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._sending = threading.Lock()
        self._up: Future[dict[str, Any]] = Future()
        self._asked[0] = self._up

    def boot(self) -> float:
        """Start it; returns the seconds until dom0's server answered.

        Raises:
            NoBootError: it did not come up.
        """
        start = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._words,
                stdin=None if self._shell else subprocess.DEVNULL,
                stdout=None if self._shell else log,
                stderr=log,
            )
        while True:
            try:
                self._socket.connect(str(self._channel))
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > start + 10:
                    raise NoBootError(f"QEMU did not start; see {self._log}") from None
                time.sleep(0.05)
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._up.result(BOOT_SECONDS)
        except TimeoutError:
            raise NoBootError(f"dom0 did not come up in {BOOT_SECONDS:.0f} s") from None
        return time.monotonic() - start

    def ask(self, what: str, timeout: float, **words: object) -> dict[str, Any]:
        """One request to dom0's server, and its answer.

        Raises:
            MachineError: no answer in `timeout` (and some), or an error.
        """
        number = next(self._ids)
        answer: Future[dict[str, Any]] = Future()
        self._asked[number] = answer
        request = {"id": number, "do": what, "timeout": timeout, **words}
        start = time.monotonic()
        try:
            with self._sending:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
            said = answer.result(timeout + 20)
        except TimeoutError:
            raise MachineError(f"dom0 does not answer: {request}") from None
        except OSError as error:
            raise MachineError(f"the channel to dom0 is gone: {error}") from None
        finally:
            self._asked.pop(number, None)
            self._noted(start, what, words)
        if "error" in said:
            raise MachineError(f"{request}: {said['error']}")
        return said

    def _noted(self, start: float, what: str, words: Mapping[str, object]) -> None:
        """A line for who wonders where the time went: when, for how many seconds, what."""
        now = time.monotonic()
        with self._requests.open("a") as log:
            log.write(
                f"{start - self._started:8.2f} {now - start:7.2f} {what} {str(words)[:300]}\n"
            )

    def worked(self) -> float:
        """Seconds of processor time that the machine has taken up: time, were it alone here."""
        if self._process is None:
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self) -> None:
        """Until it ends by itself, as from its shell."""
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """End this machine, and no other."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._socket.close()
        self._sockets.cleanup()

    def _listen(self) -> None:
        try:
            for line in self._socket.makefile("rb"):
                self._answered(json.loads(line))
        except (OSError, ValueError) as error:
            say(f"the channel to dom0: {error!r}")
        for waiting in list(self._asked.values()):
            if not waiting.done():
                waiting.set_exception(OSError("closed"))

    def _answered(self, said: Mapping[str, Any]) -> None:
        waiting = self._asked.get(said["id"])
        if waiting is not None and not waiting.done():
            waiting.set_result(dict(said))
