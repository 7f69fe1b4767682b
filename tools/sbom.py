"""Writes what the programs are made of: CycloneDX, of the wheels that the Debian package holds.

    python3 -m tools.sbom WHEELS OUT       as debian/rules does; both bills: make sbom

Versions, hashes and what needs what are those of requirements/runtime.lock; WHEELS is a directory
with the wheels that were installed by it. Each names the top of what it can be imported by, so
that the mini-domain's bill can tell which of them are in there.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from pathlib import Path

from broker import VERSION
from tools.minidomain.bill import IMPORTS, component, written

ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    # (?:via)?\s+(\S.*)$")


class Locked:
    """One package of a lock."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.hashes: set[str] = set()
        self.via: list[str] = []
        """Who needs it; `-r -` is the project itself."""

    @property
    def purl(self) -> str:
        """What it is called everywhere."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(path: Path) -> dict[str, Locked]:
    """The packages of a lock, as pip-compile writes it, by name."""
    found: dict[str, Locked] = {}
    now = Locked("", "")
    for line in path.read_text().splitlines():
        if package := _PACKAGE.match(line):
            now = found[package[1]] = Locked(package[1], package[2])
        now.hashes.update(_HASH.findall(line))
        if via := _VIA.match(line):
            now.via.append(via[1])
    return found


def wheels_by_hash(directory: Path) -> dict[str, Path]:
    """The wheels of a directory."""
    found = sorted(directory.glob("*.whl"))
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in found}


def imports(wheel: Path) -> list[str]:
    """The names, at the top of site-packages, of what a wheel puts there."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    return sorted(name for name in names if not name.endswith((".dist-info", ".data")))


def bill(lock: dict[str, Locked], wheels: dict[str, Path], version: str) -> str:
    """The bill of the programs at `version`.

    Raises:
        LookupError: a wheel that is locked is not there.
    """
    own = component(
        "application", "xen-policy-broker", version, f"pkg:generic/xen-policy-broker@{version}"
    )
    parts = []
    needs: dict[str, list[str]] = {str(own["bom-ref"]): []}
    for package in lock.values():
        there = sorted(package.hashes & wheels.keys())
        if len(there) != 1:
            raise LookupError(
                f"{package.name} {package.version}: {len(there)} wheels with its hashes"
            )
        part = component("library", package.name, package.version, package.purl, there[0])
        names = imports(wheels[there[0]])
        parts.append(part | {"properties": [{"name": IMPORTS, "value": name} for name in names]})
        needs.setdefault(package.purl, [])
        for user in package.via:
            ref = lock[user].purl if user in lock else str(own["bom-ref"])
            needs.setdefault(ref, []).append(package.purl)
    return written(own, parts, needs)


def main() -> int:
    """Write it: 0, or 1 if a wheel is missing."""
    wheels, out = map(Path, sys.argv[1:])
    try:
        text = bill(read_lock(ROOT / "requirements/runtime.lock"), wheels_by_hash(wheels), VERSION)
    except LookupError as error:
        sys.stderr.write(f"sbom: {error}\n")
        return 1
    out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
