#!/usr/bin/python3.11 -B
r"""Builds the mini-domain's initramfs: brokerd with everything it imports, and nothing else.

    broker-minidomain OUT                      on a Debian host, with the package installed
    tools/minidomain/build.py --root TREE --modules TREE/lib/modules/VERSION --policy FILE \
        --pki DIR OUT

TREE is a Debian with python3.11, e2fsprogs, xen-utils-4.17 and xen-policy-broker in it. What goes
in is found by running that brokerd in it (exercise.py). The same tree, modules and policy give
the same initramfs, bit for bit. The domain that boots it:

    name = "broker"
    uuid = "56b8d9d0-f417-45de-ab20-17715a9d5aab"     # as in agent.yaml: bootstrap_devices, helper
    kernel = "/boot/vmlinuz-VERSION"                  # of the modules that were built in
    ramdisk = "OUT"
    memory = 160
    disk = [ "format=raw, vdev=xvda, access=rw, script=block-broker, target=/dev/vg0/broker" ]
    on_reboot = "restart"
    on_crash = "restart"
"""

import argparse
import ast
import hashlib
import json
import lzma
import marshal
import os
import re
import subprocess
import sys
from pathlib import Path

from contents import ContentsError, bill_of
from cpio import Archive
from modules import PLACE, packed

HERE = Path(__file__).resolve().parent
PRIVATE = "/usr/lib/xen-policy-broker"
PYTHON = f"{PRIVATE}/bin/python3"
SITE = f"{PRIVATE}/lib/python3.11/site-packages"
LIBRARY = "/usr/lib/python3.11"
LOADER = "/lib64/ld-linux-x86-64.so.2"
PROGRAMS = ("/usr/bin/python3.11", "/sbin/mke2fs", "/usr/lib/xen-4.17/bin/vchan-socket-proxy")
ETC = "/etc/xen-policy-broker"
CONSOLE = f"{SITE}/broker/console"
SPECS = "/usr/share/xen-policy-broker/protocol_specs"
FILTERS = "/usr/share/xen-policy-broker/filters"
MODULES = {
    # crc32c_generic: what ext4 asks for by an alias.
    "state": ("xen-blkfront", "crc32c_generic", "ext4"),
    "proxies": ("xen-evtchn", "xen-gntdev", "xen-gntalloc"),
}
"""The kernel's, by what needs them first."""
EARLY = ("__future__", "encodings", "encodings.aliases", "encodings.utf_8", "os", "modules")
"""What Python looks for, or imports, before there is anything but directories to import from."""
OWN = ("init", "modules")
LAZY = ("encodings.idna", "encodings.ascii", "encodings.latin_1", "encodings.unicode_escape")
"""What is looked up by a name only when some text comes to need it."""

PKI = ("broker.crt", "broker.key", "ca.crt", "revoked")
"""Of what `brokerctl pki init` makes; the authority's own key stays out."""

COMPILER = """
import ast, importlib.util, marshal, sys
documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
compiled = {}
for name, source in marshal.load(sys.stdin.buffer).items():
    tree = ast.parse(source, name)
    for node in ast.walk(tree):
        # Nobody reads a docstring in there; each would take up memory and time.
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body.pop(0)
            if not node.body:
                node.body.append(ast.copy_location(ast.Pass(), first))
    code = compile(tree, name, "exec", dont_inherit=True)
    # Checked against no source: there is none.
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    compiled[name] = head + importlib.util.source_hash(source) + marshal.dumps(code)
marshal.dump(compiled, sys.stdout.buffer)
"""
CHECKED = """
import pathlib, sys
from broker.service.specs import checked_lines
sys.stdout.write(checked_lines(pathlib.Path(sys.argv[1])))
"""
"""The descriptions are checked here: brokerd reads one in there when it is used first."""
SERVED = "import json; from broker.rpc.console import KINDS; print(json.dumps(sorted(KINDS)))"
"""What brokerd looks for in the console's directory."""
_HEADER = 16
"""Bytes before the code itself."""


class BuildError(Exception):
    """The image cannot be built; the message says why."""


class Tree:
    """The Debian that everything is taken from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.taken: dict[str, str] = {}
        """The SHA-256 of every file that was read, by its path in the tree."""

    def path(self, name: str) -> Path:
        """Where a path of the tree lies out here, its links followed as they are in there."""
        for _ in range(40):
            place = self.root / name.lstrip("/")
            for above in [*reversed(place.parents), place]:
                if above.is_symlink() and above.is_relative_to(self.root) and above != self.root:
                    target = Path("/", above.relative_to(self.root)).parent / above.readlink()
                    name = os.path.normpath(target / place.relative_to(above))
                    break
            else:
                return place
        raise BuildError(f"{name}: too many links")

    def read(self, name: str) -> bytes:
        """A file's content."""
        try:
            return self.take(self.path(name))
        except OSError as error:
            raise BuildError(f"{self.root}: {error.strerror}: {name}") from None

    def take(self, path: Path) -> bytes:
        """The content of a file out here, which is one of the tree, or of a kernel beside it."""
        data = path.read_bytes()
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        self.taken[str(Path("/", inside))] = hashlib.sha256(data).hexdigest()
        return data

    def run(self, *words: str, given: bytes = b"") -> bytes:
        """What a program of the tree says, given something on its standard input."""
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "0", "LC_ALL": "C"}
        inside = ["chroot", str(self.root), *words]
        done = subprocess.run(inside, env=clean, input=given, capture_output=True, check=False)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace")
            raise BuildError(f"{words[0]} in {self.root} ended with {done.returncode}:\n{said}")
        return done.stdout

    def compiled(self, sources: dict[str, bytes]) -> dict[str, bytes]:
        """Python sources, compiled by the tree's own Python; both by their file's name."""
        # No columns: they take up memory, and there is no source to point into.
        words = ["/usr/bin/python3.11", "-X", "no_debug_ranges", "-ISc", COMPILER]
        return dict(marshal.loads(self.run(*words, given=marshal.dumps(sources))))


def add_python(archive: Archive, tree: Tree, policy: bytes) -> list[str]:
    """All that brokerd and init import, compiled; the shared objects among it are returned."""
    exercise = (HERE / "exercise.py").read_text()
    imported: dict[str, str | None] = json.loads(
        tree.run(PYTHON, "-I", "-c", exercise, given=policy)
    )
    wanted = ",".join(["ctypes", *EARLY[:-1], *LAZY, *_imports(HERE / "init.py")])
    also = "import sys; sys.modules['_ssl'] = sys.modules['_hashlib'] = None; "
    also += (
        f"import json, sys, {wanted}; print(json.dumps("
        "{n: getattr(m, '__file__', None) for n, m in sys.modules.items()}))"
    )
    imported = json.loads(tree.run(PYTHON, "-I", "-c", also)) | imported
    # What has no file is a part of Python itself; the mere directories among it are empty.
    sources = {n: file for n, file in imported.items() if file is not None and _is_kept(file)}
    objects = sorted({file for file in sources.values() if file.endswith(".so")})
    # In an order that is always the same: in what a compiler writes, what it read before shows.
    files = sorted({file for file in sources.values() if file.endswith(".py")})
    texts = {file: tree.read(file) for file in files}
    for name in OWN:
        sources[name] = f"{LIBRARY}/{name}.py"
        texts[sources[name]] = (HERE / f"{name}.py").read_bytes()
    compiled = tree.compiled(texts)
    for name in EARLY:
        archive.file(f"{sources[name]}c", compiled[sources[name]])
    codes = {source: data[_HEADER:] for source, data in compiled.items()}
    archive.file(PLACE, packed(sources, codes))
    archive.directory(f"{LIBRARY}/lib-dynload")
    return objects


def add_objects(archive: Archive, tree: Tree, objects: list[str]) -> None:
    """Programs and shared objects, with every library they are linked to."""
    for name in objects:
        archive.file(name, tree.read(name), 0o755)
    for name in objects:
        for line in tree.run(LOADER, "--list", name).decode().splitlines():
            found = re.search(r"(/\S+) \(0x", line)
            if found and found[1] not in archive:
                archive.file(found[1], tree.read(found[1]), 0o755)


def add_modules(archive: Archive, tree: Tree, directory: Path) -> None:
    """The kernel's modules, each after those it needs, by what is written in them."""
    files = {_module_name(path): path for path in sorted(directory.rglob("*.ko*"))}
    order: list[str] = []
    begin = 0

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in order:
            return
        if name not in files:
            raise BuildError(f"{directory} has no module {name}")
        data = tree.take(files[name])
        if files[name].suffix == ".xz":
            data = lzma.decompress(data)
        needs = re.search(rb"\0depends=([^\0]*)\0", data)
        for needed in needs[1].decode().split(",") if needs else []:
            if needed:
                add(needed)
        order.append(name)
        archive.file(f"/modules/{name}.ko", data)

    for what, names in MODULES.items():
        for name in names:
            add(name)
        listed = "".join(f"{name}.ko\n" for name in order[begin:])
        archive.file(f"/modules/{what}", listed.encode())
        begin = len(order)


def add_rest(archive: Archive, tree: Tree, policy: bytes, pki: Path) -> None:
    """The first process, what it is configured with, and the places it needs."""
    archive.file("/init", (HERE / "start.py").read_bytes(), 0o755)
    archive.link("/sbin/poweroff", "/init")
    archive.link("/sbin/reboot", "/init")
    archive.device("/dev/console", 5, 1)
    for place in ("/proc", "/sys", "/run", "/state", "/tmp"):
        archive.directory(place)
    archive.file(f"{ETC}/broker.yaml", (HERE / "broker.yaml").read_bytes())
    archive.file(f"{ETC}/policy.yaml", policy)
    for name in PKI:
        archive.file(f"{ETC}/pki/{name}", (pki / name).read_bytes(), 0o600)
    for directory in (SPECS, FILTERS):
        for path in sorted(tree.path(directory).glob("*.yaml")):
            archive.file(f"{directory}/{path.name}", tree.take(path))
    archive.file(f"{SPECS}/checked", tree.run(PYTHON, "-I", "-c", CHECKED, SPECS))
    served = json.loads(tree.run(PYTHON, "-I", "-c", SERVED))
    for path in sorted(tree.path(CONSOLE).rglob("*")):
        if path.suffix in served:
            archive.file(f"{CONSOLE}/{path.relative_to(tree.path(CONSOLE))}", tree.take(path))


def build(tree: Tree, modules: Path, policy: bytes, pki: Path) -> bytes:
    """The initramfs."""
    archive = Archive()
    objects = add_python(archive, tree, policy)
    add_objects(archive, tree, [*PROGRAMS, *objects])
    add_modules(archive, tree, modules)
    add_rest(archive, tree, policy, pki)
    # zstd, since xl unpacks what is gzipped, and the domain would have to hold it twice. Beyond 9
    # it takes minutes for a tenth less.
    compress = ["zstd", "--quiet", "--stdout", "--single-thread", "-9"]
    return subprocess.run(compress, input=archive.write(), capture_output=True, check=True).stdout


def _imports(source: Path) -> list[str]:
    """The modules that a program's import statements name."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


def _is_kept(file: str) -> bool:
    return not file or (file.startswith("/usr/") and file.endswith((".py", ".so")))


def _module_name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def main() -> int:
    """Build it: 0 when it is written, 2 if it cannot be."""
    parser = argparse.ArgumentParser(
        prog="broker-minidomain", description="Build the initramfs of brokerd's own domain."
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    for name, default, about in (
        ("policy", f"{ETC}/policy.yaml", "seeds an empty state disk, and is never read again"),
        ("pki", f"{ETC}/pki", "what `brokerctl pki init` made: the broker's certificate"),
        ("modules", f"/lib/modules/{os.uname().release}", "those of the kernel that it boots"),
        ("root", "/", "the Debian that all else is taken from"),
    ):
        words = f"{about} (%(default)s)"
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", default=default, help=words)
    words = "write what went in, and which packages that is of, as a CycloneDX bill of materials"
    parser.add_argument("--sbom", type=Path, metavar="FILE", help=words)
    options = parser.parse_args()
    try:
        tree = Tree(options.root.resolve())
        data = build(tree, options.modules.resolve(), options.policy.read_bytes(), options.pki)
        if options.sbom is not None:
            options.sbom.write_text(bill_of(tree.root, tree.taken, data))
        # It holds the broker's TLS key.
        temporary = options.out.with_name(f"{options.out.name}.new")
        temporary.touch(mode=0o600)
        temporary.write_bytes(data)
        temporary.replace(options.out)
    except (BuildError, ContentsError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"broker-minidomain: {error}\n")
        return 2
    print(f"{options.out}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
