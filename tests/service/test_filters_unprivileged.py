"""Filters told by a broker that is an ordinary domain: dom0's helper makes the nodes."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from twisted.internet import reactor

from broker.agent.helper import HelperSession
from broker.core.filter_record import verify_filter, verify_head
from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
BROKER = 5
PLAIN = "  plain: {ste: [red]}\n"
ATTACHED = POLICY.replace(PLAIN, "  plain: {ste: [red], filters: [no-mac-spoofing]}\n")
HEAD = f"{paths.PROFILES}/head"


@pytest_twisted.async_yield_fixture
async def helper(store_daemon):
    session = HelperSession(store_daemon.address, reactor, broker=BROKER)
    yield session
    await session.stopService()


@run
async def test_an_unprivileged_broker_tells_of_filters_in_the_helpers_nodes(host, box, helper):
    box.policy.write_text(ATTACHED)
    helper.startService()
    await box.start(store=host.daemon.guest(BROKER).address)
    host.create(3)
    vif = host.vif(3)
    await until(lambda: 3 in box.engine.mirror.domains, "seeing domain 3")
    box.label(uuid_of(3), "plain")
    host.report(vif)
    await host.decided(vif, "grant")
    record = verify_filter(host.read(paths.filter_path(vif)), box.public_key())
    assert record.profiles == ("no-mac-spoofing",)
    assert verify_head(host.read(HEAD), box.public_key()).chunks == 1
    assert host.client.get_perms(paths.filter_path(vif))[0] == "n0"
    await until(lambda: not box.engine.decider.unpublished)

    host.detach(vif)
    await until(lambda: host.read(paths.filter_path(vif)) is None, "the helper to remove it")
