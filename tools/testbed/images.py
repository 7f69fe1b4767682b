"""What is booted: dom0's root and initial file systems, the guests' initramfs."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.testbed.cache import CACHE, HERE, ROOT, artifact, command

if TYPE_CHECKING:
    from tools.testbed.kernel import Kernel

INSIDE = HERE / "inside"
_MINIDOMAIN = ROOT / "tools/minidomain"
_PACKAGES = [
    *("mawk", "mount", "xen-utils-4.17", "xenstore-utils", "python3", "libnftables1", "conntrack"),
    *("iproute2", "kmod", "procps", "iputils-ping", "util-linux", "busybox-static", "nftables"),
    *("e2fsprogs", "zstd", "qemu-system-xen"),
]
_DOM0_MODULES = [
    *("xenfs", "xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-netback"),
    *("xen-blkback", "loop", "bridge", "veth", "virtio_console", "9p", "9pnet_virtio", "ext4"),
    # What the mini-domain is built from, on a host.
    *("xen-blkfront", "crc32c_generic"),
]
_DOM0_TREES = ("kernel/net/bridge", "kernel/net/netfilter", "kernel/net/ipv4", "kernel/net/ipv6")
_INITRD_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "9p", "9pnet_virtio")
_GUEST_MODULES = ("xen-netfront", "xen-blkfront")
_DRIVER_MODULES = ("xen-blkfront", "ext4", "crc32c_generic")
_PEOPLE = {"tester": "tester", "ann": "officer", "bob": "officer", "olga": "operator"}
"""Who has which role of the test bed's policy; tester is who scenarios call as."""
_GUEST_PROGRAMS = ("listen", "send", "misbehave")
_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


def root_image(kernel: Kernel, debs: Path) -> Path:
    """dom0's root file system: Debian's packages, the kernel's modules, the product's packages."""
    debian = _debian_root()

    def build(to: Path) -> None:
        root = _unpacked(debian, to / "root")
        _finish_root(root)
        _copy_modules(kernel, root)
        shutil.copy(kernel.vmlinux, root / "boot/vmlinux")
        shutil.copy(kernel.vmlinuz, root / f"boot/vmlinuz-{kernel.version}")
        _install(root, debs)
        options = ["-q", "-t", "ext4", "-O", "^has_journal", "-d", root]
        command(["mke2fs", *options, to / "root.ext4", "900M"])
        shutil.rmtree(root)

    modules = " ".join(_DOM0_MODULES)
    inputs = [debian.name, debs.name, kernel.version, modules, HERE / "images.py"]
    return artifact("dom0-root", inputs, build) / "root.ext4"


def certificates() -> Path:
    """An authority's, the broker's and people's; made anew each month, since they end."""

    def build(to: Path) -> None:
        brokerctl = ROOT / ".venv/bin/brokerctl"
        command([brokerctl, "pki", "init", "--dir", to])
        for name, role in _PEOPLE.items():
            command([brokerctl, "pki", "issue", "--dir", to, f"--role={role}", "--days=60", name])

    people = " ".join(f"{name}:{role}" for name, role in _PEOPLE.items())
    return artifact("certificates", [time.strftime("%Y-%m"), people], build)


def minidomain(kernel: Kernel, debs: Path, product: Path | None) -> Path:
    """The mini-domain's initramfs, of the product's package, or of another tree in its place."""
    debian, pki, policy = _debian_root(), certificates(), HERE / "config/policy.yaml"

    def build(to: Path) -> None:
        root = _unpacked(debian, to / "root")
        command(["dpkg-deb", "--extract", *debs.glob("xen-policy-broker_*.deb"), root])
        if product is not None:
            site = root / "usr/lib/xen-policy-broker/lib/python3.11/site-packages"
            # Not beside it: what is compiled there is not checked against its source.
            shutil.rmtree(site / "broker")
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(product / "broker", site / "broker", ignore=ignored)
        command(["ldconfig", "-r", root])
        modules = kernel.place / "lib/modules" / kernel.version
        words = [f"--root={root}", f"--modules={modules}", f"--policy={policy}", f"--pki={pki}"]
        command([sys.executable, "-B", _MINIDOMAIN / "build.py", *words, to / "initrd"])
        shutil.rmtree(root)

    trees = [] if product is None else [product / "broker"]
    inputs = [debian.name, debs.name, pki.name, kernel.version, policy, _MINIDOMAIN, *trees]
    return artifact("minidomain", inputs, build) / "initrd"


def dom0_initrd(kernel: Kernel) -> Path:
    """What finds dom0's root file system."""
    return _initramfs("dom0-initrd", kernel, _INITRD_MODULES, INSIDE / "dom0-initrd", {})


def guest_initrd(kernel: Kernel) -> Path:
    """A guest: busybox, the two frontends, a loop that runs what the console asks."""
    sources = [INSIDE / f"{name}.c" for name in _GUEST_PROGRAMS]
    place = artifact("guest-programs", sources, _guest_programs)
    programs = {f"bin/{name}": place / name for name in _GUEST_PROGRAMS}
    return _initramfs("guest-initrd", kernel, _GUEST_MODULES, INSIDE / "guest-init", programs)


def driver_initrd(kernel: Kernel) -> Path:
    """What finds a driver domain's root file system, which is another copy of dom0's."""
    files = {"bin/driver": INSIDE / "driver"}
    return _initramfs("driver-initrd", kernel, _DRIVER_MODULES, INSIDE / "driver-initrd", files)


def buffered() -> Path:
    """What has xenstored write its trace a buffer at a time."""

    def build(to: Path) -> None:
        options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-s"]
        command(["gcc", *options, "-o", to / "buffered.so", INSIDE / "buffered.c"])

    return artifact("buffered", [INSIDE / "buffered.c"], build) / "buffered.so"


def _guest_programs(to: Path) -> None:
    for name in _GUEST_PROGRAMS:
        options = ["-O1", "-Wall", "-Werror", "-static", "-s"]
        command(["gcc", *options, "-o", to / name, INSIDE / f"{name}.c"])


def _debian_root() -> Path:
    return artifact("dom0-packages", [*_PACKAGES], _debian)


def _unpacked(debian: Path, root: Path) -> Path:
    root.mkdir()
    command(["tar", "-C", root, "-xf", debian / "root.tar"])
    return root


def _debian(to: Path) -> None:
    sources = next((path for path in _SOURCES if path.exists()), None)
    words: list[str | Path] = [
        "mmdebstrap",
        "--mode=root",
        "--variant=extract",
        "--include=?essential",
    ]
    words += [f"--include={','.join(_PACKAGES)}", "bookworm", to / "root.tar"]
    command([*words, *([] if sources is None else [sources])])


def packages(*, any_build: bool = False) -> Path:
    """The product's Debian packages, as `make deb` builds them; with `any_build` older ones too."""
    built = sorted(CACHE.glob("product-????????????"))
    if any_build and built:
        return built[-1]
    trees = ("broker", "debian", "etc", "protocol_specs", "tools/debian")
    inputs = [*(ROOT / tree for tree in trees), ROOT / "setup.cfg", ROOT / "pyproject.toml"]

    def build(to: Path) -> None:
        command([ROOT / "tools/setup-debian", "deb"])
        command([ROOT / "tools/debian/build"])
        for package in (ROOT / "build").glob("*.deb"):
            shutil.copy(package, to)

    return artifact("product", inputs, build)


def _install(root: Path, debs: Path) -> None:
    """The packages, by dpkg; it knows of no others, for the root was only unpacked."""
    place = root / "tmp/debs"
    shutil.copytree(debs, place)
    names = [f"/tmp/debs/{path.name}" for path in sorted(place.iterdir())]
    command(["chroot", root, "dpkg", "--install", "--force-depends", *names])
    shutil.rmtree(place)


def _finish_root(root: Path) -> None:
    """What the packages' postinst scripts would have done, as far as it matters here."""
    etc = root / "etc"
    for place in ("host", "results"):
        (root / place).mkdir()
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n"
    )
    (etc / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (etc / "hostname").write_text("dom0\n")
    (etc / "hosts").write_text("127.0.0.1 localhost dom0\n")
    links = {"usr/bin/awk": "mawk", "dev/fd": "/proc/self/fd", "dev/stdin": "/proc/self/fd/0"}
    for name, target in links.items():
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
    for name in ("run", "lock"):
        place = root / "var" / name
        shutil.rmtree(place, ignore_errors=True)
        place.symlink_to("/run" if name == "run" else "/run/lock")
    command(["ldconfig", "-r", root])
    shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
    shutil.rmtree(root / "usr/share/man", ignore_errors=True)
    compiled = ["-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    command(["chroot", root, "/usr/bin/python3.11", *compiled, "/usr/lib/python3.11"])


def _copy_modules(kernel: Kernel, root: Path) -> None:
    top = kernel.place / "lib/modules" / kernel.version
    wanted = set(kernel.modules(_DOM0_MODULES))
    for tree in _DOM0_TREES:
        wanted |= set((top / tree).rglob("*.ko"))
    names = [path.stem for path in sorted(wanted)]
    wanted |= set(kernel.modules(names))
    for path in wanted:
        target = root / path.relative_to(kernel.place)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(top / name, root / "lib/modules" / kernel.version / name)
    command(["depmod", "-b", root, kernel.version])


def _initramfs(
    name: str, kernel: Kernel, modules: tuple[str, ...], init: Path, extra: dict[str, Path]
) -> Path:
    def build(to: Path) -> None:
        tree = to / "tree"
        for directory in ("bin", "dev", "proc", "sys", "run", "tmp", "modules", "root"):
            (tree / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        files = kernel.modules(modules)
        for path in files:
            shutil.copy(path, tree / "modules" / path.name)
        (tree / "modules/order").write_text("".join(f"{path.name}\n" for path in files))
        for place, source in extra.items():
            shutil.copy(source, tree / place)
        shutil.copy(init, tree / "init")
        (tree / "init").chmod(0o755)
        names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        archive = command(
            ["busybox", "cpio", "-o", "-H", "newc"], cwd=tree, stdin=f"{names}\n".encode()
        )
        (to / "initrd").write_bytes(command(["gzip", "-n", "-1"], stdin=archive))
        shutil.rmtree(tree)

    inputs = [kernel.version, " ".join(modules), init, *extra.values(), HERE / "images.py"]
    return artifact(name, inputs, build) / "initrd"
