"""brokerd as an ordinary domain on the ring: dom0's helper makes, the broker only writes."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import until, uuid_of
from twisted.internet import reactor

from broker.agent.helper import HelperSession
from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
BROKER = 5
CALLER = Caller(subject="test", role=ROOT, person="test")


@pytest_twisted.async_yield_fixture
async def helper(store_daemon):
    """dom0's helper, not yet started."""
    session = HelperSession(store_daemon.address, reactor, broker=BROKER)
    yield session
    if session.running:
        await session.stopService()


@run
async def test_an_unprivileged_broker_decides_once_dom0_s_helper_serves_it(host, box, helper):
    host.create(3)
    vif = host.vif(3)
    guest = host.daemon.guest(BROKER)
    await box.start(store=guest.address)
    assert not box.engine._publisher.privileged
    assert not box.engine.mirror.domains
    helper.startService()
    await until(lambda: 3 in box.engine.mirror.domains, "seeing domain 3")
    box.label(uuid_of(3), "plain")
    await host.decided(vif, "pending")
    host.report(vif)
    record = await host.decided(vif, "grant")
    assert box.verified(host.text(vif)) == record
    assert host.client.get_perms(paths.decision_path(vif))[0] == "n0"
    await until(lambda: host.read(f"/vm/{uuid_of(3)}/security/status") == b"labelled")
    assert host.read(f"/vm/{uuid_of(3)}/security/acm_label/labelname") == b"plain"
    await box.brokerd.heartbeat.beat()
    assert host.read(paths.HEARTBEAT)


@run
async def test_a_device_attached_later_is_decided_when_the_helper_has_made_its_node(
    host, box, helper
):
    guest = host.daemon.guest(BROKER)
    helper.startService()
    await box.start(store=guest.address)
    host.create(3)
    vif = host.vif(3)
    await until(lambda: 3 in box.engine.mirror.domains, "seeing domain 3")
    box.label(uuid_of(3), "plain")
    host.report(vif)
    await host.decided(vif, "grant")
    host.detach(vif)
    await until(lambda: not box.engine.state.ledger, "the channel to be gone")
    assert box.lines("vanished")[-1]["removed"] is False


@run
async def test_a_frontend_that_hides_its_directory_is_noted_and_changes_nothing(host, box, helper):
    guest = host.daemon.guest(BROKER)
    helper.startService()
    await box.start(store=guest.address)
    host.create(3)
    vif = host.vif(3)
    await until(lambda: 3 in box.engine.mirror.domains, "seeing domain 3")
    box.label(uuid_of(3), "plain")
    host.report(vif)
    await host.decided(vif, "grant")
    home = paths.frontend_dir(3, "vif", "0")
    for path in (home, f"{home}/backend", f"{home}/backend-id"):
        host.client.set_perms(path, "n0")
    value = host.report(vif)
    await until(lambda: host.record(vif).nonce == value.decode())
    assert host.verdict(vif) == "grant"
    await until(lambda: box.lines("violation"), "the violation")
    assert "unreadable" in box.lines("violation")[0]["detail"]


@run
async def test_the_helper_lets_the_broker_see_how_large_domains_are(host, box, helper):
    host.create(3)
    home = paths.domain_dir(3)
    host.client.write(f"{home}/memory/target", b"98304")
    host.client.write(f"{home}/cpu/0/availability", b"online")
    guest = host.daemon.guest(BROKER)
    helper.startService()
    brokerd = await box.start(store=guest.address)
    await until(lambda: 3 in box.engine.mirror.domains, "seeing domain 3")
    last = f"{home}/cpu/0/availability"
    await until(lambda: f"r{BROKER}" in host.client.get_perms(last), "the helper's pass")
    listed = await brokerd.admin.domain_list(CALLER, methods.Nothing())
    assert {(it.memory, it.vcpus) for it in listed if it.domid == 3} == {(98304, 1)}
