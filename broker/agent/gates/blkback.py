"""The kernel's block backend, seen and moved through sysfs: is a disk served, and by which thread.

Where there is no blkback (a test bed), there is nothing to see and nothing to take down. Facts:
drivers/block/xen-blkback/xenbus.c (bus id `vbd-<fe>-<devid>`, thread `<fe>.<dev>-<ring>`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_COMM_LENGTH: Final = 15
"""TASK_COMM_LEN without its NUL: a thread's name is cut there."""


class Blkback:
    """The block backends of this kernel; every method may raise `OSError`."""

    def __init__(self, sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> None:
        self._bus = sys / "bus" / "xen-backend"
        self._proc = proc

    def exists(self, frontend: int, device: str) -> bool:
        """Whether the kernel has this device at all."""
        return self._device(frontend, device).exists()

    def bound(self, frontend: int, device: str) -> bool:
        """Whether a driver serves it."""
        return (self._device(frontend, device) / "driver").exists()

    def serving(self, frontend: int, device: str) -> bool:
        """Whether it is bound and has taken a physical device."""
        directory = self._device(frontend, device)
        return (directory / "driver").exists() and (directory / "physical_device").exists()

    def unbind(self, frontend: int, device: str) -> None:
        """Take the driver off: rings unmapped, threads stopped, disk closed."""
        self._tell("unbind", frontend, device)

    def bind(self, frontend: int, device: str) -> None:
        """Have the driver probe it anew."""
        self._tell("bind", frontend, device)

    def threads(self, frontend: int, name: str) -> list[str]:
        """The kernel threads that still do this device's I/O; `name` is its `dev` (`xvda`)."""
        wanted = f"{frontend}.{name.removeprefix('/dev/')}-"[:_COMM_LENGTH].encode()
        # Every process is looked at, and the agent waits for it: so without any ceremony.
        with os.scandir(self._proc) as entries:
            names = [_comm(f"{entry.path}/comm") for entry in entries if entry.name.isdigit()]
        return [comm.decode("ascii", "replace") for comm in names if comm.startswith(wanted)]

    def _device(self, frontend: int, device: str) -> Path:
        return self._bus / "devices" / f"vbd-{frontend}-{device}"

    def _tell(self, word: str, frontend: int, device: str) -> None:
        path = self._bus / "drivers" / "vbd" / word
        with path.open("w", encoding="ascii") as file:
            file.write(f"vbd-{frontend}-{device}")


def _comm(path: str) -> bytes:
    """A thread's name; empty if there is none, or it ended while we looked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 64).rstrip(b"\n")
    except OSError:
        return b""
    finally:
        os.close(descriptor)
