"""A broken protocol: the party is named, and dealt with as the policy says, and nobody else."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from twisted.internet import task

from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred


def policy(**actions):
    said = ", ".join(f"{key}: {action}" for key, action in actions.items())
    return f"{POLICY}on_violation: {{{said}}}\nprotected: [lonely]\n"


async def granted(host, box, domid, label="plain"):
    host.create(domid)
    box.label(uuid_of(domid), label)
    vif = host.vif(domid)
    ends(host, vif, "state", "1", "1")
    host.report(vif)
    enforced(host, vif, await host.decided(vif, "grant"))
    return vif


def enforced(host, channel, record):
    """The agent's report that it has done what a record says."""
    state = "open" if record.verdict == "grant" else "closed"
    line = f"{state} seq={record.seq} nonce={record.nonce} reason=-"
    host.client.write(f"{paths.report_dir(channel)}/enforced", line)


def ends(host, channel, key, front=None, back=None):
    """Write a key at one end or both."""
    args = (channel.device_class, channel.frontend, channel.device)
    if front is not None:
        home = paths.frontend_dir(channel.frontend, channel.device_class, channel.device)
        host.client.write(f"{home}/{key}", front)
    if back is not None:
        home = paths.backend_dir(channel.backend, *args)
        host.client.write(f"{home}/{key}", back)


async def looked(box, channel):
    """Until the channel was looked at, and nothing waits to be."""
    device = box.engine.mirror.device_of(channel)
    police = box.engine.police
    await until(lambda: device in police._lives and not police._marked and not police._busy)


@run
async def test_a_guest_that_breaks_its_protocol_loses_that_channel_and_nobody_else_anything(
    host, box
):
    await box.start()
    vif, other = await granted(host, box, 3), await granted(host, box, 4)
    second = await granted(host, box, 5)
    await looked(box, vif)
    ends(host, vif, "state", front="99")
    record = await host.decided(vif, "deny", "closed: frontend broke")
    assert record.nonce is not None
    (line,) = box.lines("sanctioned")
    assert (line["party"], line["uuid"], line["action"]) == ("frontend", uuid_of(3), "close")
    assert host.verdict(other) == host.verdict(second) == "grant"
    assert not box.engine.state.quarantine


@run
async def test_a_sanction_survives_the_broker_and_ends_with_the_life(host, box):
    await box.start()
    vif = await granted(host, box, 3)
    await looked(box, vif)
    ends(host, vif, "state", front="99")
    enforced(host, vif, await host.decided(vif, "deny", "closed: frontend broke"))
    await box.stop()
    await box.start()
    assert host.verdict(vif) == "deny"
    host.detach(vif)
    await until(lambda: host.record(vif) is None)
    host.client.rm(paths.backend_dir(0, "vif", 3, "0"))
    box.engine.judge.clock = lambda: 2.0**40
    again = host.vif(3)
    host.report(again)
    await host.decided(again, "grant")


@run
async def test_a_domain_that_broke_a_protocol_waits_for_its_next_channel(host, box):
    await box.start()
    vif, other = await granted(host, box, 3), await granted(host, box, 4)
    await looked(box, vif)
    ends(host, vif, "state", front="99")
    denied = await host.decided(vif, "deny", "closed: frontend broke")
    enforced(host, vif, denied)
    new = host.vif(3, 1)
    host.report(new)
    await host.decided(new, "pending", "its domain broke protocols, 1 times")
    another = host.vif(4, 1)
    host.report(another)
    await host.decided(another, "grant")
    box.engine.judge.clock = lambda: box.engine.state.damping[uuid_of(3)].until + 1
    box.engine.tick()
    await host.decided(new, "grant")
    assert host.verdict(other) == "grant"


@run
async def test_what_only_is_to_be_reported_closes_nothing(host, box):
    box.policy.write_text(policy(default="report"))
    await box.start()
    vif = await granted(host, box, 3)
    await looked(box, vif)
    ends(host, vif, "state", front="99")
    await until(lambda: any(it["rule"].startswith("frontend") for it in box.lines("violation")))
    await looked(box, vif)
    assert host.verdict(vif) == "grant"
    assert not box.lines("sanctioned")


@run
async def test_quarantine_takes_every_channel_of_the_guilty_domain_and_is_durable(host, box):
    box.policy.write_text(policy(default="quarantine"))
    await box.start()
    vif, other = await granted(host, box, 3), await granted(host, box, 4)
    second = host.vif(3, 1)
    host.report(second)
    await host.decided(second, "grant")
    await looked(box, vif)
    ends(host, vif, "state", front="99")
    for channel in (vif, second):
        await host.decided(channel, "deny", "quarantine")
    assert host.verdict(other) == "grant"
    await box.stop()
    await box.start()
    assert uuid_of(3) in box.engine.state.quarantine
    assert host.verdict(vif) == "deny"


@run
async def test_a_protected_label_and_domain_0_lose_no_more_than_the_channel(host, box):
    text = policy(default="quarantine")
    box.policy.write_text(text.replace("lonely: {ste: [blue]}", "lonely: {ste: [red]}"))
    await box.start()
    vif = await granted(host, box, 3, "lonely")
    other = await granted(host, box, 4)
    for channel in (vif, other):
        await looked(box, channel)
    ends(host, vif, "state", front="99")
    await host.decided(vif, "deny", "closed: frontend broke")
    ends(host, other, "state", back="99")
    await host.decided(other, "deny", "closed: backend broke")
    assert not box.engine.state.quarantine


@run
async def test_a_guest_that_never_rests_is_looked_at_now_and_then_only(host, box):
    await box.start()
    vif = await granted(host, box, 3)
    await looked(box, vif)
    looks = 0
    plain = box.engine.police._look

    async def counted(device):
        nonlocal looks
        looks += 1
        await plain(device)

    box.engine.police._look = counted
    clock = box.engine._clock
    end = clock.seconds() + 1.0
    written = 0
    while clock.seconds() < end:
        ends(host, vif, "feature-rx-copy", front=str(written % 2))
        written += 1
        await task.deferLater(clock, 0.005)
    assert looks <= 12 < written


@run
async def test_what_the_ends_show_while_the_agent_is_at_work_is_nobodys_fault(host, box):
    """Unbound and bound again, a backend goes back to waiting: no protocol knows that."""
    await box.start()
    vif = await granted(host, box, 3)
    ends(host, vif, "state", back="2")
    await looked(box, vif)
    box.brokerd.admin.labels.remove(box.selector(uuid_of(3)), "test")
    denied = await host.decided(vif, "deny", "unlabelled")
    ends(host, vif, "state", back="1")
    device = box.engine.mirror.device_of(vif)
    await until(lambda: device not in box.engine.police._lives)
    enforced(host, vif, denied)
    ends(host, vif, "state", back="4")  # as blkback leaves it when it was unbound
    box.label(uuid_of(3), "plain")
    again = await host.decided(vif, "grant")
    ends(host, vif, "state", back="2")
    assert not box.lines("violation")
    enforced(host, vif, again)
    await looked(box, vif)
    assert not box.lines("violation")
    ends(host, vif, "state", front="99")
    await host.decided(vif, "deny", "closed: frontend broke")


@pytest.mark.parametrize("action", ["reset", "destroy"])
@run
async def test_what_takes_more_than_a_denial_is_ordered_of_dom0(host, box, action):
    box.policy.write_text(policy(default=action))
    host.client.write(paths.ORDER_RESULTS, b"connect,disconnect,reset,destroy")
    await box.start()
    vif, other = await granted(host, box, 3), await granted(host, box, 4)
    for channel in (vif, other):
        await looked(box, channel)
    ends(host, vif, "state", front="99")
    await host.decided(vif, "deny", f"{action}: frontend broke")
    await until(lambda: box.lines("ordered"))
    ends(host, other, "state", back="99")
    await host.decided(other, "deny", "closed: backend broke")
    (line,) = box.lines("ordered")
    assert (line["kind"], line["domid"], line["uuid"]) == (action, 3, uuid_of(3))


@run
async def test_a_sanction_of_one_life_shields_nobody_in_the_next(host, box):
    """The same device, and an agent that began a new life of it."""
    await box.start()
    vif = await granted(host, box, 3)
    await looked(box, vif)
    ends(host, vif, "state", front="99")
    await host.decided(vif, "deny", "closed: frontend broke")
    ends(host, vif, "state", "1", "1")
    box.engine.judge.clock = lambda: 2.0**40
    host.report(vif)
    enforced(host, vif, await host.decided(vif, "grant"))
    await looked(box, vif)
    ends(host, vif, "state", front="99")
    await host.decided(vif, "deny", "closed: frontend broke")
    assert len(box.lines("sanctioned")) == 2
