"""Grants taken back: what must not meet them waits until the backend's agent has closed them."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import until, uuid_of

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.service import decider
from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred


async def open_disk(host, box, domid, *, backend=0):
    """A domain of label `web_a` with a granted disk; the channel and the life's nonce."""
    box.label(uuid_of(domid), "web_a")
    vbd = host.vbd(domid, backend=backend)
    life = host.report(vbd)
    await host.decided(vbd, "grant")
    return vbd, life


def enforce(host, channel, state, life, seq):
    """The agent's report of what it enforces."""
    line = f"{state} seq={seq} nonce={life.decode()} reason=-"
    host.client.write(f"{paths.report_dir(channel)}/enforced", line)


@run
async def test_a_relabelled_domain_gets_nothing_new_until_what_it_had_is_closed(host, box):
    host.create(3)
    await box.start()
    vbd, life = await open_disk(host, box, 3)
    box.label(uuid_of(3), "plain")
    denied = await host.decided(vbd, "deny")
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "pending", f"waits until {vbd} is known to be closed")
    enforce(host, vbd, "open", life, denied.seq)
    enforce(host, vbd, "closed", life, denied.seq)
    await host.decided(vif, "grant")
    (line,) = box.lines("confirmed")
    assert (line["path"], line["seq"]) == (paths.decision_path(vbd), denied.seq)


@pytest.mark.parametrize("batch", [1, decider.BATCH])
@run
async def test_what_one_relabelling_takes_and_gives_is_not_open_together(
    host, box, batch, monkeypatch
):
    monkeypatch.setattr(decider, "BATCH", batch)
    host.create(3)
    host.create(7)
    await box.start()
    box.label(uuid_of(7), "lonely")
    vif = host.vif(3, backend=7)
    host.report(vif)
    vbd, life = await open_disk(host, box, 3)
    await host.decided(vif, "deny")
    box.label(uuid_of(3), "lonely")
    denied = await host.decided(vbd, "deny")
    await host.decided(vif, "pending", f"waits until {vbd} is known to be closed")
    granted = [it["path"] for it in box.lines("decided") if it["text"].startswith("grant ")]
    assert granted == [paths.decision_path(vbd)]
    enforce(host, vbd, "closed", life, denied.seq)
    await host.decided(vif, "grant")


@run
async def test_a_denial_that_no_agent_saw_yet_is_not_covered_by_what_closes_nothing(host, box):
    host.create(3)
    await box.start()
    vbd, disk = await open_disk(host, box, 3)
    vif = host.vif(3)
    nic = host.report(vif)
    await host.decided(vif, "grant")
    box.label(uuid_of(3), "lonely")
    for channel in (vbd, vif):
        await host.decided(channel, "deny")
    box.label(uuid_of(3), "web_a")
    # Each waits for the other; an agent that saw none of the first denials closes by these.
    again = [
        await host.decided(vbd, "deny", f"waits until {vif} is known to be closed"),
        await host.decided(vif, "deny", f"waits until {vbd} is known to be closed"),
    ]
    for channel, life, denied in zip((vbd, vif), (disk, nic), again, strict=True):
        enforce(host, channel, "closed", life, denied.seq)
    for channel in (vbd, vif):
        await host.decided(channel, "grant")


@run
async def test_a_resource_changes_hands_only_when_its_former_holder_is_cut_off(host, box):
    host.create(3)
    host.create(4)
    await box.start()
    vbd, life = await open_disk(host, box, 3)
    box.brokerd.admin.labels.remove(box.selector(uuid_of(3)), "test")
    denied = await host.decided(vbd, "deny")
    box.label(uuid_of(4), "web_a")
    other = host.vbd(4)
    host.report(other)
    await host.decided(other, "pending", "waits until")
    enforce(host, vbd, "closed", life, denied.seq)
    await host.decided(other, "grant")


@run
async def test_what_is_open_and_undisturbed_does_not_wait(host, box):
    host.create(3)
    await box.start()
    vbd, _ = await open_disk(host, box, 3)
    vif = host.vif(3)
    host.report(vif)
    granted = await host.decided(vif, "grant")
    host.client.write(f"/libxl/3/device/vbd/{vbd.device}/params", "/dev/vg/blue-1")
    await host.decided(vbd, "deny")
    box.policy.write_text(box.policy.read_text() + "\n# the same, with another digest\n")
    box.brokerd.reload()
    again = await until(lambda: record if (record := host.record(vif)).seq != granted.seq else None)
    assert again.verdict == "grant"


@run
async def test_a_device_that_is_gone_has_nothing_left_to_confirm(host, box):
    host.create(3)
    await box.start()
    vbd, _ = await open_disk(host, box, 3)
    box.label(uuid_of(3), "plain")
    await host.decided(vbd, "deny")
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "pending", "waits until")
    host.detach(vbd)
    await host.decided(vif, "grant")


@run
async def test_a_wait_survives_the_broker(host, box):
    host.create(3)
    await box.start()
    vbd, life = await open_disk(host, box, 3)
    box.label(uuid_of(3), "plain")
    denied = await host.decided(vbd, "deny")
    await box.stop()
    await box.start()
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "pending", "waits until")
    enforce(host, vbd, "closed", life, denied.seq)
    await host.decided(vif, "grant")


@run
async def test_a_driver_domain_that_keeps_silent_is_held_apart_and_its_end_ends_the_wait(host, box):
    host.create(3)
    host.create(7)
    await box.start(patience=0.2)
    box.label(uuid_of(7), "driver")
    box.label(uuid_of(3), "web_a")
    served = host.vif(3, backend=7)
    host.report(served)
    await host.decided(served, "grant")
    box.label(uuid_of(3), "lonely")
    await host.decided(served, "deny")
    box.label(uuid_of(3), "web_a")
    await host.decided(served, "grant")
    box.label(uuid_of(3), "lonely")
    await host.decided(served, "deny")
    box.engine.revoking.check()
    await until(box.engine.revoking.overdue, "the time is up")
    box.engine.revoking.check()
    await until(lambda: uuid_of(7) in box.engine.state.quarantine)
    assert any("not confirmed" in line["detail"] for line in box.lines("alarm"))
    box.label(uuid_of(3), "plain")
    other = host.vif(3, 1)
    host.report(other)
    await host.decided(other, "pending", "waits until")
    await host.decided(served, "deny", "quarantined: backend domain 7")
    host.destroy(7)
    await host.decided(other, "grant")


@run
async def test_dom0_that_keeps_silent_is_named_in_the_status_and_never_held_apart(host, box):
    host.create(3)
    await box.start(patience=0.05)
    vbd, _ = await open_disk(host, box, 3)
    box.label(uuid_of(3), "plain")
    await host.decided(vbd, "deny")
    box.engine.revoking.check()
    await until(box.engine.revoking.overdue)
    box.engine.revoking.check()
    assert not box.engine.state.quarantine
    caller = Caller(subject="test", role=ROOT, person="test")
    status = await box.brokerd.admin.status(caller, methods.Nothing())
    assert any(str(vbd) in problem for problem in status.problems)
