"""Writes requirements/*.lock anew: every package with its version and the hashes of its files.

    make lock

What is asked for stands in setup.cfg and pyproject.toml; pip-compile finds what that needs, for
the Python that runs it. Packages that two locks share have one version. Hashes are those of all
files of a version that the index offers, wheels and source; where it is and what it is called
stays out of the locks.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "requirements"
OPTIONS = (
    *("--quiet", "--generate-hashes", "--strip-extras", "--allow-unsafe", "--no-emit-options"),
    *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"),
)
AFTER = {
    "build": (),
    "runtime": (),
    "dev": ("build", "runtime"),
    "bench": ("build", "runtime", "dev"),
    "fuzz": ("build", "runtime", "dev"),
    "mutation": ("build", "runtime", "dev"),
}
"""Each lock, with those whose versions it keeps: what is installed together agrees."""


def asked_for(name: str) -> str:
    """The requirements that a lock answers, one a line, as they are written down."""
    if name == "build":
        with (ROOT / "pyproject.toml").open("rb") as file:
            return "\n".join(tomllib.load(file)["build-system"]["requires"])
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    if name == "runtime":
        return setup["options"]["install_requires"]
    return setup["options.extras_require"][name]


def lock(name: str) -> None:
    """Write one lock."""
    kept = [f"--constraint=requirements/{other}.lock" for other in AFTER[name]]
    words = [str(Path(sys.executable).with_name("pip-compile")), *OPTIONS, *kept]
    subprocess.run(
        [*words, f"--output-file=requirements/{name}.lock", "-"],
        cwd=ROOT,
        env=os.environ | {"CUSTOM_COMPILE_COMMAND": "make lock"},
        input=asked_for(name).encode(),
        check=True,
    )


def main() -> None:
    """Write all of them, each after those it builds on."""
    for name in AFTER:
        lock(name)
        count = (LOCKS / f"{name}.lock").read_text().count("==")
        print(f"requirements/{name}.lock: {count} packages")


if __name__ == "__main__":
    main()
