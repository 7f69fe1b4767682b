"""Each thing that can be wrong turns the status, says what to do, and is gone when it is right."""

from __future__ import annotations

import errno

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from support.xenstoreds import start_store

from broker.core.agent_report import BOOTSTRAP, MISSING, AgentReport, encode_agent_report
from broker.core.record import encode_value
from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.rpc.certificates import Notice
from broker.service import events
from broker.service import health as health_module
from broker.service import journal as journal_module
from broker.service.state import Proposal
from broker.xenstore import paths

run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")
LATER = 100.0


@pytest.fixture
def store_daemon():
    daemon = start_store("embedded")
    yield daemon
    daemon.stop()


def findings(box):
    return {it.kind: it for it in box.brokerd.health.findings()}


async def status(box):
    return await box.brokerd.admin.status(CALLER, methods.Nothing())


async def turns(box, kind, level, *words):
    """The status has this finding; it says all of `words`."""
    await until(lambda: kind in findings(box), f"{kind} is found")
    now = await status(box)
    assert now.health == level
    (finding,) = [it for it in now.findings if it.kind == kind]
    assert finding.level == level
    assert finding.action
    for word in words:
        assert word in str(finding)
    assert str(finding) in (now.problems if level == "red" else now.warnings)


async def is_green(box):
    await until(lambda: not findings(box), "nothing is wrong")
    assert (await status(box)).health == "green"


async def granted(host, box, domid=3, label="web_a"):
    host.create(domid)
    if box.brokerd is None:
        await box.start()
    box.label(uuid_of(domid), label)
    vif = host.vif(domid)
    life = host.report(vif)
    record = await host.decided(vif, "grant")
    enforce(host, vif, "open", life, record.seq)
    await until(lambda: box.engine.metrics.confirm.count, "it is confirmed")
    return vif, life


def enforce(host, channel, state, life, seq):
    line = f"{state} seq={seq} nonce={life.decode()} reason=it%20is%20so"
    host.client.write(f"{paths.report_dir(channel)}/enforced", line)


def reports(host, backend=0, **said):
    values = {"at": 7, "version": "0.1.0", "policy": None, "beat": True, **said}
    host.client.write(paths.agent_path(backend), encode_agent_report(AgentReport(**values)))


async def heard(host, box, **said):
    """The agent says this now, and the broker hears it."""
    box.engine.mirror.agents_heard.pop(0, None)
    reports(host, **said, at=int(box.engine.mirror.agents_heard.get(0, 8)) + len(said))
    await until(lambda: 0 in box.engine.mirror.agents_heard, "it is heard")


@run
async def test_a_broker_that_does_what_it_should_is_green(host, box):
    await granted(host, box)
    await heard(host, box)
    await is_green(box)
    assert (await status(box)).findings == ()


@run
async def test_a_lost_store(host, box):
    await granted(host, box)
    await is_green(box)
    host.daemon.kill()
    await turns(box, "store_lost", "red", "every gate stays", "start xenstored")
    host.daemon.restart_empty()
    await until(lambda: "store_lost" not in findings(box), "the store is back")
    await until(lambda: box.engine.phase == "enforcing", "all is read again")
    await is_green(box)


@run
async def test_while_not_everything_is_read(host, box):
    await granted(host, box)
    box.engine.phase = "reconciling"
    await turns(box, "reconciling", "red", "wait")
    box.engine.phase = "enforcing"
    await is_green(box)


@run
async def test_a_broker_that_nothing_holds(host, box):
    await granted(host, box)
    box.brokerd.health.unheld = ("Landlock", "seccomp filters")
    await turns(box, "unconfined", "amber", "without Landlock and seccomp filters", "`confine`")
    box.brokerd.health.unheld = ()
    await is_green(box)


@run
async def test_no_policy(host, box):
    box.options["policy"] = None
    await box.start()
    await turns(box, "no_policy", "red", "everything is denied", "brokerctl policy load")
    await box.load(POLICY)
    await is_green(box)


@run
async def test_observe_mode(host, box):
    observing = POLICY + (
        "mode: {observe: {opens: [{class: vbd, frontend: plain}], until: 2099-12-31}}\n"
    )
    box.policy.write_text(observing)
    await box.start()
    await turns(box, "observe_mode", "red", "2099-12-31", "policy observed")
    await box.load(POLICY, revoke=True)
    await is_green(box)


@run
async def test_an_audit_log_that_cannot_be_written(host, box, monkeypatch):
    await granted(host, box)

    def full(_file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal_module.os, "fdatasync", full)
        assert not box.brokerd.audit.commit([events.Alarm(1.0, "a test", "of the audit log")])
        await turns(box, "audit_broken", "red", "No space left", "make room")
        assert box.brokerd.audit.journal.failures
    await box.brokerd.heartbeat.beat()
    await until(lambda: box.engine.phase == "enforcing" and not box.brokerd.audit.broken)
    assert "audit_broken" not in findings(box)


@run
async def test_a_log_that_cannot_be_rotated(host, box):
    await granted(host, box)
    box.brokerd.audit.unrotated = "it grows beyond its size"
    await turns(box, "audit_unrotated", "red", "grows", "make room")
    box.brokerd.audit.unrotated = None
    await is_green(box)


@run
async def test_an_alarm_is_shown_for_an_hour(host, box, monkeypatch):
    await granted(host, box)
    box.brokerd.audit.alarm("/broker/v1/x", "does not hold what it should")
    await turns(box, "alarm", "amber", "1 alarm", "does not hold", "audit tail --event alarm")
    box.brokerd.audit.alarm("/broker/v1/y", "nor this")
    await turns(box, "alarm", "amber", "2 alarms", "nor this")
    monkeypatch.setattr(health_module, "ALARMED", 0.0)
    await is_green(box)


@run
async def test_a_heartbeat_that_stopped(host, box):
    await granted(host, box)
    await box.brokerd.heartbeat.beat()
    box.brokerd._beating.stop()
    await is_green(box)
    box.brokerd.heartbeat.last -= LATER
    box.brokerd.health._enforcing_since -= LATER
    await turns(box, "heartbeat_stopped", "red", "for 100 s", "broker's log")
    await box.brokerd.heartbeat.beat()
    await is_green(box)


@run
async def test_a_decision_that_nobody_confirms(host, box, monkeypatch):
    box.options["patience"] = 1000.0
    vif, life = await granted(host, box)
    box.label(uuid_of(3), "web_b")
    record = await host.decided(vif, "grant")
    await until(lambda: host.record(vif).labels[0] == "web_b")
    record = host.record(vif)
    await until(lambda: box.engine.confirming.waiting, "it waits for its confirmation")
    await is_green(box)  # there is time
    monkeypatch.setattr(box.brokerd.health, "_patience", 0.0)
    await turns(box, "unconfirmed", "red", "vif/3/0", "broker-agent running in domain 0")
    enforce(host, vif, "open", life, record.seq)
    await is_green(box)
    assert box.engine.metrics.confirm.count == 2


@run
async def test_what_is_unconfirmed_is_known_after_a_restart_and_forgotten_with_its_device(
    host, box, monkeypatch
):
    vif, _ = await granted(host, box)
    host.client.rm(f"{paths.report_dir(vif)}/enforced")
    await box.stop()
    brokerd = await box.start()
    monkeypatch.setattr(brokerd.health, "_patience", 0.0)
    await turns(box, "unconfirmed", "red", "vif/3/0")
    host.detach(vif)
    await is_green(box)


@run
async def test_a_denial_that_its_agent_could_not_enforce(host, box):
    vif, life = await granted(host, box)
    box.brokerd.admin.labels.remove(box.selector(uuid_of(3)), "test")
    record = await host.decided(vif, "deny")
    enforce(host, vif, "failed", life, record.seq)
    await turns(box, "not_closed", "red", "vif/3/0", "it is so", "destroy the domain")
    enforce(host, vif, "closed", life, record.seq)
    await is_green(box)


@run
async def test_a_denied_device_that_the_operator_lets_open_anyway_is_no_fault(host, box):
    vif, life = await granted(host, box)
    box.brokerd.admin.labels.remove(box.selector(uuid_of(3)), "test")
    record = await host.decided(vif, "deny")
    enforce(host, vif, "open", life, record.seq)
    await turns(box, "not_closed", "red", "reports it open")
    line = f"open seq={record.seq} nonce={life.decode()} reason={encode_value(BOOTSTRAP)}"
    host.client.write(f"{paths.report_dir(vif)}/enforced", line)
    await until(lambda: "not_closed" not in findings(box))


@run
async def test_a_grant_that_its_agent_could_not_open(host, box):
    vif, life = await granted(host, box)
    enforce(host, vif, "failed", life, host.record(vif).seq)
    await turns(box, "gate_failed", "amber", "vif/3/0", "it is so")
    enforce(host, vif, "open", life, host.record(vif).seq)
    await is_green(box)


@run
async def test_a_revocation_that_is_not_confirmed(host, box, monkeypatch):
    box.options["patience"] = 1000.0
    vif, life = await granted(host, box)
    box.brokerd.admin.labels.remove(box.selector(uuid_of(3)), "test")
    record = await host.decided(vif, "deny")
    await is_green(box)
    monkeypatch.setattr(box.engine.revoking, "_patience", 0.0)
    monkeypatch.setattr(box.brokerd.health, "_patience", 0.0)
    await turns(box, "revocation_unconfirmed", "red", "vif/3/0", "broker-agent running")
    assert "unconfirmed" not in findings(box)  # said once
    enforce(host, vif, "closed", life, record.seq)
    await until(lambda: not box.engine.state.revocations)
    await until(lambda: "revocation_unconfirmed" not in findings(box))


@run
async def test_a_domain_that_is_quarantined(host, box):
    await granted(host, box)
    box.engine._hold_apart(3, "it went on and on")
    await turns(box, "quarantined", "red", "went on", "label it anew")
    box.label(uuid_of(3), "web_a")
    await until(lambda: "quarantined" not in findings(box))


@run
async def test_a_device_that_no_agent_reports_on(host, box, monkeypatch):
    await granted(host, box)
    host.create(4)
    box.label(uuid_of(4), "plain")
    vif = host.vif(4)
    await host.decided(vif, "pending")
    await is_green(box)
    monkeypatch.setattr(health_module, "UNMET", 0.0)
    await turns(box, "agent_missing", "red", "vif/4/0", "start broker-agent in domain 0")
    life = host.report(vif)
    record = await host.decided(vif, "grant")
    enforce(host, vif, "open", life, record.seq)
    await is_green(box)


@run
async def test_an_agent_that_is_silent(host, box):
    await granted(host, box)
    await heard(host, box)
    box.engine.mirror.agents_heard[0] -= LATER
    await turns(box, "agent_stale", "red", "domain 0", "100 s ago", "is broker-agent running")
    reports(host, at=9)
    await is_green(box)


@run
async def test_an_agent_of_a_domain_that_serves_nobody_may_be_silent(host, box):
    vif, _ = await granted(host, box)
    await heard(host, box)
    box.engine.mirror.agents_heard[0] -= LATER
    await turns(box, "agent_stale", "red")
    host.detach(vif)
    await is_green(box)


@run
async def test_an_agent_that_hears_no_heartbeat(host, box, monkeypatch):
    await granted(host, box)
    await heard(host, box, beat=False)
    await is_green(box)  # it may have been started just now
    box.brokerd.health._deaf[0] -= LATER
    await turns(box, "agent_deaf", "red", "domain 0", "broker.pub")
    reports(host, at=9)
    await is_green(box)


@pytest.mark.parametrize("said", [MISSING, "sha256:" + "ab" * 32])
@run
async def test_a_policy_that_an_agent_does_not_follow(host, box, said):
    await granted(host, box)
    await heard(host, box, policy=said)
    await is_green(box)  # it may be about to
    box.brokerd.health._differs[0] -= LATER
    words = "has no file" if said == MISSING else "follows sha256:abababababab, not"
    await turns(box, "policy_unenforced", "red", "domain 0", words, "copy the policy's file")
    reports(host, at=9, policy=box.engine.judge.policy.digest)
    await is_green(box)


@run
async def test_what_is_no_report_of_an_agent_is_none(host, box):
    await granted(host, box)
    host.client.write(paths.agent_path(0), b"\x1b[2J")
    await until(lambda: box.engine.mirror.untrusted_agents)
    await is_green(box)
    (agent,) = await box.brokerd.admin.agent_list(CALLER, methods.Nothing())
    assert agent.age is None


@run
async def test_agents_are_listed_with_what_they_confirmed(host, box):
    vif, _ = await granted(host, box)
    await heard(host, box, open=1, policy=MISSING)
    host.create(4)
    box.label(uuid_of(4), "plain")
    await host.decided(host.vif(4), "pending")
    await until(lambda: box.engine.confirming.waiting, "the broker knows that it is decided")
    (agent,) = await box.brokerd.admin.agent_list(CALLER, methods.Nothing())
    assert (agent.backend, agent.name, agent.open, agent.policy) == (0, "Domain-0", 1, MISSING)
    assert (agent.channels, agent.unconfirmed) == (2, 1)
    assert agent.confirmed == host.record(vif).seq
    assert 0 <= agent.age < LATER


@pytest.mark.parametrize("urgent", [True, False])
@run
async def test_certificates_that_run_out(host, box, urgent):
    await granted(host, box)
    kind = "certificate_expired" if urgent else "certificate_expiring"
    notice = Notice(kind, "broker.crt expires", "brokerctl pki renew", urgent=urgent)
    box.brokerd.health.notices = lambda: (notice,)
    await turns(box, kind, "red" if urgent else "amber", "broker.crt", "pki renew")
    box.brokerd.health.notices = tuple
    await is_green(box)


@run
async def test_records_that_the_store_does_not_take(host, box, monkeypatch):
    await granted(host, box)
    device = next(iter(box.engine.mirror.devices()))
    box.engine.decider._retries[device] = 1.0
    await turns(box, "unpublished", "red", "1 decision not published", "dom0's helper")
    box.engine.decider._retries.clear()
    await is_green(box)


@run
async def test_a_policy_that_waits_for_a_second_person(host, box):
    await granted(host, box)
    proposal = Proposal(
        id="5f0c9a12",
        name="corp",
        version="2.0",
        digest="sha256:" + "ab" * 32,
        replaces=None,
        source="corp.yaml",
        governs=(),
        subject="ann",
        role="deployer",
        person="ann",
        proposed=0.0,
        expires=1e12,
    )
    box.engine.state.proposals[proposal.id] = proposal
    await turns(box, "policy_waiting", "amber", "corp 2.0", "policy review 5f0c9a12")
    box.engine.state.proposals.clear()
    await is_green(box)


@run
async def test_the_worst_comes_first(host, box):
    await granted(host, box)
    box.brokerd.audit.alarm("x", "odd")
    box.brokerd.audit.unrotated = "it grows"
    assert [it.level for it in (await status(box)).findings] == ["red", "amber"]
    assert (await status(box)).health == "red"


@run
async def test_domain_0s_agent_is_heard_also_where_no_toolstack_was(box):
    await box.start()
    assert 0 not in box.engine.mirror.domains
    await box.engine.connection.write(
        paths.agent_path(0), b"at=7 version=1 policy=- beat=1 open=0 closed=0 suspended=0 failed=0"
    )
    await until(lambda: 0 in box.engine.mirror.untrusted_agents, "it is heard")
    (agent,) = await box.brokerd.admin.agent_list(CALLER, methods.Nothing())
    assert (agent.backend, agent.name, agent.version) == (0, None, "1")
