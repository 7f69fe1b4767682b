"""`policy diff` as an operator reads it."""

import json
from pathlib import Path

import pytest

from broker.cli.main import main

EXAMPLE = (Path(__file__).parents[2] / "etc" / "policy.yaml").read_text()
CHANGES = (
    ('version: "1.0"', 'version: "1.1"'),
    ("  db_blue: {", "  store_blue: {was: db_blue, "),
    ("[web_blue, db_blue]", "[web_blue, store_blue]"),
    ("  web_blue: {ste: [blue, ", "  web_blue: {ste: [blue, red, "),
    ("      mode: w ", "      mode: r "),
    ("  bank_b: {ste: [bank], chinese_wall: [bank_b]}", "  bank_b: {ste: [bank]}"),
    ("host_authorization: true", "host_authorization: false"),
)


@pytest.fixture
def files(tmp_path):
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(EXAMPLE)
    text = EXAMPLE
    for before, after in CHANGES:
        assert text.count(before) == 1
        text = text.replace(before, after)
    new.write_text(text)
    return old, new


def diff(capsys, *arguments):
    code = main(["policy", "diff", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_everything_decided_otherwise_is_told_in_80_columns(capsys, monkeypatch, files):
    monkeypatch.setenv("COLUMNS", "80")
    code, out = diff(capsys, *files)
    assert code == 0
    assert (
        out
        == """\
example 1.0 to example 1.1

granted now (class: frontends -> backends)
  + vif: web_red, db_red -> web_blue
  + vif: web_blue -> web_red, db_red

granted no more (class: frontends -> backends)
  - vbd: web_red -> SystemManagement over archive_red (reading)

may run together now
  + bank_a with bank_b

labels (was -> is)
    store_blue: db_blue (ssidref 327685) -> store_blue (ssidref 327685)

settings (was -> is)
    host_authorization: true -> false
"""
    )
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_a_line_a_change_and_a_last_one(capsys, files):
    code, out = diff(capsys, *files, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {"kind": "together", "gained": True, "labels": ["bank_a"], "others": ["bank_b"]} in lines
    assert lines[-1]["same_decisions"] is False
    assert {line["kind"] for line in lines[:-1]} == {"channel", "together", "label", "setting"}


def test_the_same_file_and_the_same_decisions(capsys, files):
    old, new = files
    assert diff(capsys, old, old) == (0, "example 1.0 to example 1.0: the same file\n")
    new.write_text(EXAMPLE + "# a comment\n")
    assert diff(capsys, old, new) == (0, "example 1.0 to example 1.0: the same decisions\n")


def test_long_lists_are_counted_unless_all_is_asked_for(capsys, tmp_path):
    names = ", ".join(f"l{number}: {{ste: [t]}}" for number in range(30))
    text = (
        f'policy: p\nversion: "1.0"\nste_types: [t]\nbootstrap: l0\nlabels: {{{names}}}\n'
        "classes: {vif: {default: ste}}\n"
    )
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text(text)
    new.write_text(text.replace("ste}}\n", "deny}}\n"))
    assert "and 18 more" in diff(capsys, old, new)[1]
    out = diff(capsys, old, new, "--all")[1]
    assert "l29" in out
    assert "more" not in out.replace("no more", "")


def test_a_bad_policy_is_2(capsys, files):
    files[1].write_text("policy: x")
    assert diff(capsys, *files) == (2, "")
