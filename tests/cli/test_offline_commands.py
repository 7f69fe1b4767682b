"""brokerctl's offline commands: what they print, and their exit codes."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli.main import build_parser, main

ROOT = Path(__file__).parents[2]
POLICY = """\
policy: corp
version: "1.4"
ste_types: [t, u]
chinese_wall_types: [w1, w2]
conflict_sets: {rivals: [w1, w2]}
bootstrap: dom0
labels:
  web: {ste: [t], chinese_wall: [w1]}
  dom0: {ste: [t]}
  db: {ste: [t], chinese_wall: [w2]}
  alien: {ste: [u]}
resources: {lun: {ste: [t], match: {class: vbd, params: /dev/a}}, nic: {ste: [t]}}
classes:
  vif: {protocol: vif, default: ste}
  vbd: {protocol: vbd, default: ste}
channels:
  - {deny: {class: vif, frontend: web, backend: db, reason: "not these \\e[1m"}}
"""
GRANT = {"class": "vif", "frontend": "web", "backend": "dom0"}
DENY = {"class": "vif", "frontend": "web", "backend": "db"}


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def asked(*requests):
    return b"".join(
        (it if isinstance(it, bytes) else json.dumps(it).encode()) + b"\n" for it in requests
    )


def test_check_of_a_good_policy_is_0_and_warnings_leave_it_0(run, policy):
    code, out, err = run("policy", "check", policy)
    assert code == 0
    assert out.startswith("corp 1.4: good, 4 labels, 1 rules\nsha256:")
    assert err.splitlines() == [
        (
            f"{policy}:11:3: warning: label 'alien' can never run: "
            "alien is not authorized on this host: dom0 lacks STE u"
        ),
        f"{policy}:12:67: warning: unused: nothing matches or names resource 'nic'",
    ]


def test_check_of_a_bad_policy_is_2_with_every_place(run, policy):
    policy.write_text(POLICY.replace("ste: [t]}\n  db", "ste: [x]}\n  db") + "extra: 1\n")
    code, out, err = run("policy", "check", policy)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first == f"{policy}:9:16: unknown STE type 'x'"
    assert second.startswith(f"{policy}:18:1: unknown key 'extra'; known here: policy, version,")


def test_check_as_json_is_a_line_for_each(run, policy):
    code, out, err = run("--json", "policy", "check", policy)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [it.get("severity") for it in lines] == ["warning", "warning", None]
    assert (lines[0]["file"], lines[0]["line"], lines[0]["column"]) == (str(policy), 11, 3)
    assert lines[-1]["ok"] is True
    policy.write_text("policy: x")
    code, out, _ = run("policy", "check", "--json", policy)
    assert code == 2
    assert {json.loads(line)["severity"] for line in out.splitlines()} == {"error"}


def test_a_file_that_cannot_be_read_is_2(run, tmp_path):
    for arguments in (
        ("policy", "check", tmp_path / "none"),
        ("policy", "decide", "--policy", tmp_path / "none"),
        ("policy", "admit", "--policy", tmp_path, "x"),
        ("label", "ssidref", "--policy", tmp_path / "none", "x"),
        ("policy", "check", "a\0b"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert ":1:1: cannot be read: " in err


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_decide_answers_a_line_a_request_in_order(run, policy, as_json):
    code, out, _ = run(
        "policy", "decide", "--policy", policy, *as_json, stdin=asked(GRANT, DENY, GRANT)
    )
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [it["verdict"] for it in answers] == ["grant", "deny", "grant"]
    assert all(it["reasons"] for it in answers)
    assert answers[1]["reasons"] == [
        {"rule": "channels[0]", "text": "not these \x1b[1m", "where": f"{policy}:17:5"}
    ]
    assert "\x1b" not in out


def test_decide_is_0_when_all_is_granted_and_reads_files(run, policy, tmp_path):
    requests = tmp_path / "requests"
    requests.write_bytes(asked(GRANT, GRANT)[:-1])
    code, out, _ = run("policy", "decide", "--policy", policy, "--requests", requests)
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = run("policy", "decide", "--policy", policy, "--requests", "-", stdin=b"")
    assert (code, out) == (0, "")
    code, _, err = run("policy", "decide", "--policy", policy, "--requests", tmp_path / "none")
    assert code == 2
    assert "cannot be read" in err


def test_decide_denies_what_is_unknown_or_lacks_a_resource(run, policy):
    disk = {"class": "vbd", "frontend": "web", "backend": "dom0"}
    requests = [
        GRANT | {"class": "nix"},
        GRANT | {"frontend": "nix"},
        GRANT | {"frontend": "\ud800"},
        GRANT | {"backend": ""},
        disk,
        disk | {"resource": "nix"},
        disk | {"resource": "lun"},
    ]
    code, out, _ = run("policy", "decide", "--policy", policy, stdin=asked(*requests))
    answers = [json.loads(line)["verdict"] for line in out.splitlines()]
    assert (code, answers) == (1, ["deny"] * 6 + ["grant"])


MALFORMED = [
    b"",
    b"x",
    b"[]",
    b"1",
    b"{}",
    b"\xff",
    b'{"class":"vif","frontend":"web"}',
    asked(GRANT | {"extra": 1})[:-1],
    asked(GRANT | {"mode": "rw"})[:-1],
    asked(GRANT | {"mode": None})[:-1],
    asked(GRANT | {"frontend": 1})[:-1],
    asked(GRANT | {"resource": ["lun"]})[:-1],
    asked(GRANT | {"resource": None})[:-1],
    b'{"class":"vif","frontend":"web","backend":"dom0","class":"vif"}',
    b"[" * 100_000,
    asked(GRANT)[:-1] + b" " * 70_000,
    asked(GRANT)[:-1] + b"x",
]


@pytest.mark.parametrize("line", MALFORMED, ids=lambda it: repr(it[-40:]))
def test_a_malformed_line_is_answered_with_an_error_and_2(run, policy, line):
    code, out, _ = run("policy", "decide", "--policy", policy, stdin=asked(DENY, line, GRANT))
    answers = [json.loads(it) for it in out.splitlines()]
    assert code == 2
    assert [it.get("verdict") for it in answers] == ["deny", None, "grant"]
    assert list(answers[1]) == ["error"]
    assert answers[1]["error"].startswith("line 2: ")


def test_decide_does_not_apply_the_wall_nor_host_authorization(run, policy):
    alien = {"class": "vif", "frontend": "alien", "backend": "alien"}
    assert run("policy", "decide", "--policy", policy, stdin=asked(alien))[0] == 0


def test_admit(run, policy):
    admit = ("policy", "admit", "--policy", policy, "--running")
    assert run(*admit, "", "web")[0] == 0
    assert run(*admit, "web", "web")[0] == 0
    code, out, _ = run(*admit, "alien,web", "db")
    assert (code, out) == (
        1,
        f"deny\n  {policy}:10:3: conflict set rivals: db has w2, web is running and has w1\n",
    )
    code, out, _ = run(*admit, "", "alien", "--json")
    assert code == 1
    assert json.loads(out)["reasons"][0]["rule"] == "host_authorization"


@pytest.mark.parametrize(("running", "label"), [("", "nix"), ("nix", "web"), ("web,,db", "db")])
def test_admit_of_an_unknown_label_is_2(run, policy, running, label):
    code, out, err = run("policy", "admit", "--policy", policy, "--running", running, label)
    assert (code, out) == (2, "")
    assert "has no label" in err


@pytest.mark.parametrize(
    ("name", "wanted"),
    # The bootstrap label is first wherever it stands; resources have their number above alone.
    [("dom0", 65537), ("web", 131074), ("db", 196611), ("lun", 5 << 16), ("nic", 6 << 16)],
)
def test_ssidref_is_the_decimal_alone(run, policy, name, wanted):
    assert run("label", "ssidref", "--policy", policy, name) == (0, f"{wanted}\n", "")
    code, out, _ = run("label", "ssidref", "--json", "--policy", policy, name)
    assert (code, json.loads(out)) == (0, {"label": name, "ssidref": wanted})


def test_ssidref_of_an_unknown_label_is_2(run, policy):
    code, out, err = run("label", "ssidref", "--policy", policy, "nix")
    assert (code, out) == (2, "")
    assert "has no label or resource 'nix'" in err


def test_spec_list_and_check_of_what_is_shipped(run):
    code, out, _ = run("spec", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:1]] == ["Protocol"]
    assert {"vif", "vbd"} <= {line.split()[0] for line in out.splitlines()[1:]}
    code, out, _ = run("--json", "spec", "check", "--specs", ROOT / "protocol_specs")
    assert code == 0
    assert {"vif", "vbd"} <= {json.loads(line)["protocol"] for line in out.splitlines()}


def test_spec_check_of_bad_descriptions_is_2(run, tmp_path):
    assert run("spec", "check", "--specs", tmp_path)[0] == 2
    good = (ROOT / "protocol_specs" / "vif.yaml").read_text()
    (tmp_path / "other.yaml").write_text(good)
    (tmp_path / "bad.yaml").write_text("protocol: x")
    code, out, err = run("spec", "check", "--specs", tmp_path)
    assert (code, out) == (2, "")
    assert "other.yaml:1:1: describes 'vif', so it must be called vif.yaml" in err
    assert "bad.yaml:1:1: 'header' is missing" in err
    code, out, _ = run("--json", "spec", "list", "--specs", tmp_path)
    assert (code, len(out.splitlines())) == (2, 5)


def test_usage_is_2_and_help_has_an_example_in_80_columns(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("policy", "decide")[0] == 2
    assert run("policy", "nix")[0] == 2
    for words in (
        *(("policy", it) for it in ("check", "decide", "admit", "diff", "graph", "suggest")),
        *(("spec", it) for it in ("list", "check")),
        ("label", "ssidref"),
    ):
        code, out, _ = run(*words, "--help")
        assert code == 0
        assert "example:" in out
        assert max(map(len, out.splitlines())) <= 80


def test_offline_commands_start_without_twisted():
    code = "import sys, broker.cli.main as m; m.main(['spec', 'check']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "broker.protocol.load" in loaded
    assert "twisted" not in loaded


def test_a_reader_that_leaves_before_the_denials_is_no_success(policy):
    command = [sys.executable, "-m", "broker.cli.main", "policy", "decide", "--policy", policy]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.close()
        process.communicate(asked(DENY) * 100)
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 1, ""),
        (">&- 2>&-", 1, ""),
        ("2>&-", 1, ""),
        (">/dev/full", 3, "brokerctl: the output: No space left on device\n"),
    ],
)
def test_an_output_that_cannot_be_written_is_no_traceback(policy, redirection, code, said):
    asking = f'"$@" policy decide --policy {policy} {redirection}'
    done = subprocess.run(
        ["sh", "-c", asking, "sh", sys.executable, "-m", "broker.cli.main"],
        input=asked(DENY),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (code, said)


def test_complaints_do_not_turn_up_among_the_answers_where_standard_error_is_closed(tmp_path):
    done = subprocess.run(
        [
            "sh",
            "-c",
            '"$@" policy check nowhere 2>&-',
            "sh",
            sys.executable,
            "-m",
            "broker.cli.main",
        ],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_closed_standard_input_is_not_taken_for_no_requests(policy, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["policy", "decide", "--policy", str(policy)]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_every_help_text_fits_80_columns_and_every_command_has_an_example(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parsers = [build_parser()]
    for parser in parsers:
        below = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
        parsers += [it for action in below for it in action.choices.values()]
        text = parser.format_help()
        assert [line for line in text.splitlines() if len(line) > 80] == []
        assert below or "example" in text, parser.prog
