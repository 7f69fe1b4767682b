"""Mutates one file of broker/core or broker/protocol, and tells which mutants no test noticed.

    make mutation ONLY=broker/core/record.py       minutes: one or a few mutants a second

Exit 1 if fewer than 95 of 100 were noticed. A mutant by its name:
    cd build/mutation/broker.core.record && ../../../.venv/bin/mutmut show NAME
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build/mutation"
COPIED = ("broker", "tests", "etc", "protocol_specs", "tools", "docs", "debian")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "Makefile")
WANTED = 0.95
TESTS = {
    "core": (
        "tests/core",
        "tests/policy/test_policy_cases.py",
        "tests/policy/test_acm_pitfalls.py",
    ),
    "protocol": (
        "tests/protocol/test_monitor.py",
        "tests/protocol/test_mutations.py",
        "tests/protocol/test_protocol_cases.py",
        "tests/protocol/test_protocol_load.py",
        "tests/protocol/test_ring_check.py",
        "tests/protocol/test_ring_rules.py",
        "tests/protocol/test_spec_check.py",
    ),
}
"""What is quick, by room, for a file that has no tests under its own name."""


def configuration(file: str, tests: tuple[str, ...]) -> str:
    """What mutmut reads, after what the tests themselves do."""
    settings = {
        "source_paths": ["broker"],
        "only_mutate": [file],
        "also_copy": [*COPIED[2:], *FILES[2:]],
        "pytest_add_cli_args": ["-p", "tools.mutation.fast", "-p", "no:twisted", "--noconftest"],
        "pytest_add_cli_args_test_selection": list(tests),
        "use_git_change_detection": ["false"],
    }
    lines = ["\n[mutmut]\n"]
    for name, values in settings.items():
        lines += [f"{name}=\n", *(f"    {value}\n" for value in values)]
    return "".join(lines).replace("use_git_change_detection=\n    ", "use_git_change_detection=")


def prepare(file: str) -> Path:
    """A directory in which mutmut works on this file, as the tree is now."""
    place = WORK / file.removesuffix(".py").replace("/", ".")
    shutil.rmtree(place, ignore_errors=True)  # mutmut would keep what older tests let pass
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, place / name, ignore=ignored, symlinks=True)
    for name in FILES:
        shutil.copy(ROOT / name, place / name)
    room, name = file.split("/")[1:]
    own = f"tests/{room}/test_{name}"
    tests = (own,) if (ROOT / own).exists() else TESTS[room]
    with (place / "setup.cfg").open("a") as out:
        out.write(configuration(file, tests))
    return place


def mutmut(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it there."""
    program = Path(sys.executable).with_name("mutmut")
    capture = subprocess.PIPE if words[0] == "results" else None
    return subprocess.run(
        [program, *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)},
        stdout=capture,
        text=True,
        check=False,
    )


def outcomes(place: Path) -> dict[str, str]:
    """What became of each mutant, by its name."""
    lines = mutmut(place, "results", "--all", "true").stdout.splitlines()
    pairs = (line.strip().split(": ", 1) for line in lines if ": " in line)
    return {name: outcome for name, outcome in pairs if "__mutmut_" in name}


def main() -> int:
    """One file: 0 if enough was noticed, 2 if nothing could be run."""
    file = sys.argv[1]
    place = prepare(file)
    done = mutmut(place, "run", "--max-children", "1")
    found = outcomes(place)
    if done.returncode or not found:
        sys.stderr.write(f"mutation: mutmut ended with {done.returncode} on {file}\n")
        return 2
    counts = Counter(found.values())
    noticed = counts["killed"] + counts["timeout"]
    for name, outcome in sorted(found.items()):
        if outcome not in {"killed", "timeout"}:
            print(f"{name}: {outcome}")
    print(f"{file}: {noticed} of {len(found)} noticed ({100 * noticed / len(found):.1f} %)")
    return 0 if noticed >= WANTED * len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
