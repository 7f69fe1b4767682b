"""brokerctl against a served broker: what people read, what programs read, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from rpc_fake_admin import (
    DENIED,
    DIGEST,
    DOM0,
    DROPS,
    EVENT,
    EXPLANATIONS,
    LABEL,
    METRICS,
    POLICY,
    STATUS,
    TEXT,
    UNLABELLED,
    UUID,
    WEB1,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from broker.cli import groups, show
from broker.cli import main as brokerctl
from broker.rpc import methods
from broker.rpc.catalogue import METHODS
from broker.rpc.errors import RpcError

CONTROL = re.compile(r"[^\n\x20-\x7e]")


@pytest.fixture
def run(serve, capsys):
    """Runs brokerctl on a served socket and answers exit code, standard output and error."""
    path = serve()

    async def start(*words):
        code = await deferToThread(brokerctl.main, ["--socket", str(path), *words])
        out, err = capsys.readouterr()
        return code, out, err

    start.path = path
    return start


def decoded(out, kind):
    return [msgspec.json.decode(line, type=kind) for line in out.splitlines()]


@ensureDeferred
async def test_status_says_what_an_operator_wants_within_80_columns(run):
    code, out, err = await run("status")
    assert (code, err) == (0, "")
    for words in ("green", "corp 1.4", DIGEST, "enforcing", "2 labelled", "3 granted", "1:02:05"):
        assert words in out
    assert out.count("enforcing") == 1
    assert all(len(line) <= 80 for line in out.splitlines())


@ensureDeferred
async def test_a_red_status_names_the_problems_and_exits_1(run, admin):
    admin.status_answer = msgspec.structs.replace(
        STATUS,
        health="red",
        findings=(
            methods.Finding(
                kind="store_lost",
                level="red",
                text="the store is gone\x1b",
                action="start xenstored",
            ),
            methods.Finding(
                kind="no_policy", level="red", text="no policy " * 20, action="policy load FILE"
            ),
            methods.Finding(kind="alarm", level="amber", text="odd", action="look"),
        ),
        problems=("the store is gone: start xenstored", "no policy: brokerctl policy load FILE"),
        policy=None,
        enforcing=False,
        store_connected=False,
        heartbeat=0,
        last_error="EPIPE\x1b[31m",
        last_error_time=0.0,
    )
    code, out, _ = await run("status")
    assert code == 1
    for words in (
        "red",
        "start xenstored",
        "policy load FILE",
        "everything is denied",
        "not enforcing",
        "not connected",
        "none yet",
        "1970-01-01T00:00:00Z EPIPE\\x1b[31m",
    ):
        assert words in out
    assert not CONTROL.search(out)
    assert all(len(line) <= 80 for line in out.splitlines())
    assert out.count("problem") == 2
    assert out.count("warning") == 1
    code, out, _ = await run("status", "--json")
    assert code == 1
    assert decoded(out, methods.Status) == [admin.status_answer]


@ensureDeferred
async def test_an_amber_status_is_said_and_is_no_failure(run, admin):
    finding = methods.Finding(kind="alarm", level="amber", text="odd", action="look closer")
    admin.status_answer = msgspec.structs.replace(
        STATUS, health="amber", findings=(finding,), warnings=(str(finding),)
    )
    code, out, _ = await run("status")
    assert code == 0
    assert "amber" in out
    assert "look closer" in out


@ensureDeferred
async def test_agents_are_listed_within_80_columns(run):
    code, out, _ = await run("agent", "list")
    assert code == 0
    assert "Domain-0\\x1b" in out
    assert "3 s ago" in out
    assert "never" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    code, out, _ = await run("agent", "list", "--json")
    assert [it.backend for it in decoded(out, methods.Agent)] == [0, 7]


@ensureDeferred
async def test_metrics_are_written_as_they_are(run):
    assert await run("metrics") == (0, METRICS, "")
    _, out, _ = await run("metrics", "--json")
    assert decoded(out, methods.Metrics) == [methods.Metrics(text=METRICS)]


@ensureDeferred
async def test_domain_list_is_like_xl_list_with_labels(run):
    code, out, _ = await run("domain", "list")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["Name", "ID", "Mem", "VCPUs", "State", "ACM-Label"]
    assert lines[1] == ["Domain-0", "0", "1023", "4", "running", "SystemManagement"]
    name = r"web1\x1b[2J\x7f\xe2\x80\xae"
    assert lines[2] == [name, "3", "-", "-", "dying", "-", "(unlabelled)"]


@ensureDeferred
async def test_domain_list_long_adds_uuid_ssidref_and_reason(run):
    code, out, _ = await run("domain", "list", "--long")
    assert code == 0
    assert all(words in out for words in (UUID, "65537", "no label is stored", "1023 MiB"))
    assert not CONTROL.search(out)


@ensureDeferred
async def test_domain_list_json_is_a_domain_a_line_and_safe_on_a_terminal(run):
    code, out, _ = await run("domain", "list", "--json")
    assert code == 0
    assert decoded(out, methods.Domain) == [DOM0, WEB1]
    assert not CONTROL.search(out)


@ensureDeferred
async def test_json_may_be_asked_for_before_the_command_too(run):
    assert await run("--json", "domain", "list") == await run("domain", "list", "--json")


@ensureDeferred
async def test_the_socket_may_be_named_after_the_command(run, capsys):
    words = ["--socket", "/nonexistent", "status", "--socket", str(run.path)]
    assert await deferToThread(brokerctl.main, words) == 0


@ensureDeferred
async def test_the_socket_may_come_from_the_environment(run, monkeypatch, capsys):
    monkeypatch.setenv("XPB_SOCKET", str(run.path))
    assert await deferToThread(brokerctl.main, ["status"]) == 0


@ensureDeferred
async def test_label_set_says_what_changed(run, admin):
    code, out, _ = await run("label", "set", "web1", "web_a")
    assert (code, out) == (0, "web1: db_b -> web_a\ndomid 3: labelled\n")
    assert admin.calls[0][2] == methods.LabelSet(domain="web1", label="web_a")
    code, out, _ = await run("label", "set", "web1", "web_a", "--json")
    assert decoded(out, methods.LabelChange)[0].now == LABEL


@ensureDeferred
async def test_label_set_says_when_nobody_has_that_name_or_uuid(run, monkeypatch):
    for bound in ("name", "uuid"):
        answer = msgspec.structs.replace(LABEL, bound_by=bound, domids=())
        monkeypatch.setattr("rpc_fake_admin.LABEL", answer)
        code, out, _ = await run("label", "set", "web1", "web_a")
        assert (code, out.splitlines()[1:]) == (
            0,
            [f"no domain of that {bound} runs; the label is for any that will"],
        )


@ensureDeferred
async def test_label_set_of_an_unknown_label_is_bad_input(run):
    code, out, err = await run("label", "set", "web1", "nosuch")
    assert (code, out) == (2, "")
    assert err == "brokerctl: no label nosuch in policy corp 1.4\n"


@ensureDeferred
async def test_label_get_prints_the_label_alone_and_exits_1_without_one(run):
    assert await run("label", "get", "web1") == (0, "web_a\n", "")
    code, out, err = await run("label", "get", "3")
    assert (code, out) == (1, "")
    assert "3 has no label: no label is stored" in err
    code, out, _ = await run("label", "get", "3", "--json")
    assert (code, decoded(out, methods.Label)) == (1, [UNLABELLED])


@ensureDeferred
async def test_label_rm_says_what_was_taken_away(run):
    code, out, _ = await run("label", "rm", "web1")
    assert (code, out.splitlines()) == (
        0,
        [f"{UUID}: web_a -> -", "domid 3: unlabelled: no label is stored"],
    )


@ensureDeferred
async def test_label_list_shows_what_each_is_stored_for(run):
    code, out, _ = await run("label", "list")
    assert code == 0
    assert "web1" in out.splitlines()[1]
    assert UUID in out.splitlines()[2]
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = await run("label", "list", "--json")
    assert decoded(out, methods.Label) == [LABEL, UNLABELLED]


@ensureDeferred
async def test_channel_list_shows_verdicts_and_why_not(run, admin):
    words = ["--domain", "web1", "--class", "vbd", "--verdict", "deny"]
    code, out, _ = await run("channel", "list", *words)
    assert code == 0
    assert admin.calls[0][2] == methods.ChannelFilter(
        domain="web1", device_class="vbd", verdict="deny"
    )
    assert "vif/3/0 -> 0" in out
    assert "read-only tier" in out
    assert "a shared type" not in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = await run("channel", "list", "--json")
    assert decoded(out, methods.Channel)[1] == DENIED
    assert json.loads(out.splitlines()[1])["class"] == "vbd"


@ensureDeferred
async def test_channel_explain_gives_rule_and_place_and_exits_1_unless_granted(run, admin):
    code, out, _ = await run("channel", "explain", "vbd/web1/51712", "--backend", "0")
    assert code == 1
    assert admin.calls[0][2] == methods.ChannelSelector(
        device_class="vbd", frontend="web1", device="51712", backend=0
    )
    for words in ("corp.yaml:31:5: read-only tier [deny]", "lun_red", "/dev/vg/red-1", "silent"):
        assert words in out
    code, out, _ = await run("channel", "explain", "vif/3/0")
    assert code == 0
    assert "open (on record 8, now 9)" in out
    code, out, _ = await run("channel", "explain", "vbd/3/51712", "--json")
    assert (code, decoded(out, methods.Explanation)) == (1, [EXPLANATIONS["vbd"]])


@ensureDeferred
async def test_net_drops_shows_who_was_refused_whom_and_what_did_not_fit(run):
    code, out, _ = await run("net", "drops")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["Domain-0", "12", "840", "web_a", "bank\\x1b[2J"] in lines
    assert ["Domain-0", "1", "60", "-", "web_a"] in lines
    assert "3 pairs more of domain 0" in out
    code, out, _ = await run("net", "drops", "--json")
    assert decoded(out, methods.NetDrops) == [DROPS]


@ensureDeferred
async def test_channel_list_names_the_frontends_where_there_is_room(run, monkeypatch):
    _, out, _ = await run("channel", "list")
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["Name", "web1", "web1"]
    monkeypatch.setenv("COLUMNS", "72")
    _, out, _ = await run("channel", "list")
    assert out.startswith("Channel ")
    assert "web1" not in out


@ensureDeferred
async def test_channel_list_says_that_nothing_matches_what_was_asked_for(run, admin):
    admin.channels = ()
    code, out, err = await run("channel", "list", "--class", "foo")
    assert (code, out, err) == (0, "", "brokerctl: no channel matches\n")
    assert await run("channel", "list", "--class", "foo", "--json") == (0, "", err)
    assert (await run("channel", "list"))[2] == "brokerctl: there are no channels\n"


@ensureDeferred
async def test_channel_explain_shows_the_record_whole_and_what_else_would_hold(run, monkeypatch):
    record = "deny seq=10 " + "reason=" + "x" * 300 + " sig=end"
    reasons = (
        methods.Reason(rule="broker", text="domain 3 is refused: rival\\x1b", where=""),
        methods.Reason(rule="default", text="class vif is granted", where="corp.yaml:9:3"),
    )
    told = msgspec.structs.replace(EXPLANATIONS["vbd"], reasons=reasons, published=record)
    monkeypatch.setitem(EXPLANATIONS, "vbd", told)
    _, out, _ = await run("channel", "explain", "vbd/3/51712")
    assert "sig=end" in out
    lines = [line.split(None, 1) for line in out.splitlines()]
    assert ["because", "domain 3 is refused: rival\\x1b [broker]"] in lines
    assert ["otherwise", "corp.yaml:9:3: class vif is granted [default]"] in lines


@pytest.mark.parametrize("name", ["vif", "vif/3", "/3/0", "vif//0", "vif/3/"])
@ensureDeferred
async def test_what_is_no_channel_is_bad_input(name, run, admin):
    code, _, err = await run("channel", "explain", name)
    assert code == 2
    assert "CLASS/DOMAIN/DEVICE" in err
    assert not admin.calls


@ensureDeferred
async def test_a_domains_name_may_have_slashes(run, admin):
    await run("channel", "explain", "vif/a/b/0")
    assert admin.calls[0][2].frontend == "a/b"


@pytest.mark.parametrize("options", [(), ("--json",)])
@ensureDeferred
async def test_channel_watch_prints_each_event_as_it_comes_and_says_when_the_broker_went(
    options, run, admin, serve, capsys
):
    report = msgspec.structs.replace(
        EVENT, event="report", channel=EXPLANATIONS["vif"].channel, previous="grant"
    )
    gone = msgspec.structs.replace(EVENT, event="gone")
    running = Deferred.fromCoroutine(run("channel", "watch", *options))
    await admin.subscribed
    for event in (EVENT, report, gone):
        admin.subscribers[0](event)
    printed = ""
    while printed.count("\n") < 3:
        await deferLater(reactor, 0.002)
        printed += capsys.readouterr().out
    await serve.servers[0].stop()
    code, rest, err = await running
    out = printed + rest
    assert code == 3
    if options:
        *events, last = out.splitlines(keepends=True)
        assert decoded("".join(events), methods.Decision) == [EVENT, report, gone]
        assert json.loads(last)["error"]["code"] == "unreachable"
        assert err == ""
    else:
        assert "brokerctl: the broker" in err
        first, second, third = out.splitlines()
        assert first.startswith("00:00:00Z vbd/3/51712 -> 0 web_a,SystemManagement new -> deny:")
        assert second.endswith("grant, enforced: open (on record 8, now 9)")
        assert third.endswith("gone")


@ensureDeferred
async def test_policy_show_writes_the_policys_exact_bytes(run):
    code, out, err = await run("policy", "show")
    assert (code, out) == (0, TEXT)
    assert DIGEST in err
    assert "put in force by ann\\x1b[2J on 1970-01-01 00:00 UTC, approved by bob" in err
    code, out, _ = await run("policy", "show", "--json")
    assert decoded(out, methods.PolicyText)[0].text == TEXT


@ensureDeferred
async def test_policy_load_sends_the_text_and_says_what_it_did(run, admin, short_dir):
    file = short_dir / "corp.yaml"
    file.write_text(TEXT, encoding="utf-8")
    code, out, err = await run("policy", "load", str(file), "--replaces", DIGEST, "--dry-run")
    assert code == 0
    assert admin.calls[0][2] == methods.PolicyLoad(
        text=TEXT, source=str(file), replaces=DIGEST, dry_run=True
    )
    assert "would replace no policy" in out
    assert "would close vbd/3/51712 -> 0" in out
    assert "would open vif/4/0 -> 0" in out
    assert "5 (old)" in out
    assert "warning: corp.yaml:9:3" in err
    code, out, _ = await run("policy", "load", str(file))
    assert "is in force" in out
    code, out, _ = await run("policy", "load", str(file), "--json")
    assert decoded(out, methods.PolicyChange)[0].policy == POLICY


@ensureDeferred
async def test_policy_load_of_a_bad_policy_lists_the_problems_and_exits_2(run, short_dir):
    file = short_dir / "p.yaml"
    file.write_text("bad")
    code, out, err = await run("policy", "load", str(file))
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"{file}:1:1: bad word", "brokerctl: 1 problem in the policy"]


@ensureDeferred
async def test_policy_load_that_would_replace_another_policy_is_denied(run, short_dir):
    file = short_dir / "p.yaml"
    file.write_text("good")
    assert (await run("policy", "load", str(file), "--replaces", "sha256:" + "0" * 64))[0] == 1
    code, _, err = await run("policy", "load", str(file), "--replaces", "sha1:0")
    assert code == 2
    assert "regex" in err


@ensureDeferred
async def test_policy_load_of_an_unreadable_file_is_bad_input(run, short_dir):
    assert (await run("policy", "load", str(short_dir / "none")))[0] == 2
    (short_dir / "latin").write_bytes(b"policy: \xe9")
    code, _, err = await run("policy", "load", str(short_dir / "latin"))
    assert code == 2
    assert "not UTF-8 (byte 8)" in err


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("denied", 1),
        ("conflict", 1),
        ("bad_request", 2),
        ("bad_input", 2),
        ("not_found", 2),
        ("too_large", 2),
        ("internal", 3),
        ("unavailable", 3),
    ],
)
@ensureDeferred
async def test_every_error_has_its_exit_code_and_is_shown_escaped(code, exit_code, run, admin):
    admin.fail = RpcError(code, "no \x1b[2J", ("a\x07:1:1: b",))
    found, out, err = await run("domain", "list")
    assert (found, out) == (exit_code, "")
    assert err == "a\\x07:1:1: b\nbrokerctl: no \\x1b[2J\n"
    found, out, err = await run("domain", "list", "--json")
    assert (found, err) == (exit_code, "")
    told = {"code": code, "message": "no \x1b[2J", "problems": ["a\x07:1:1: b"]}
    assert json.loads(out) == {"error": told}
    assert out.rstrip("\n").isprintable()


def test_without_a_broker_the_exit_code_is_3_and_the_message_helps(capsys):
    assert brokerctl.main(["--socket", "/nonexistent/s", "status"]) == 3
    assert (
        "/nonexistent/s: No such file or directory; is brokerd running" in capsys.readouterr().err
    )
    assert brokerctl.main(["--socket", "/nonexistent/s", "status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unreachable"


@pytest.mark.parametrize(
    "words", [[], ["label"], ["label", "set", "x"], ["nosuch"], ["status", "x"]]
)
def test_wrong_usage_exits_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        brokerctl.main(words)
    assert caught.value.code == 2
    assert "usage: brokerctl" in capsys.readouterr().err


@pytest.mark.parametrize("method", list(METHODS), ids=lambda method: method.name)
def test_every_methods_example_is_a_command_and_its_help_shows_it(method, capsys):
    words = shlex.split(method.example.partition(" > ")[0])
    assert words[0] == "brokerctl"
    options = brokerctl.build_parser().parse_args(words[1:])
    assert callable(options.run)
    command = words[1:3] if words[1] in groups.GROUPS else words[1:2]
    with pytest.raises(SystemExit) as caught:
        brokerctl.main([*command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    own = command in (method.name.split("."), ["migrate-check"])
    assert (method.example if own else "example:") in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert out.isascii()


def test_brokerctl_starts_without_twisted():
    code = "import sys, broker.cli.main as m; m.build_parser(); print('twisted' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert out.stdout == "False\n"


@ensureDeferred
async def test_a_reader_that_goes_away_gets_no_traceback_and_is_no_success(run):
    def head():
        command = [str(Path(sys.executable).parent / "brokerctl"), "domain", "list"]
        reader, writer = os.pipe()
        os.close(reader)
        try:
            return subprocess.run(
                command,
                stdout=writer,
                stderr=subprocess.PIPE,
                env=os.environ | {"XPB_SOCKET": str(run.path)},
                check=False,
            )
        finally:
            os.close(writer)

    done = await deferToThread(head)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_table_wraps_only_its_last_column(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    show.table(["A", "N", "Why"], [("x", 1, "word " * 10), ("yy", 22, None)], notes=["n" * 3, None])
    assert capsys.readouterr().out.splitlines() == [
        "A    N  Why",
        "x    1  word word word word word word",
        "        word word word word",
        "    nnn",
        "yy  22  -",
    ]


def test_an_empty_table_is_its_head(capsys):
    show.table(["A", "B"], [])
    assert capsys.readouterr().out == "A  B\n"


@ensureDeferred
async def test_decision_query_says_what_would_be_and_why(run, admin):
    words = ("decision", "query", "web1", "0", "--class", "vbd", "--resource", "lun")
    code, out, _ = await run(*words)
    assert code == 0
    assert out == "grant 3 -> 0 (web_a,-)\n  p:1:2: they share red\\x1b [ste]\n"
    asked = admin.calls[-1][2]
    assert (asked.device_class, asked.resource, asked.mode) == ("vbd", "lun", "w")
    code, out, _ = await run("decision", "query", "web1", "web2", "--frames", "--json")
    assert (code, json.loads(out)["verdict"]) == (1, "deny")


@ensureDeferred
async def test_what_waits_is_listed_reviewed_approved_and_dropped(run, admin):
    code, out, _ = await run("policy", "pending")
    assert code == 0
    assert "5f0c9a12" in out
    assert "1970-01-01 01:00Z" in out
    code, out, err = await run("policy", "review", "5f0c9a12")
    assert (code, out) == (0, TEXT)
    assert "proposed by alice" in err
    assert "roles" in err
    code, out, _ = await run("policy", "approve", "5f0c9a12")
    assert (code, "is in force" in out) == (0, True)
    for word in ("reject", "withdraw"):
        code, out, _ = await run("policy", word, "5f0c9a12")
        assert (code, "waits no more" in out) == (0, True)
    for words in (("pending",), ("review", "5f0c9a12"), ("reject", "5f0c9a12")):
        code, out, _ = await run("policy", *words, "--json")
        assert (code, "5f0c9a12" in out) == (0, True)
    assert (await run("policy", "approve", "nonsense"))[0] == 2
