"""`brokerctl audit tail|checkpoint` against a served broker."""

from __future__ import annotations

import json

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from rpc_fake_admin import DIGEST, RECORD
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from broker.cli import main as brokerctl
from broker.rpc import methods
from broker.rpc.errors import RpcError

SHOWN = (
    "17 1970-01-01T00:00:01Z label_set: bound=name key=web1 label=web_a policy=corp "
    "by anna in the role operator"
)


@pytest.fixture
def run(serve, capsys):
    """Runs brokerctl on a served socket and answers exit code, standard output and error."""
    path = serve()

    async def start(*words):
        code = await deferToThread(brokerctl.main, ["--socket", str(path), "audit", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return start


def record(event, **told):
    line = {"n": 18, "event": event, "t": 2.0, **told, "in_force": DIGEST, "hash": "0"}
    text = json.dumps(line, separators=(",", ":"))
    return methods.AuditRecord(n=18, event=event, line=text)


@ensureDeferred
async def test_tail_shows_the_end_of_the_log_as_far_back_as_it_has_to_look(run, admin):
    code, out, err = await run("tail", "-n", "2")
    assert (code, out, err) == (0, SHOWN + "\n", "")
    asked = [arguments for _, _, arguments in admin.calls]
    assert [(it.last, it.before) for it in asked] == [(2, None), (1, 13), (1, 8)]


@ensureDeferred
async def test_tail_writes_for_programs_the_lines_that_are_in_the_log(run):
    code, out, _ = await run("tail", "-n", "1", "--json")
    assert (code, out) == (0, RECORD.line + "\n")


@ensureDeferred
async def test_tail_asks_for_what_is_wanted(run, admin):
    wanted = {"event": "decided", "domain": "web1", "subject": "anna", "verdict": "deny"}
    await run("tail", "-n1", *(word for key, it in wanted.items() for word in (f"--{key}", it)))
    arguments = admin.calls[0][2]
    assert {key: getattr(arguments, key) for key in wanted} == wanted


async def following(run, admin, capsys, events, *words):
    """What `tail` with these words prints of the events, until the broker goes."""
    running = Deferred.fromCoroutine(run("tail", *words))
    await admin.subscribed
    send = admin.subscribers[0]
    for event in events:
        send(event, event.n)
    send.lagged(3)
    printed = err = ""
    while printed.count("\n") < len(events) or "3" not in printed + err:
        await deferLater(reactor, 0.002)
        out, more = capsys.readouterr()
        printed, err = printed + out, err + more
    return running, printed, err


@ensureDeferred
async def test_tail_follows_from_where_it_stopped_and_says_where_to_go_on(
    run, admin, serve, capsys
):
    text = f"deny seq=9 id={'0' * 8}-0000-4000-8000-000000000003 fe=3 be=0 class=vif dev=0 uuid=- "
    text += "nonce=- inputs=- labels=a,- resource=- policy=- spec=- reason=no%20label%1B sig=AA"
    events = [record("decided", text=text), record("published", seqs=[9])]
    running, printed, err = await following(run, admin, capsys, events, "-n1", "-f")
    await serve.servers[0].stop()
    code, _, rest = await running
    assert code == 3
    assert printed.splitlines() == [
        SHOWN,
        "18 1970-01-01T00:00:02Z decided: deny vif/3/0 -> 0 a,- seq=9: no label\\x1b",
        "18 1970-01-01T00:00:02Z published: seqs=[9]",
    ]
    assert "3 records are gone, or do not read" in err
    assert "go on with: brokerctl audit tail --since 18" in rest
    assert admin.calls[-1][2].since == 17


@ensureDeferred
async def test_tail_since_a_record_follows_without_looking_back(run, admin, serve, capsys):
    events = [record("alarm", subject="x", detail="y")]
    running, printed, _ = await following(run, admin, capsys, events, "--since", "4", "--json")
    await serve.servers[0].stop()
    await running
    assert printed.splitlines() == [events[0].line, '{"lost":3}']
    assert [(name, it.since) for name, _, it in admin.calls] == [("audit.tail", 4)]


@pytest.mark.parametrize("line", ["\x1b[2J", "caf\xe9"])
@ensureDeferred
async def test_what_no_audit_log_holds_is_not_shown(run, admin, monkeypatch, line):
    async def odd(*_):
        return msgspec.structs.replace(RECORD, line=line)

    monkeypatch.setattr(admin, "audit_checkpoint", odd)
    code, out, err = await run("checkpoint")
    assert (code, out) == (3, "")
    assert "no line of an audit log" in err


@ensureDeferred
async def test_an_odd_decision_is_shown_as_it_stands(run, admin, monkeypatch):
    async def odd(*_):
        page = (record("decided", text="grant nothing"),)
        return methods.AuditPage(records=page, oldest=1, last=18, more=False)

    monkeypatch.setattr(admin, "audit_list", odd)
    _, out, _ = await run("tail")
    assert out == "18 1970-01-01T00:00:02Z decided: grant nothing\n"


@ensureDeferred
async def test_checkpoint_writes_the_line_and_nothing_else(run):
    assert await run("checkpoint") == (0, RECORD.line + "\n", "")


@ensureDeferred
async def test_a_log_that_cannot_be_written_signs_nothing(run, admin):
    admin.fail = RpcError("unavailable", "the audit log cannot be written: full")
    code, out, err = await run("checkpoint")
    assert (code, out) == (3, "")
    assert "cannot be written" in err


@pytest.mark.parametrize("lines", ["-1", "1001", "x"])
@ensureDeferred
async def test_how_many_lines_is_a_number_within_reason(run, lines, capsys):
    with pytest.raises(SystemExit, match="2"):
        await run("tail", "-n", lines)
