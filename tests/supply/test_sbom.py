"""The bills of materials are valid, complete, the same each time, and of what is locked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import cyclonedx.schema
import jsonschema_rs
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/minidomain")]

from contents import RUNTIME, SITE, ContentsError, bill_of  # noqa: E402 - only now is it found

from tools.sbom import bill, read_lock, wheels_by_hash  # noqa: E402 - the same

SCHEMAS = Path(cyclonedx.schema.__file__).parent / "_res"
LOCK = read_lock(ROOT / "requirements/runtime.lock")


def validator():
    texts = {
        f"http://cyclonedx.org/schema/{path.name}": json.loads(path.read_text())
        for path in SCHEMAS.glob("*.SNAPSHOT.schema.json")
    }
    schema = texts["http://cyclonedx.org/schema/bom-1.6.SNAPSHOT.schema.json"]
    return jsonschema_rs.validator_for(schema, registry=jsonschema_rs.Registry(texts.items()))


def stand_ins():
    """A wheel for each package of the lock: its hash is one of those that are locked."""
    return {min(it.hashes): Path(f"{it.name}.whl") for it in LOCK.values()}


@pytest.fixture(autouse=True)
def _no_wheel_is_opened(monkeypatch):
    monkeypatch.setattr("tools.sbom.imports", lambda wheel: [wheel.stem])


@pytest.fixture
def runtime():
    return bill(LOCK, stand_ins(), "1.2")


def test_the_programs_bill_names_exactly_what_is_locked_with_a_hash_that_is_locked(runtime):
    parts = json.loads(runtime)["components"]
    assert {it["name"]: it["version"] for it in parts} == {n: it.version for n, it in LOCK.items()}
    for part in parts:
        [found] = part["hashes"]
        assert found["alg"] == "SHA-256"
        assert found["content"] in LOCK[part["name"]].hashes
    validator().validate(json.loads(runtime))


def test_the_programs_bill_says_what_needs_what(runtime):
    needs = {it["ref"]: it["dependsOn"] for it in json.loads(runtime)["dependencies"]}
    own = needs["pkg:generic/xen-policy-broker@1.2"]
    assert LOCK["twisted"].purl in own
    assert LOCK["automat"].purl not in own
    assert LOCK["automat"].purl in needs[LOCK["twisted"].purl]
    assert {ref for refs in needs.values() for ref in refs} == {it.purl for it in LOCK.values()}


def test_a_bill_is_the_same_each_time(runtime):
    assert bill(LOCK, dict(reversed(stand_ins().items())), "1.2") == runtime
    assert "timestamp" not in runtime
    assert "serialNumber" not in runtime


def test_a_wheel_that_is_missing_or_another_makes_no_bill():
    wheels = stand_ins()
    wheels.pop(min(LOCK["pyxs"].hashes))
    with pytest.raises(LookupError, match=r"pyxs 0.4.1: 0 wheels with its hashes"):
        bill(LOCK, wheels | {"0" * 64: Path("pyxs.whl")}, "1.2")


def test_wheels_are_known_by_their_content(tmp_path):
    wheel = tmp_path / "some-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("some/inner/code.py", "")
    assert wheels_by_hash(tmp_path) == {hashlib.sha256(wheel.read_bytes()).hexdigest(): wheel}


@pytest.fixture
def tree(tmp_path, runtime):
    """A Debian with two packages, one of them from before /usr was merged, and the product."""
    known = tmp_path / "var/lib/dpkg"
    (known / "info").mkdir(parents=True)
    text = ""
    for name, files in (("libc6", "/lib/x/libc.so.6"), ("python3.11", "/usr/bin/python3.11")):
        text += f"Package: {name}\nStatus: install ok installed\nMaintainer: a\nVersion: 2:2+b1\n"
        text += "Architecture: amd64\nDescription: some\n\n"
        (known / f"info/{name}.list").write_text(f"/.\n{files}\n")
    (known / "status").write_text(text)
    (tmp_path / RUNTIME).parent.mkdir(parents=True)
    (tmp_path / RUNTIME).write_text(runtime)
    return tmp_path


def taken(*more):
    names = ("/usr/lib/x/libc.so.6", "/usr/bin/python3.11", f"{SITE}broker/a.py", *more)
    return {name: hashlib.sha256(name.encode()).hexdigest() for name in names}


def test_an_images_bill_names_the_packages_of_its_files_and_no_others(tree):
    text = bill_of(tree, taken(f"{SITE}pyxs/client.py"), b"image")
    found = json.loads(text)
    versions = {it["name"]: it["version"] for it in found["components"]}
    assert versions == {
        "libc6": "2:2+b1",
        "python3.11": "2:2+b1",
        "pyxs": "0.4.1",
        "xen-policy-broker": "1.2",
    }
    assert "pkg:deb/debian/libc6@2:2%2Bb1?arch=amd64" in {it["purl"] for it in found["components"]}
    image = found["metadata"]["component"]
    assert image["hashes"][0]["content"] == hashlib.sha256(b"image").hexdigest()
    files = {
        it["name"]: it["hashes"][0]["content"]
        for c in found["components"]
        for it in c.get("components", ())
    }
    assert files == taken()
    validator().validate(found)
    assert bill_of(tree, dict(reversed(taken(f"{SITE}pyxs/client.py").items())), b"image") == text


@pytest.mark.parametrize("name", ["/usr/bin/unknown", f"{SITE}foreign/a.py"])
def test_a_file_of_no_package_makes_no_bill(tree, name):
    with pytest.raises(ContentsError, match="package"):
        bill_of(tree, taken(name), b"")


def test_without_the_products_bill_there_is_none(tree):
    (tree / RUNTIME).unlink()
    with pytest.raises(ContentsError, match="reinstall the package"):
        bill_of(tree, taken(), b"")


def test_without_debians_database_there_is_none(tree):
    (tree / "var/lib/dpkg/info/libc6.list").unlink()
    with pytest.raises(ContentsError, match=r"no package has /usr/lib/x/libc\.so\.6"):
        bill_of(tree, taken(), b"")


def test_the_mini_domains_builder_is_installed_with_all_that_it_imports():
    shipped = (ROOT / "debian/xen-policy-broker.install").read_text()
    for module in ("bill", "contents"):
        assert f"tools/minidomain/{module}.py usr/share/xen-policy-broker/minidomain\n" in shipped
    done = subprocess.run(
        [sys.executable, "-B", ROOT / "tools/minidomain/build.py", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--sbom" in done.stdout
