"""The one file that the mini-domain's Python imports from, and what imports from it."""

import importlib
import marshal
import runpy
import sys
from pathlib import Path

import pytest

MODULES = runpy.run_path(
    str(Path(__file__).parents[2] / "tools" / "minidomain" / "modules.py"), run_name="modules"
)
SOURCES = {
    "xpb_alone": "/lib/xpb_alone.py",
    "xpb_kept": "/lib/xpb_kept/__init__.py",
    "xpb_kept.inner": "/lib/xpb_kept/inner.py",
    "xpb_mere": "",
    "xpb_mere.inner": "/lib/xpb_mere/inner.py",
    "xpb_shared": "/lib/xpb_shared.cpython-311-x86_64-linux-gnu.so",
}


def codes():
    return {
        source: marshal.dumps(compile(f"name = __name__, {source!r}", source, "exec"))
        for source in SOURCES.values()
        if source.endswith(".py")
    }


@pytest.fixture
def finder(tmp_path, monkeypatch):
    """It imports from such a file for the test's time."""
    place = tmp_path / "modules.bin"
    place.write_bytes(MODULES["packed"](SOURCES, codes()))
    finder = MODULES["Modules"](str(place))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path[:2], finder, *sys.meta_path[2:]])
    yield finder
    for name in SOURCES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", [it for it in SOURCES if SOURCES[it].endswith(".py")])
def test_each_module_is_its_own_code(finder, name):
    module = importlib.import_module(name)
    assert module.name == (name, SOURCES[name])
    assert module.__file__ == SOURCES[name]
    assert module.__spec__.loader is finder


def test_a_package_without_code_is_one(finder):
    package = importlib.import_module("xpb_mere")
    assert list(package.__path__) == []
    assert not hasattr(package, "__file__")


def test_a_shared_object_is_loaded_from_where_it_lies(finder):
    spec = finder.find_spec("xpb_shared")
    assert spec.origin == spec.loader.path == SOURCES["xpb_shared"]


def test_another_module_is_another_finders(finder):
    assert finder.find_spec("xpb_foreign") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("xpb_kept.foreign")


def test_the_order_in_which_modules_come_does_not_show():
    backwards = dict(reversed(SOURCES.items()))
    assert MODULES["packed"](backwards, codes()) == MODULES["packed"](SOURCES, codes())
