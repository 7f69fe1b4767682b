"""brokerctl filter check and create-from: files alone, no broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.cli import main as brokerctl

SHIPPED = sorted((Path(__file__).parents[2] / "etc/filters").glob("*.yaml"))
GOOD = "profile: p\ndescription: d\ndefault: drop\nrules:\n  - {include: clean-traffic}\n"
XML = "<filter name='a'><rule action='drop' direction='out'><igmp/></rule>%s</filter>"


@pytest.fixture
def run(capfdbinary):
    def start(*words):
        code = brokerctl.main(["filter", *map(str, words)])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return start


def test_what_is_shipped_is_good(run):
    code, out, _ = run("check", *SHIPPED)
    assert code == 0
    assert out.count(": good, ") == len(SHIPPED) == 11


def test_a_file_is_checked_with_what_it_includes(run, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(GOOD)
    assert run("check", file)[0] == 0
    assert json.loads(run("check", "--json", file)[1])["rules"] == 0
    code, _, err = run("check", file, "--filters", tmp_path / "none")
    assert code == 2
    assert f"{file}:5:15: there is no profile clean-traffic" in err
    file.write_text(GOOD.replace("drop", "maybe"))
    code, _, err = run("check", file)
    assert code == 2
    assert f"{file}:3:10: expected accept or drop" in err
    assert run("check", tmp_path / "nowhere")[0] == 2


def test_what_no_agent_can_hold_is_refused_at_its_line(run, tmp_path):
    file = tmp_path / "p.yaml"
    masks = ", ".join(f'"00:00:00:00:{it:02x}:00/00:00:00:00:ff:00"' for it in range(17))
    match = f"{{ether.src: [{masks}], ether.dst: [{masks}]}}"
    file.write_text(GOOD + f"  - {{accept: both, match: {match}}}\n")
    code, out, err = run("check", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"{file}:6:5: this becomes more than 256 rules")


def test_a_file_in_the_place_of_a_shipped_one_is_taken_for_it(run, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("profile: no-multicast\ndescription: d\ndefault: accept\n")
    assert run("check", file)[0] == 0


def test_a_libvirt_filter_becomes_a_profile_that_is_good(run, tmp_path):
    file = tmp_path / "a.xml"
    file.write_text(XML % "")
    code, out, _ = run("create-from", file)
    assert code == 0
    profile = tmp_path / "a.yaml"
    profile.write_text(out)
    assert run("check", profile)[0] == 0
    assert json.loads(run("create-from", "--json", file)[1])["text"] == out


def test_what_cannot_be_expressed_stops_it_unless_one_says_otherwise(run, tmp_path):
    file = tmp_path / "a.xml"
    file.write_text(XML % "<rule action='drop' direction='out'><stp/></rule>")
    code, out, err = run("create-from", file)
    assert (code, out) == (2, "")
    assert f"{file}:1:" in err
    assert "--partial" in err
    code, out, err = run("create-from", "--partial", file)
    assert code == 0
    assert "profile: a" in out
    assert "protocol stp cannot be expressed" in err
