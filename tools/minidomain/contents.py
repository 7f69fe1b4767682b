"""Which packages an image's files are of: its bill of materials.

Debian's are asked of the tree's own database; Python's are those of the product's bill, which its
package holds. What the operator gives (policy, certificate) and init itself are not listed. A file
that no package owns ends it: a bill with holes would say that there are none.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote

from bill import IMPORTS, component, files, written

if TYPE_CHECKING:
    from pathlib import Path

SITE = "/usr/lib/xen-policy-broker/lib/python3.11/site-packages/"
OWN = (f"{SITE}broker/", "/usr/share/xen-policy-broker/")
RUNTIME = "usr/share/xen-policy-broker/sbom.cdx.json"
_FIELDS = "${binary:Package}\t${Package}\t${Version}\t${Architecture}\n"
Bill = dict[str, object]


class ContentsError(Exception):
    """It cannot be said where something in the image is from; the message says what."""


def bill_of(root: Path, taken: dict[str, str], image: bytes) -> str:
    """The bill of an image, of the files taken from the Debian at `root`, by path, with hashes.

    Raises:
        ContentsError: a file is of no package, or Debian's database or the product's bill is not
            there.
    """
    try:
        runtime = json.loads((root / RUNTIME).read_text())
    except OSError as error:
        raise ContentsError(f"{error.filename}: {error.strerror}: reinstall the package") from None
    product = runtime["metadata"]["component"]
    own = {name: sha256 for name, sha256 in taken.items() if name.startswith(OWN)}
    python = {name for name in taken if name.startswith(SITE)} - own.keys()
    debian = {n: sha256 for n, sha256 in taken.items() if n not in own and n not in python}
    wheels = _wheels(runtime["components"], {name.removeprefix(SITE) for name in python})
    packages = _packages(root, debian)
    parts = [product | {"components": files(own, product["bom-ref"])}, *wheels, *packages]
    whole = component("firmware", "xen-policy-broker-minidomain", product["version"])
    whole["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(image).hexdigest()}]
    refs = [str(part["bom-ref"]) for part in parts]
    return written(whole, parts, {str(whole["bom-ref"]): refs})


def _wheels(components: list[Bill], names: set[str]) -> list[Bill]:
    """Those of the product's bill that files of site-packages are of."""
    owner = {
        entry["value"]: number
        for number, part in enumerate(components)
        for entry in part["properties"]
        if entry["name"] == IMPORTS
    }
    tops = {name: name.partition("/")[0] for name in names}
    foreign = sorted(name for name, top in tops.items() if top not in owner)
    if foreign:
        raise ContentsError(f"no package of the product's bill has {foreign[0]}")
    return [components[number] for number in sorted({owner[top] for top in tops.values()})]


def _packages(root: Path, taken: dict[str, str]) -> list[Bill]:
    """Debian's packages that files are of, each with those of its files."""
    # Files are found where they lie; Debian knows some by the names from before /usr was merged.
    known = {name: name for name in taken}
    known |= {name.removeprefix("/usr"): name for name in taken if name.startswith("/usr/lib")}
    known |= {name.removeprefix("/usr"): name for name in taken if name.startswith("/usr/sbin")}
    owned: dict[str, dict[str, str]] = {}
    for line in _dpkg_query(root, "--search", *sorted(known)):
        package, colon, name = line.rpartition(": ")
        if colon and name in known and not package.startswith("diversion by "):
            place = known[name]
            owned.setdefault(package, {})[place] = taken[place]
    lost = sorted(taken.keys() - {name for names in owned.values() for name in names})
    if lost:
        raise ContentsError(f"{root}: no package has {lost[0]}")
    parts = []
    for line in _dpkg_query(root, f"--showformat={_FIELDS}", "--show", *sorted(owned)):
        which, package, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{quote(package)}@{quote(version, safe=':')}?arch={architecture}"
        part = component("library", package, version, purl)
        held = owned.get(which) or owned[package]
        parts.append(part | {"components": files(held, purl)})
    return parts


def _dpkg_query(root: Path, *words: str) -> list[str]:
    """The lines that it says; of names it does not know it complains, and goes on."""
    command = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise ContentsError(f"dpkg-query: {done.stderr.strip()}")
    return done.stdout.splitlines()
