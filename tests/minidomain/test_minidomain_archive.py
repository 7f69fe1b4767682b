"""The mini-domain's initramfs as a file; `make minidomain` checks the whole of it."""

import runpy
import stat
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "minidomain"
Archive = runpy.run_path(str(TOOLS / "cpio.py"))["Archive"]


def entries(text):
    """Name, mode, numbers and content of each entry, by the format's own description."""
    found, at = [], 0
    while True:
        assert text[at : at + 6] == b"070701"
        fields = [int(text[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = text[at + 110 : at + 110 + fields[11] - 1].decode()
        start = at + 110 + fields[11]
        start += -start % 4
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], fields, text[start : start + fields[6]]))
        at = start + fields[6]
        at += -at % 4


def filled(order):
    archive = Archive()
    for name in order:
        archive.file(f"/usr/lib/{name}", name.encode(), 0o755)
    archive.link("/sbin/reboot", "/init")
    archive.device("/dev/console", 5, 1)
    return archive


def test_the_order_in_which_files_come_does_not_show():
    assert filled(["b", "a", "c"]).write() == filled(["c", "b", "a"]).write()


def test_what_is_written_is_roots_and_has_no_time():
    found = {
        name: (mode, fields, data) for name, mode, fields, data in entries(filled("a").write())
    }
    assert list(found) == [
        "dev",
        "dev/console",
        "sbin",
        "sbin/reboot",
        "usr",
        "usr/lib",
        "usr/lib/a",
    ]
    assert all(fields[2:4] == [0, 0] and fields[5] == 0 for _, fields, _ in found.values())
    assert found["usr/lib/a"][0] == stat.S_IFREG | 0o755
    assert found["usr/lib/a"][2] == b"a"
    assert found["sbin/reboot"][2] == b"/init"
    assert found["dev/console"][0] == stat.S_IFCHR | 0o600
    assert found["dev/console"][1][9:11] == [5, 1]


@pytest.mark.parametrize("name", ["start.py", "build.py"])
def test_the_programs_say_which_python_runs_them(name):
    """An image has no /usr/bin/env, and a host's python3 may be another one day."""
    assert (TOOLS / name).read_text().startswith("#!/usr/bin/python3.11 ")
