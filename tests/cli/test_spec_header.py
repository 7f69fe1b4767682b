"""`brokerctl spec c-header`: the header, and what is said where there is none to write."""

import json
from pathlib import Path

import pytest

from broker.cli.main import main
from broker.protocol.load import load_spec

SPECS = Path(__file__).parents[2] / "protocol_specs"


@pytest.fixture
def run(capsys):
    def call(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("name", ["vbd", "vif"])
def test_the_header_is_written_with_its_descriptions_digest(run, name):
    code, out, err = run("spec", "c-header", "--class", name)
    assert (code, err) == (0, "")
    digest = load_spec((SPECS / f"{name}.yaml").read_bytes(), name).digest
    assert f"from {name}.yaml, {digest}." in out
    assert out.startswith("/*\n")
    assert out.endswith(f"#endif /* XPB_{name.upper()}_RINGS_H */\n")
    code, text, err = run("--json", "spec", "c-header", "--class", name, "--specs", SPECS)
    assert (code, err) == (0, "")
    assert json.loads(text) == {"protocol": name, "digest": digest, "header": out}


def test_a_class_that_is_not_described_is_2(run, tmp_path):
    code, out, err = run("spec", "c-header", "--class", "nix", "--specs", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"{tmp_path}:1:1: no description of 'nix' in this directory; there are: none\n"


@pytest.mark.parametrize("name", ["../protocol_specs/vbd", "", "\x1b[1m", "vbd.yaml"])
def test_a_class_is_never_made_into_a_path(run, name):
    code, out, err = run("spec", "c-header", "--class", name, "--specs", SPECS)
    assert (code, out) == (2, "")
    assert "no description of" in err
    assert "\x1b" not in err


def test_a_description_without_rings_is_2(run, tmp_path):
    text = (SPECS / "vbd.yaml").read_text()
    (tmp_path / "vbd.yaml").write_text(text[: text.index("\nring:") + 1])
    code, out, err = run("spec", "c-header", "--class", "vbd", "--specs", tmp_path)
    assert (code, out) == (2, "")
    assert err.endswith("vbd.yaml:1:1: has no 'ring' section, so there are no messages to check\n")


def test_a_bad_ring_section_is_2_with_its_place(run, tmp_path):
    text = (SPECS / "vbd.yaml").read_text()
    (tmp_path / "vbd.yaml").write_text(text.replace("slots: 512", "slots: 500"))
    line = text[: text.index("slots: 512")].count("\n") + 1
    for words in (("c-header", "--class", "vbd"), ("check",)):
        code, out, err = run("spec", *words, "--specs", tmp_path)
        assert (code, out) == (2, "")
        assert f"vbd.yaml:{line}:7: 'slots' is a power of two, at most 4096" in err
