"""First process of the mini-domain: mounts, the state's disk, brokerd, the proxies into it.

It takes nothing from the kernel's command line and nothing from xenstore. The disk is `xvda`: one
whose first MiB is all zeroes is new, and is formatted; on one without a state brokerd makes one,
seeded by the image's policy. In all other cases what is on the disk holds, or brokerd refuses.
The kernel calls /sbin/poweroff and /sbin/reboot when the toolstack asks for it: those are this
file too, and tell the first process.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import sys
import time
import traceback
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DISK = Path("/dev/xvda")
STATE = "/state"
BROKER = Path(STATE, "broker")
MODULES = Path("/modules")
CONFIG = "/etc/xen-policy-broker/broker.yaml"
VCHAN_SOCKET = Path("/run/xen-policy-broker/vchan.sock")
PROXY = "/usr/lib/xen-4.17/bin/vchan-socket-proxy"
PROXIES = 8
"""One connection each: data/vchan/0 .. 7 in this domain's own xenstore directory."""
REFUSALS = (0, 1, 2)
"""brokerd's statuses that another start does not mend: stopped, state refused, bad input."""

FINIT_MODULE = 313
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
ENDINGS = {signal.SIGTERM: 0x4321FEDC, signal.SIGINT: 0x01234567}
"""reboot(2)'s words for power off and restart, by the signal that asks for them."""

libc = ctypes.CDLL(None, use_errno=True)


def say(text: str) -> None:
    """A line on the console, with the seconds since the kernel began."""
    sys.stderr.write(f"init: {time.clock_gettime(time.CLOCK_BOOTTIME):.1f} s: {text}\n")


def check(result: int, what: str) -> None:
    """Raise OSError if a call of libc's failed."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system at a directory that is made first."""
    Path(target).mkdir(mode=0o755, parents=True, exist_ok=True)
    words = [source, target, kind]
    encoded = [word.encode() for word in words]
    check(libc.mount(*encoded, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def load_modules(what: str) -> None:
    """The kernel modules that something needs, in the image's order."""
    for name in (MODULES / what).read_text().split():
        with (MODULES / name).open("rb") as file:
            check(libc.syscall(FINIT_MODULE, file.fileno(), b"", 0), f"module {name}")
        (MODULES / name).unlink()  # it would only take up memory


def wait_for(path: Path, seconds: float) -> bool:
    """Whether it is there, at the latest after so long."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def spawn(arguments: list[str]) -> int:
    """Start a program with the signals as they were and nothing in its environment."""
    default = [signal.SIGTERM, signal.SIGINT]
    return os.posix_spawn(arguments[0], arguments, {}, setsigdef=default)


def prepare_state() -> None:
    """Have the state's disk at /state; a new one is formatted first."""
    if not wait_for(DISK, 60):
        say(
            f"no disk {DISK} so far: is it in the domain's configuration, is dom0's agent running, "
            "and does it list it as a bootstrap device?"
        )
        wait_for(DISK, math.inf)
    with DISK.open("rb") as disk:
        new = not disk.read(1 << 20).strip(b"\0")
    if new:
        say(f"{DISK} is empty: formatting it")
        status = os.waitpid(spawn(["/sbin/mke2fs", "-q", "-t", "ext4", "-m", "0", str(DISK)]), 0)[1]
        if status:
            raise OSError(f"mke2fs {DISK} ended with status {status}")
    mount(str(DISK), STATE, "ext4", MS_NOSUID | MS_NODEV | MS_NOEXEC, "errors=panic")


def start_brokerd() -> int:
    """Its process; it makes a state where there never was one."""
    say("starting brokerd")
    arguments = ["--config", CONFIG]
    if not BROKER.exists():
        arguments.append("--init")
    # Forked rather than executed: this Python has started already.
    child = os.fork()
    if child == 0:
        be_brokerd(arguments)
    return child


def be_brokerd(arguments: list[str]) -> None:
    """Run brokerd in this process, which is no longer the first."""
    status = 1
    try:
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_DFL)
        status = brokerds_main()(arguments)
    except BaseException:  # noqa: BLE001 - nothing may let this process go on as the first one
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def brokerds_main() -> Callable[[list[str]], int]:
    """Brokerd's main function, imported here: the first process has no use for it."""
    # Nothing of what a start makes is garbage; brokerd sets when to look for some.
    gc.disable()
    # Twisted's TCP would bring all of TLS along, which brokerd needs later and elsewhere.
    sys.modules["OpenSSL"] = None
    import twisted.internet.reactor  # noqa: F401, PLC0415 - as said

    del sys.modules["OpenSSL"]
    from broker.service.main import main  # noqa: PLC0415 - as said

    return main


def wait_until_served(brokerd: int) -> None:
    """Until brokerd listens to the proxies, which is after all else of its start, or has ended.

    It is seldom looked at: the processor is brokerd's.
    """
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not VCHAN_SOCKET.exists() and os.waitid(os.P_PID, brokerd, ended) is None:
        time.sleep(0.25)


def show_key() -> None:
    """The public key, on the console: dom0 takes it from there to its agents."""
    key = BROKER / "broker.pub"
    if key.exists():
        sys.stderr.write(key.read_text())


def show_memory() -> None:
    """How much there is and how much is left, on the console."""
    lines = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    figures = {words[0]: int(words[1]) >> 10 for words in lines}
    say(f"memory: {figures['MemAvailable:']} of {figures['MemTotal:']} MiB available")


def run() -> None:
    """Keep brokerd and the proxies running until brokerd ends for good."""
    brokerd = start_brokerd()
    for ending in ENDINGS:
        signal.signal(ending, lambda asked, _frame: stop(brokerd, signal.Signals(asked)))
    wait_until_served(brokerd)
    show_key()
    load_modules("proxies")
    proxies = {}
    for number in range(PROXIES):
        words = [PROXY, "-m", "server", "0", f"data/vchan/{number}", str(VCHAN_SOCKET)]
        proxies[spawn(words)] = words
    show_memory()
    while True:
        ended, status = os.wait()
        if ended == brokerd:
            code = os.waitstatus_to_exitcode(status)
            say(f"brokerd ended with status {code}")
            if code in REFUSALS:
                return
            time.sleep(1)
            brokerd = start_brokerd()
        elif ended in proxies:
            words = proxies.pop(ended)
            time.sleep(0.1)
            proxies[spawn(words)] = words


def stop(brokerd: int, asked: signal.Signals) -> None:
    """Let brokerd finish, then end or restart the domain."""
    try:
        os.kill(brokerd, signal.SIGTERM)
        os.waitpid(brokerd, 0)
    except OSError as error:
        say(f"brokerd: {error}")
    end(asked)


def end(asked: signal.Signals) -> None:
    """Have everything on the disk, and leave."""
    os.sync()
    libc.umount2(STATE.encode(), 0)
    libc.reboot(ctypes.c_int(ENDINGS[asked]))


def main() -> None:
    """PID 1's life; as /sbin/poweroff and /sbin/reboot, the word to PID 1."""
    if os.getpid() != 1:
        os.kill(1, signal.SIGINT if sys.argv[0].endswith("reboot") else signal.SIGTERM)
        return
    try:
        plain = MS_NOSUID | MS_NODEV | MS_NOEXEC
        mount("proc", "/proc", "proc", plain)
        mount("sys", "/sys", "sysfs", plain)
        mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC)
        mount("run", "/run", "tmpfs", plain, "mode=755,size=4m")
        load_modules("state")
        say("waiting for the state's disk")
        prepare_state()
        run()
    except OSError as error:
        say(str(error))
    say("the domain ends; every gate stays as it is")
    end(signal.SIGTERM)
