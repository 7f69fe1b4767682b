"""`policy import-acm`, `export-acm`, `inspect-acm` as an operator uses them."""

import json
import subprocess
import sys

import pytest
from support import acm

from broker.cli.main import main


@pytest.fixture
def run(capfdbinary):
    def brokerctl(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return brokerctl


@pytest.fixture
def xml(tmp_path):
    path = tmp_path / "tenants-security_policy.xml"
    path.write_text(acm.NEW)
    return path


@pytest.mark.parametrize(("numbering", "number"), [((), 2), (("--numbering", "alphabetical"), 3)])
def test_an_import_is_checked_asked_and_exported_again(run, xml, tmp_path, numbering, number):
    code, out, err = run("policy", "import-acm", xml, *numbering)
    assert (code, err) == (0, "")
    written = tmp_path / "tenants.yaml"
    written.write_text(out)
    assert run("policy", "check", written)[0] == 0
    reference = run("label", "ssidref", "--policy", written, "zinc")[1]
    assert int(reference) == number << 16 | number
    assert run("policy", "admit", "--policy", written, "--running", "zinc", "acid")[0] == 1
    code, out, err = run("policy", "export-acm", written)
    assert (code, err) == (0, "")
    xml.write_text(out)
    assert (
        run("policy", "import-acm", xml)[1].partition("\npolicy:")[2]
        == (written.read_text().partition("\npolicy:")[2])
    )


def test_what_is_refused_is_2_with_its_place(run, xml):
    xml.write_text(acm.NEW.replace(">1.3<", ">1-3<"))
    code, out, err = run("policy", "import-acm", xml)
    assert (code, out) == (2, "")
    assert err == (
        f"{xml}:9:5: version '1-3' is not major.minor, two integers "
        "(--accept version reads two numbers)\n"
    )
    code, out, err = run("policy", "import-acm", xml, "--accept", "version")
    assert code == 0
    assert err == f"{xml}:9:5: note: version '1-3' is 1.3\n"
    assert run("policy", "import-acm", xml, "--accept", "nonsense")[0] == 2
    assert run("policy", "import-acm", xml.parent / "none.xml")[0] == 2
    assert run("policy", "import-acm", xml, "--accept", "version", "--classes", "vif,")[0] == 2


def test_all_files_of_a_policy_of_2005(run, tmp_path):
    for name, text in (
        ("pair-security_policy.xml", acm.OLD),
        ("labels.xml", acm.OLD_LABELS.replace("hard disk (hda)", "hda")),
        ("resource_labels", "resources = {'phy:hda': ('pair', 'hda')}"),
    ):
        (tmp_path / name).write_text(text)
    code, out, _ = run(
        "policy",
        "import-acm",
        tmp_path / "pair-security_policy.xml",
        *("--labels", tmp_path / "labels.xml"),
        *("--resources", tmp_path / "resource_labels"),
        *("--classes", "vif,vbd,vkbd"),
        "--json",
    )
    assert code == 0
    note, result = (json.loads(line) for line in out.splitlines())
    assert note["severity"] == "note"
    assert "hda: {ste: [u], match: {class: vbd, params: /dev/hda}}" in result["text"]
    assert "vkbd: {protocol: vkbd, default: ste}" in result["text"]


def test_an_export_that_acm_would_decide_otherwise_is_refused_unless_lossy(run, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        'policy: p\nversion: "1.0"\nste_types: [t]\nbootstrap: a\nlabels: {a: {ste: [t]}}\n'
        "classes: {vif: {default: deny}}\n"
    )
    code, out, err = run("policy", "export-acm", path)
    assert (code, out) == (1, "")
    assert err.startswith(f"{path}:6:11: ACM has no classes")
    code, out, err = run("policy", "export-acm", path, "--lossy")
    assert code == 0
    assert out.startswith("<?xml")
    assert "warning" in err
    code, out, _ = run("policy", "export-acm", path, "--lossy", "--json")
    assert json.loads(out.splitlines()[-1])["text"].startswith("<?xml")


def test_inspect_tells_maps_and_compiled_policies_apart(run, tmp_path):
    path = tmp_path / "x"
    path.write_text(acm.MAP)
    code, out, _ = run("policy", "inspect-acm", path)
    assert code == 0
    assert ["label", "acid", "00020002"] in [line.split() for line in out.splitlines()]
    assert ["resource", "disk(zinc)", "00050000"] in [line.split() for line in out.splitlines()]
    assert json.loads(run("policy", "inspect-acm", path, "--json")[1])["primary"] == "CHWALL"
    header = bytes.fromhex(
        "0001debc 00000004 00000044 0000003c 00000001 00000044 00000000 00000044"
    )
    path.write_bytes(
        header + bytes.fromhex("00000001 00000002") + b"\xaa" * 20 + b"\0\0\0\2p\0\0\0"
    )
    code, out, _ = run("policy", "inspect-acm", path)
    assert code == 0
    assert "primary CHWALL, secondary NULL" in out
    assert json.loads(run("policy", "inspect-acm", path, "--json")[1])["version"] == [1, 2]
    assert run("policy", "inspect-acm", path, "--ssidref", "1")[0] == 2
    path.write_text("nonsense")
    assert run("policy", "inspect-acm", path)[0] == 2


def test_a_map_tells_the_label_of_an_old_reference(run, tmp_path):
    path = tmp_path / "x.map"
    path.write_text(acm.MAP)
    inspect = ("policy", "inspect-acm", path, "--ssidref")
    assert run(*inspect, "131074") == (0, "acid\n", "")
    assert run(*inspect, "0x00030003")[1] == "zinc\n"
    assert json.loads(run(*inspect, "131074", "--json")[1]) == {"ssidref": 131074, "label": "acid"}
    code, out, err = run(*inspect, "0x20003")
    assert (code, out) == (2, "")
    assert "has no one label of '0x00020003'" in err
    for nonsense in ("x", "-1", "0x100000000"):
        assert run(*inspect, nonsense)[0] == 2


def test_help_fits_80_columns(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for word in ("import-acm", "export-acm", "inspect-acm"):
        code, out, _ = run("policy", word, "--help")
        assert code == 0
        assert "example:" in out
        assert max(map(len, out.splitlines())) <= 80


def test_the_commands_need_no_twisted():
    command = "m.main(['policy', 'inspect-acm', '/dev/null'])"
    code = f"import sys, broker.cli.main as m; {command}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "twisted" not in done.stdout.splitlines()[-1].split()
