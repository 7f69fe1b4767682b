"""A bill of materials: CycloneDX 1.6 as JSON, the same whenever the same goes in.

It has neither a time nor a serial number: both would differ each time.
"""

from __future__ import annotations

import json

IMPORTS = "xen-policy-broker:imports"
"""A property: a name at the top of site-packages that a package puts there."""


def component(
    kind: str, name: str, version: str = "", purl: str = "", sha256: str = ""
) -> dict[str, object]:
    """One part: what it is (as CycloneDX names kinds), its name, version, place and hash."""
    found: dict[str, object] = {"type": kind, "bom-ref": purl or name, "name": name}
    if version:
        found["version"] = version
    if purl:
        found["purl"] = purl
    if sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return found


def files(taken: dict[str, str], within: str) -> list[dict[str, object]]:
    """Files with their hashes, as parts of a package."""
    parts = [component("file", name, sha256=sha256) for name, sha256 in sorted(taken.items())]
    return [part | {"bom-ref": f"{within}#{part['name']}"} for part in parts]


def written(
    root: dict[str, object],
    components: list[dict[str, object]],
    needs: dict[str, list[str]],
) -> str:
    """The document: what it is of, its parts, and which needs which, by their `bom-ref`."""
    depends = [{"ref": ref, "dependsOn": sorted(them)} for ref, them in sorted(needs.items())]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": sorted(components, key=lambda part: str(part["bom-ref"])),
        "dependencies": depends,
    }
    return json.dumps(bill, indent=1) + "\n"
