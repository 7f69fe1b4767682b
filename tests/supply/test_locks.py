"""The locks, setup.cfg, the Makefile and what is installed here say the same."""

from __future__ import annotations

import configparser
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tools.lock import AFTER, asked_for  # noqa: E402 - only now is it found
from tools.sbom import read_lock  # noqa: E402 - the same

INSTALLED = ("runtime", "dev")
"""The locks whose packages are here whenever the tests run."""


def locked(name):
    return read_lock(ROOT / f"requirements/{name}.lock")


def required(name):
    return [Requirement(line) for line in asked_for(name).split("\n") if line.strip()]


@pytest.mark.parametrize("name", AFTER)
def test_a_lock_answers_all_that_is_asked_for_at_the_version_asked_for(name):
    answered = {}
    for other in (*AFTER[name], name):
        answered |= locked(other)
    for requirement in required(name):
        version = answered[canonicalize_name(requirement.name)].version
        assert str(requirement.specifier) == f"=={version}", requirement


@pytest.mark.parametrize("name", AFTER)
def test_nothing_is_locked_without_hashes_nor_says_where_to_get_it(name):
    text = (ROOT / f"requirements/{name}.lock").read_text()
    packages = locked(name)
    assert len(packages) == text.count("==") > 0
    assert [it.name for it in packages.values() if not it.hashes] == []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert [
        it for it in lines if not re.fullmatch(r"(\S+==\S+|    --hash=sha256:\w{64})( \\)?|", it)
    ] == []
    assert "//" not in text


def test_what_is_installed_together_has_one_version():
    seen = {}
    for name in AFTER:
        for package in locked(name).values():
            version, where = seen.setdefault(package.name, (package.version, name))
            assert package.version == version, f"{package.name} in {name} and {where}"


def test_every_lock_in_the_tree_is_one_that_is_written():
    found = {path.name for path in (ROOT / "requirements").iterdir()}
    assert found == {f"{name}.lock" for name in AFTER}


def test_every_extra_has_its_lock():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(setup["options.extras_require"]) == AFTER.keys() - {"build", "runtime"}


@pytest.mark.parametrize("name", INSTALLED)
def test_what_is_installed_is_what_is_locked(name):
    there = {package: metadata.version(package) for package in locked(name)}
    assert there == {package: it.version for package, it in locked(name).items()}


@pytest.mark.parametrize("name", INSTALLED)
def test_a_lock_is_closed(name):
    """What a locked package needs is locked: with hashes pip would refuse it otherwise."""
    packages = {}
    for other in (*AFTER[name], name):
        packages |= locked(other)
    missing = [
        (package, text)
        for package in locked(name)
        for text in metadata.requires(package) or []
        if _holds(Requirement(text)) and canonicalize_name(Requirement(text).name) not in packages
    ]
    assert missing == []


def _holds(requirement):
    """Whether it is needed here, without any extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_the_project_says_how_it_is_built_in_one_place():
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert [str(it) for it in required("build")] == tomllib.load(file)["build-system"][
            "requires"
        ]


def test_make_installs_nothing_but_by_hash_and_the_project_itself():
    text = (ROOT / "Makefile").read_text()
    lines = [
        line
        for line in text.splitlines()
        if re.search(r"\bpip\b.* install|\$\(PIP\) install", line)
    ]
    assert lines == [
        "LOCKED := $(PIP) install --no-deps --require-hashes -r requirements",
        "\t@$(PIP) install --no-deps --no-build-isolation -e .",
    ]
    for name in AFTER:
        assert text.count(f"@$(LOCKED)/{name}.lock\n") == 1


def test_the_debian_package_is_made_of_the_same_locks():
    build = (ROOT / "tools/debian/build").read_text()
    assert "for lock in runtime build; do" in build
    assert "--require-hashes" in build
    assert '-r "requirements/$lock.lock"' in build
    rules = (ROOT / "debian/rules").read_text()
    assert "--require-hashes -r requirements/runtime.lock" in rules
    assert "--no-index" in rules
