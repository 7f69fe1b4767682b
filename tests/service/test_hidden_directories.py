"""A guest that hides its directory from an unprivileged broker gains nothing by it."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import until, uuid_of
from test_police import ends, enforced, looked
from twisted.internet import reactor

from broker.agent.helper import HelperSession
from broker.service import police
from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
BROKER = 5
HOME = paths.frontend_dir(3, "vif", "0")


async def looked_at(host, box):
    """An open channel that the broker has looked at; dom0's helper, which let it, is gone."""
    helper = HelperSession(host.daemon.address, reactor, broker=BROKER)
    helper.startService()
    await box.start(store=host.daemon.guest(BROKER).address)
    host.create(3)
    channel = host.vif(3)
    ends(host, channel, "state", "1", "1")
    await until(lambda: 3 in box.engine.mirror.domains, "seeing domain 3")
    box.label(uuid_of(3), "plain")
    host.report(channel)
    enforced(host, channel, await host.decided(channel, "grant"))
    readable = f"{HOME}/state"
    await until(lambda: f"r{BROKER}" in host.client.get_perms(readable), "the helper's pass")
    await looked(box, channel)
    await helper.stopService()
    return channel


def hide(host, *names):
    for name in names:
        host.client.set_perms(f"{HOME}{name}", "n0")


def show(host, *names):
    for name in names:
        host.client.set_perms(f"{HOME}{name}", "n0", f"r{BROKER}")


@run
async def test_what_it_did_behind_the_curtain_is_judged_once_it_can_be_seen(host, box):
    vif = await looked_at(host, box)
    hide(host, "/state")
    ends(host, vif, "state", front="99")
    device = box.engine.mirror.device_of(vif)
    await until(lambda: device in box.engine.police._hidden, "noticing")
    assert host.verdict(vif) == "grant"
    show(host, "/state")
    await host.decided(vif, "deny", "closed: frontend broke frontend.state.type")


@pytest.mark.parametrize("names", [("",), ("/state",)])
@run
async def test_who_hides_for_long_breaks_a_rule(names, host, box, monkeypatch):
    vif = await looked_at(host, box)
    monkeypatch.setattr(police, "UNREADABLE", 0.2)
    hide(host, *names)
    ends(host, vif, "unheard", front="1")
    await until(lambda: box.engine.tick() or host.verdict(vif) == "deny", "the sanction")
    (line,) = box.lines("sanctioned")
    assert (line["party"], line["uuid"]) == ("frontend", uuid_of(3))
    assert "frontend.readable" in line["reason"]


@run
async def test_who_shows_itself_again_in_time_is_not_sanctioned(host, box):
    vif = await looked_at(host, box)
    hide(host, "/state")
    ends(host, vif, "unheard", front="1")
    device = box.engine.mirror.device_of(vif)
    await until(lambda: device in box.engine.police._hidden, "noticing")
    show(host, "/state")
    await until(lambda: device not in box.engine.police._hidden, "seeing it again")
    assert host.verdict(vif) == "grant"
    assert not box.lines("sanctioned")
