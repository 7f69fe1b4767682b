"""Debian's kernel and hypervisor, unpacked from their packages; nothing of them is installed."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
from typing import TYPE_CHECKING

from tools.testbed.cache import artifact, command

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SETUP_SECTS, _PAYLOAD = 0x1F1, 0x248
"""Offsets in a bzImage's header: Linux's arch/x86/boot.rst, `setup_sects`, `payload_offset`."""


class Kernel:
    """Debian's kernel: `vmlinuz`, the plain `vmlinux` (which xl loads much faster), its modules."""

    def __init__(self) -> None:
        package = _current("linux-image-amd64", "Depends")
        self.place = artifact(
            "kernel", [package, _version(package)], lambda to: _kernel(to, package)
        )
        self.vmlinuz = self.place / "vmlinuz"
        self.vmlinux = self.place / "vmlinux"
        self.version = next((self.place / "lib/modules").iterdir()).name

    def modules(self, names: Iterable[str]) -> list[Path]:
        """The files of these modules and of what they need, in the order they are loaded.

        Raises:
            RuntimeError: there is no such module.
        """
        files: dict[Path, None] = {}
        for name in names:
            words = ["modprobe", "-d", self.place, "-S", self.version, "--show-depends", name]
            for line in command(words).decode().splitlines():
                if line.startswith("insmod "):
                    files[self.place / line.split()[1].removeprefix(f"{self.place}/")] = None
        return list(files)


def hypervisor() -> Path:
    """Xen itself, unpacked: the file to boot."""
    package = "xen-hypervisor-4.17-amd64"
    place = artifact("xen", [package, _version(package)], lambda to: _hypervisor(to, package))
    return place / "xen"


def _kernel(to: Path, package: str) -> None:
    _unpack(to, package)
    image = next((to / "boot").glob("vmlinuz-*"))
    image.rename(to / "vmlinuz")
    data = (to / "vmlinuz").read_bytes()
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    start = ((data[_SETUP_SECTS] or 4) + 1) * 512 + offset
    # The payload's last four bytes are its size, which a decompressor object leaves alone.
    plain = lzma.LZMADecompressor().decompress(data[start : start + length])
    (to / "vmlinux").write_bytes(plain)
    version = next((to / "lib/modules").iterdir()).name
    command(["depmod", "-b", to, version])


def _hypervisor(to: Path, package: str) -> None:
    _unpack(to, package)
    with gzip.open(next((to / "boot").glob("xen-*.gz"))) as packed, (to / "xen").open("wb") as file:
        shutil.copyfileobj(packed, file)


def _unpack(to: Path, package: str) -> None:
    command(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=to)
    for file in to.glob("*.deb"):
        command(["dpkg-deb", "-x", file, to])
        file.unlink()


def _current(package: str, field: str) -> str:
    """The package that this one stands for."""
    for line in command(["apt-cache", "depends", package]).decode().splitlines():
        if line.strip().startswith(f"{field}: "):
            return line.split()[-1]
    raise RuntimeError(f"{package}: no {field}; is `apt-get update` needed?")


def _version(package: str) -> str:
    for line in command(["apt-cache", "policy", package]).decode().splitlines():
        if "Candidate:" in line:
            return line.split()[-1]
    raise RuntimeError(f"{package}: not known to apt; is `apt-get update` needed?")
