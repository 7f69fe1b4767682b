"""Whoever can write xenstore: records replayed, reordered, cut, forged, heartbeats stopped."""

from __future__ import annotations

import signal

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.product import mac, until

from broker.core.record import sign_heartbeat, sign_record
from broker.sim.toolstack import vbd, vif
from broker.xenstore import paths

run = pytest_twisted.ensureDeferred
RED = "/dev/vg/red-1"


async def history(product):
    """A domain whose vif was granted, denied and granted, and its disk; the records, in order."""
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, RED), label="red")
    nic, disk = domain.devices
    await product.comes_to(domain, nic, "grant")
    await product.comes_to(domain, disk, "grant")
    texts = [product.text(domain, nic), product.text(domain, disk)]
    product.label(domain, "jailed")
    await product.comes_to(domain, disk, "deny")
    await product.comes_to(domain, nic, "deny")
    texts += [product.text(domain, nic), product.text(domain, disk)]
    return domain, texts


def forgeries(product, domain, texts):
    """Texts that must not open the denied vif."""
    grant, of_the_disk, deny, _ = texts
    record = product.audit.by_text[grant].record
    higher = b" seq=%d " % (record.seq + 1000)
    return [
        grant,  # replayed
        of_the_disk,  # for another path
        grant.replace(b" seq=%d " % record.seq, higher),  # renumbered
        deny.replace(b"deny ", b"grant ", 1),
        grant[: len(grant) // 2],
        grant[:-1],
        grant + b" ",
        grant + b"\n",
        grant.rpartition(b" sig=")[0],
        b" ".join([grant.split(b" ")[0], *reversed(grant.split(b" ")[1:])]),  # reordered
        grant.replace(b" id=", b" seq=%d id=" % (record.seq + 1000), 1),  # doubled
        sign_record(record, Ed25519PrivateKey.generate()),
        b"grant",
        b"\xff" * 2000,
        b"\x1b[2Jgrant",
    ]


@run
async def test_a_forged_record_is_put_back_and_opens_nothing(product):
    domain, texts = await history(product)
    nic = domain.devices[0]
    good = product.text(domain, nic)
    product.audit.refresh()
    for forged in forgeries(product, domain, texts):
        product.client.write(product.decision_path(domain, nic), forged)
        await until(lambda: product.text(domain, nic) == good, "the record put back")
        assert not product.is_open(domain, nic)
    await product.fence()
    assert not product.is_open(domain, nic)


@run
async def test_a_forged_record_opens_and_closes_nothing_while_the_broker_is_stopped(product):
    domain, texts = await history(product)
    nic, disk = domain.devices
    open_one = await product.create(vif(0, mac(2, 0)), label="red")
    other = open_one.devices[0]
    await product.comes_to(open_one, other, "grant")
    product.audit.refresh()
    assert product.terminate("brokerd") == 0
    assert product.read(paths.STATE) == b"stopped"
    good = {it.devid: product.text(domain, it) for it in domain.devices}
    good_other = product.text(open_one, other)

    async def seen(victim, device, forged):
        """Write it, and let the agent deal with it."""
        product.client.write(product.decision_path(victim, device), forged)
        await product.agent_saw()

    for forged in forgeries(product, domain, texts):
        for device in (nic, disk):
            await seen(domain, device, forged)
            assert not product.is_open(domain, device)
    # what is open stays open: garbage, nothing, denials of other channels and other lives
    for forged in [b"", b"deny", texts[2], texts[3], good_other.replace(b"grant", b"deny", 1)]:
        await seen(open_one, other, forged)
        assert product.is_open(open_one, other)
    product.client.rm(product.decision_path(open_one, other))
    await product.restart("brokerd")
    await until(lambda: product.text(open_one, other) == good_other, "the record published again")
    for device in (nic, disk):
        await until(lambda device=device: product.text(domain, device) == good[device.devid])
    await product.fence()
    assert not product.monitor.closings(other.backend_dir(open_one.domid))
    assert not product.is_open(domain, nic)
    assert not product.is_open(domain, disk)


@run
async def test_a_grant_of_an_earlier_life_opens_no_later_one(product):
    domain = await product.create(vbd(51712, RED), label="red")
    disk = domain.devices[0]
    await product.comes_to(domain, disk, "grant")
    old = product.text(domain, disk)
    product.signal("brokerd", signal.SIGSTOP)
    try:
        await product.detach(domain, disk)
        await product.attach(domain, disk)
        await until(lambda: product.report(domain, disk).startswith("closed"), "a new life")
        product.client.write(product.decision_path(domain, disk), old)
        await until(lambda: "another" in product.report(domain, disk), "the refusal")
        assert not product.is_open(domain, disk)
    finally:
        product.signal("brokerd", signal.SIGCONT)
    await product.comes_to(domain, disk, "grant")


@run
async def test_reports_that_somebody_forged_open_nothing_and_are_put_right(product):
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, RED), label="red")
    nic, disk = domain.devices
    await product.comes_to(domain, nic, "grant")
    record = await product.comes_to(domain, disk, "grant")
    report = paths.report_dir(product.channel(domain, nic))
    for value in (record.nonce.encode(), b"", b"\xff" * 100, b"0" * 32):
        product.client.write(f"{report}/nonce", value)
        product.client.write(f"{report}/enforced", b"open seq=1 \x1b]0;x\x07 " + value)
        await product.fence()
    assert product.ctl("channel", "list")[0] == 0
    assert product.ctl("channel", "list", json=True)[0] == 0


@run
async def test_when_the_heartbeat_stops_nothing_opens_until_it_goes_on(product):
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, RED), label="red")
    nic, disk = domain.devices
    for device in domain.devices:
        await product.comes_to(domain, device, "grant")
    beats = [product.read(paths.HEARTBEAT)]
    product.kill("brokerd")
    said = product.log("agent").count("heartbeat has stopped")
    await until(lambda: product.log("agent").count("heartbeat has stopped") > said, "staleness", 14)
    product.client.rm(f"{disk.backend_dir(domain.domid)}/physical-device")
    product.client.write(f"{nic.backend_dir(domain.domid)}/hotplug-status", "")
    for device in domain.devices:
        await until(
            lambda device=device: "heartbeat" in product.report(domain, device),
            lambda device=device: product.shown(domain, device),
        )
    counter = int(beats[0].split(b" ")[0])
    forged = sign_heartbeat(counter + 5, Ed25519PrivateKey.generate())
    for beat in (beats[0], b"", forged, b"%d sig=" % (counter + 9), beats[0] + b"\x1b", beats[0]):
        product.client.write(paths.HEARTBEAT, beat)
        await product.agent_saw()
        assert not product.is_open(domain, nic)
        assert not product.is_open(domain, disk)
    late = await product.create(vif(0, mac(2, 0)))
    await until(lambda: product.report(late, late.devices[0]), "a report on a late device")
    assert product.report(late, late.devices[0]).startswith("closed")
    await product.restart("brokerd")
    for device in domain.devices:
        await product.comes_to(domain, device, "grant")
    await product.comes_to(late, late.devices[0], "deny", "unlabelled")


@run
@pytest.mark.parametrize(
    "text", [b"policy: [", b"\xff\xfe", b"", b"policy: corp\n\x1b]0;x\x07: 1\n"]
)
async def test_a_bad_policy_on_sighup_leaves_the_one_in_force(product, text):
    domain = await product.create(vif(0, mac(1, 0)), label="red")
    before = await product.comes_to(domain, domain.devices[0], "grant")
    good = product.policy.read_bytes()
    said = product.log("brokerd").count("the policy in force stays")
    product.policy.write_bytes(text)
    try:
        product.signal("brokerd", signal.SIGHUP)
        await until(
            lambda: product.log("brokerd").count("the policy in force stays") > said, "the refusal"
        )
    finally:
        product.policy.write_bytes(good)
    await product.fence()
    assert product.record(domain, domain.devices[0]) == before
    assert product.read("/broker/v1/policy/digest").decode() == before.policy
    status = product.status()
    assert "policy" in status.last_error
    await until(lambda: product.audit.events("policy_refused"), "the refusal audited")


@run
async def test_a_stop_and_a_start_change_nothing(product):
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, RED), label="red")
    for device in domain.devices:
        await product.comes_to(domain, device, "grant")
    before = [product.text(domain, it) for it in domain.devices]
    assert product.terminate("agent") == 0
    assert product.terminate("brokerd") == 0
    assert "every gate stays as it is" in product.log("agent")
    late = await product.attach(domain, vbd(51728, RED))
    await product.restart("brokerd")
    await product.restart("agent")
    await product.comes_to(domain, late, "grant")
    assert [product.text(domain, it) for it in domain.devices[:2]] == before
    for device in domain.devices:
        assert not product.monitor.closings(device.backend_dir(domain.domid))
