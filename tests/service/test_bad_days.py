"""Tampering, lost stores, floods, full disks, kills: nothing opens, nothing open closes."""

from __future__ import annotations

import errno
import os

import msgspec
import pytest
import pytest_twisted
from broker_host import until, uuid_of
from support.blocking import BlockingClient
from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread, deferToThread

from broker.core.record import verify_heartbeat
from broker.service import journal as journal_module
from broker.service.publisher import Publisher
from broker.xenstore import paths
from broker.xenstore.errors import AgainError, DeniedError, QuotaError

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred


async def granted(host, box, domid=3, label="web_a"):
    """A domain with a granted vif."""
    host.create(domid)
    if box.brokerd is None:
        await box.start()
    box.label(uuid_of(domid), label)
    vif = host.vif(domid)
    host.report(vif)
    await host.decided(vif, "grant")
    return vif


@run
@pytest.mark.parametrize("text", [b"", b"garbage", b"grant seq=9", b"\xff" * 100, b"x" * 2000])
async def test_a_record_that_somebody_overwrote_is_put_back(host, box, text):
    vif = await granted(host, box)
    good = host.text(vif)
    host.client.write(paths.decision_path(vif), text)
    await until(lambda: host.text(vif) == good)
    if text:
        await until(lambda: box.lines("alarm"))
        assert box.lines("alarm")[-1]["subject"] == paths.decision_path(vif)


@run
async def test_an_old_record_replayed_is_put_right(host, box):
    vif = await granted(host, box)
    old = host.text(vif)
    box.label(uuid_of(3), "lonely")
    box.label(uuid_of(3), "web_b")
    await until(lambda: host.record(vif).labels[0] == "web_b")
    good = host.text(vif)
    host.client.write(paths.decision_path(vif), old)
    await until(lambda: host.text(vif) == good)


@run
async def test_a_record_that_was_removed_is_published_again_with_its_number(host, box):
    vif = await granted(host, box)
    good = host.text(vif)
    host.client.rm(f"{paths.DECISIONS}/0")
    await until(lambda: host.text(vif) == good)


@run
async def test_a_store_restarted_empty_revokes_nothing(host, box):
    vif = await granted(host, box)
    good = host.text(vif)
    value = host.record(vif).nonce
    host.daemon.restart_empty()
    host.reconnect()
    await until(lambda: host.read(paths.STATE) == b"enforcing", "taking up the empty store")
    assert paths.decision_path(vif) in box.engine.state.ledger
    assert not box.lines("vanished")
    host.create(3)
    host.vif(3)
    host.report(vif, value.encode())
    await until(lambda: host.text(vif) == good)


@run
async def test_a_report_that_is_lost_revokes_nothing(host, box):
    vif = await granted(host, box)
    good = host.text(vif)
    host.client.rm(f"{paths.REPORTS}/0")
    host.vif(3, 1)
    await host.decided(paths.Channel(0, "vif", 3, "1"), "pending")
    assert host.text(vif) == good


@run
async def test_a_broker_that_stopped_asks_for_no_more_turns(host, box):
    await granted(host, box)
    engine = box.engine
    await box.stop()
    asked = []
    engine._display._on_due = lambda: asked.append(engine._display_due())
    engine._display.soon()
    await until(lambda: asked)
    assert engine._display.waiting
    assert engine._display._call is None


@run
async def test_a_restart_leaves_every_record_as_it_is(host, box):
    vif = await granted(host, box)
    good = host.text(vif)
    await box.stop()
    assert host.read(paths.STATE) == b"stopped"
    assert host.text(vif) == good
    await box.start()
    assert host.text(vif) == good
    assert box.engine.state.ledger[paths.decision_path(vif)].text == good


@run
async def test_changes_while_the_broker_was_down_are_decided_at_the_start(host, box):
    vif = await granted(host, box)
    host.vbd(3)
    other = host.vif(3, 1)
    await host.decided(other, "pending")
    await box.stop()
    host.detach(other)
    vbd = host.vbd(3, params="/dev/vg/blue-1")
    await box.start()
    await host.decided(vbd, "deny", "resource")
    assert host.verdict(vif) == "grant"
    await until(lambda: not host.text(other))


@run
async def test_the_heartbeat_never_goes_back(host, box):
    await granted(host, box)
    first = verify_heartbeat(await until(lambda: host.read(paths.HEARTBEAT)), box.public_key())
    await box.stop()
    await box.start()

    def beaten():
        return verify_heartbeat(host.read(paths.HEARTBEAT), box.public_key()) > first

    await until(beaten)


@run
async def test_while_the_audit_log_cannot_be_written_nothing_is_granted(host, box, monkeypatch):
    vif = await granted(host, box)
    good = host.text(vif)
    written = os.write

    def full(file, data):
        written(file, bytes(data)[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal_module.os, "write", full)
    other = host.vif(3, 1)
    host.report(other)
    await until(lambda: box.brokerd.audit.broken)
    assert not host.text(other)
    assert host.text(vif) == good
    await box.brokerd.heartbeat.beat()
    beat = host.read(paths.HEARTBEAT)
    await box.brokerd.heartbeat.beat()
    assert host.read(paths.HEARTBEAT) == beat
    status = await box.brokerd.admin.status(None, None)
    assert status.health == "red"
    assert not status.enforcing
    monkeypatch.undo()
    await box.brokerd.heartbeat.beat()
    await host.decided(other, "grant")
    assert all(isinstance(line, dict) for line in box.journal())


@run
async def test_a_flooding_guest_does_not_delay_the_others(host, box):
    await granted(host, box)
    guest = host.daemon.guest(7)
    stop = []

    def flood():
        client = BlockingClient(guest.path)
        number = 0
        while not stop:
            client.write(f"/local/domain/7/data/{number % 97}", b"x")
            client.write("/local/domain/7/device/vif/0/backend", b"x%d" % number)
            number += 1
            if number % 200 == 0:
                # The broker, in this process, gets to read: else oxenstored holds events back for
                # good (tests/xenstore/test_what_stalls_oxenstored.py).
                blockingCallFromThread(reactor, int)
        client.close()
        return number

    flooding = deferToThread(flood)
    for device in range(1, 20):
        vif = host.vif(3, device)
        host.report(vif)
        await host.decided(vif, "grant")
    assert len(box.engine._dirty) < 1000
    stop.append(True)
    assert await flooding > 0


@run
async def test_a_frontend_that_rewrites_its_backend_is_noted_and_loses_that_channel(host, box):
    vif = await granted(host, box)
    home = paths.frontend_dir(3, "vif", "0")
    host.client.write(f"{home}/backend-id", b"7\x1b[31m")
    host.client.write(f"{home}/backend", b"/local/domain/7/backend/vif/3/0")
    await until(lambda: box.lines("violation"))
    line = box.lines("violation")[0]
    assert (line["domid"], line["uuid"]) == (3, uuid_of(3))
    assert "\x1b" not in line["detail"]
    record = await host.decided(vif, "deny", "closed: frontend broke")
    assert "\x1b" not in record.reason
    assert record.backend == 0


@run
async def test_a_guest_that_goes_on_rewriting_is_only_counted_and_keeps_what_it_has(host, box):
    box.options["burst"] = 3
    # What the monitor of the protocol makes of it is held elsewhere.
    box.policy.write_text(box.policy.read_text() + "on_violation: {default: report}\n")
    vif = await granted(host, box)
    good = host.text(vif)
    home = paths.frontend_dir(3, "vif", "0")
    truth = host.read(f"{home}/backend")
    for number in range(40):
        said = truth if number % 3 == 0 else b"/nowhere/%d" % number
        host.client.write(f"{home}/backend", said)
        host.client.write(f"{home}/backend-id", str(number))
        device = box.engine.mirror.domains[3].devices["vif", "0"]
        await until(lambda: device.untrusted_backend == said)  # noqa: B023 - awaited here
    lines = [line for line in box.lines("violation") if line["rule"] == "frontend-dir"]
    kinds = [line["detail"].partition(":")[0] for line in lines]
    assert sorted(kinds) == sorted(set(kinds))
    assert len(kinds) == 2
    assert host.text(vif) == good
    assert not box.engine.state.quarantine


@run
async def test_a_driver_domain_that_makes_up_lives_without_end_is_quarantined(host, box):
    box.options["burst"] = 3
    host.create(5)
    host.create(6)
    await box.start()
    box.label(uuid_of(5), "driver")
    box.label(uuid_of(6), "driver")
    host.create(3)
    box.label(uuid_of(3), "plain")
    wild, quiet = host.vif(3, 0, backend=5), host.vif(3, 1, backend=6)
    host.report(quiet)
    good = (await host.decided(quiet, "grant")).id
    while uuid_of(5) not in box.engine.state.quarantine:
        last = host.report(wild)
        seen = box.engine.mirror.device_of
        await until(lambda: seen(wild) and seen(wild).untrusted_nonce == last)  # noqa: B023
    record = await host.decided(wild, "deny", "quarantined")
    lines = len(box.lines("decided"))
    for _ in range(20):
        last = host.report(wild)
    await until(lambda: box.engine.mirror.device_of(wild).untrusted_nonce == last)
    assert len(box.lines("decided")) == lines
    assert host.record(wild).id == record.id
    assert host.record(quiet).id == good
    await box.stop()
    await box.start()
    assert host.verdict(wild) == "deny"
    box.label(uuid_of(5), "driver")
    host.report(wild)
    await host.decided(wild, "grant")


@run
async def test_a_state_rolled_back_is_refused_and_accepted_with_init(host, box):
    vif = await granted(host, box)
    await box.stop()
    old = (box.state / "audit.jsonl").read_bytes()
    await box.start()
    value = host.report(vif)
    await until(lambda: host.record(vif).nonce == value.decode())
    newest = host.record(vif).seq
    text = host.text(vif)
    await box.stop()
    (box.state / "audit.jsonl").write_bytes(old)
    brokerd = await box.start(init=False)
    assert "older than what is published" in brokerd.refused
    assert host.text(vif) == text
    await box.stop()
    await box.start(init=True)
    host.report(vif)
    record = await until(lambda: host.record(vif) if host.record(vif).seq > newest else None)
    assert record.seq > newest


@run
async def test_after_a_kill_between_audit_and_publishing_the_record_is_published(host, box):
    vif = await granted(host, box)
    good = host.text(vif)
    await box.stop()
    host.client.write(paths.decision_path(vif), b"")
    await box.start()
    assert host.text(vif) == good


@run
async def test_every_decision_is_in_the_audit_log_before_its_outcome(host, box):
    vif = await granted(host, box)
    await until(lambda: any(host.record(vif).seq in it["seqs"] for it in box.lines("published")))
    lines = box.journal()
    seq = host.record(vif).seq
    intent = next(i for i, it in enumerate(lines) if f" seq={seq} " in it.get("text", ""))
    outcome = next(i for i, it in enumerate(lines) if seq in it.get("seqs", ()))
    assert intent < outcome
    assert lines[intent]["text"].encode() == host.text(vif)
    assert msgspec.json.encode(lines[intent])


@run
@pytest.mark.parametrize(
    "error", [QuotaError("ENOSPC"), AgainError("EAGAIN"), DeniedError("EACCES")]
)
async def test_a_record_the_store_does_not_take_is_audited_and_tried_again(
    host, box, monkeypatch, error
):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    taken = Publisher.records
    refusals = []

    async def refuse(self, items):
        if len(refusals) < 3:
            refusals.append(items)
            return [error for _ in items]
        return await taken(self, items)

    monkeypatch.setattr(Publisher, "records", refuse)
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "grant")
    assert len(refusals) == 3
    line = box.lines("unpublished")[0]
    assert line["path"] == paths.decision_path(vif)
    assert error.errno_name in line["error"]
    await until(lambda: box.engine.decider.unpublished == 0)


@run
async def test_a_record_that_was_never_taken_is_forgotten_with_its_device(host, box, monkeypatch):
    async def refuse(_self, items):
        return [DeniedError("EACCES", "no room") for _ in items]

    monkeypatch.setattr(Publisher, "records", refuse)
    host.create(3)
    await box.start()
    host.vif(3)
    await until(lambda: box.engine.decider.unpublished == 1)
    host.destroy(3)
    await until(lambda: box.engine.decider.unpublished == 0)


@run
async def test_a_turn_that_fails_starts_over_and_opens_nothing(host, box, monkeypatch):
    vif = await granted(host, box)
    good = host.text(vif)
    judge = box.engine.judge.judge
    failures = []

    def fail(device):
        if not failures:
            failures.append(device)
            raise RuntimeError("a defect \x1b[31m")
        return judge(device)

    monkeypatch.setattr(box.engine.judge, "judge", fail)
    host.report(vif)
    await until(lambda: failures)
    record = await until(lambda: host.record(vif) if host.text(vif) != good else None)
    assert record.verdict == "grant"
    assert "a turn failed" in box.brokerd.audit.last_error[1]
    assert "\x1b" not in box.brokerd.audit.last_error[1]


@run
async def test_a_disk_that_fails_at_the_end_keeps_nobody_from_stopping(host, box, monkeypatch):
    await box.start()

    def failing(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    brokerd = box.brokerd
    monkeypatch.setattr(journal_module.os, "fdatasync", failing)
    await box.stop()
    assert "No space left" in brokerd.audit.last_error[1]
