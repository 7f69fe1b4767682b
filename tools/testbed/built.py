"""All that machines are made of, built or taken from the cache, and what dom0 is given of it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tools.testbed import images, kernel
from tools.testbed.cache import HERE, WORK, command

SHARED = WORK / "shared"


class Built:
    """The images; `product` is a tree of the product that is run instead of its packages."""

    def __init__(self, product: Path | None) -> None:
        linux = kernel.Kernel()
        self.xen, self.vmlinuz = kernel.hypervisor(), linux.vmlinuz
        # Another tree takes the place of what is in the packages.
        debs = images.packages(any_build=product is not None)
        self.root = images.root_image(linux, debs)
        self.initrd = images.dom0_initrd(linux)
        self._initrds = {
            "guest-initrd": images.guest_initrd(linux),
            "driver-initrd": images.driver_initrd(linux),
            "minidomain": images.minidomain(linux, debs, product),
        }
        self._buffered = images.buffered()
        self._product = product
        self._debs = debs

    def minidomain_bytes(self) -> int:
        """The size of the mini-domain's initramfs."""
        return self._initrds["minidomain"].stat().st_size

    def share(self) -> Path:
        """The directory that dom0 sees as /host."""
        shutil.rmtree(SHARED, ignore_errors=True)
        SHARED.mkdir(parents=True)
        for name in ("inside", "config"):
            shutil.copytree(HERE / name, SHARED / name)
        shutil.copytree(images.certificates(), SHARED / "pki")
        shutil.copytree(self._debs, SHARED / "debs")
        shutil.copy(self._buffered, SHARED / "buffered.so")
        for name, initrd in self._initrds.items():
            shutil.copy(initrd, SHARED / name)
        if self._product is not None:
            _pack(self._product, SHARED / "product.tar")
        return SHARED


def _pack(product: Path, archive: Path) -> None:
    """The tree as it is, compiled, for the site-packages of dom0's Python."""
    with tempfile.TemporaryDirectory(prefix="xs-e2e-") as name:
        tree = Path(name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(product / "broker", tree / "broker", ignore=ignored)
        unchecked = ["--invalidation-mode", "unchecked-hash"]
        command(["/usr/bin/python3", "-m", "compileall", "-q", *unchecked, tree / "broker"])
        command(["tar", "-C", tree, "-cf", archive, "."])
