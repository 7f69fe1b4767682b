"""The manual pages: whole, without a command that groff does not know, and in 80 columns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli.main import build_parser
from broker.rpc.catalogue import METHODS

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.manual.__main__ import main
from tools.manual.pages import pages
from tools.manual.roff import Page, escaped

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_what_a_page_has(name):
    text = PAGES[name]
    assert text.isascii()
    page, _, section = name.rpartition(".")
    assert text.startswith(f".TH {page.upper()}".replace("-", "\\-") + f" {section} ")
    assert ".SH NAME" in text
    for line in text.splitlines():
        if line.startswith("."):
            assert re.match(r"\.(TH|SH|SS|PP|TP|nf|fi|nh|ad)\b", line), line
        assert not line.startswith("'")


@pytest.mark.root
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say(name, tmp_path):
    path = tmp_path / name
    path.write_text(PAGES[name])
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-Wbreak", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_is_in_its_page():
    text = PAGES["brokerctl.1"]
    for name in build_parser().commands.choices:
        assert f'.SS "brokerctl {name}' in text.replace("\\-", "-")
    for method in METHODS:
        assert method.help in text.replace("\\-", "-").replace("\\(ga", "`") or "." in method.name


def test_text_is_no_command():
    assert escaped(".so /etc/passwd\n'x \\f`^-") == "\\&.so /etc/passwd\n\\&'x \\ef\\(ga\\(ha\\-"
    page = Page("x", 1, "y", "0")
    page.item(".PP", "")
    assert "\n.PP" not in page.text()


def test_pages_and_completions_are_written(tmp_path):
    main(tmp_path)
    assert {it.name for it in (tmp_path / "man").iterdir()} == set(PAGES)
    assert "complete" in (tmp_path / "completions/brokerctl").read_text()
    assert (tmp_path / "completions/_brokerctl").read_text().startswith("#compdef brokerctl")
