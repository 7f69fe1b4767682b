"""What running domains gain or lose, why, and what would help: as an operator asks it."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")


async def refused_disk(host, box):
    host.create(3)
    box.label(uuid_of(3), "plain")
    vbd = host.vbd(3)
    host.report(vbd)
    await host.decided(vbd, "deny")
    return vbd


@run
async def test_a_denial_is_explained_by_every_rule_with_its_place_and_what_would_grant_it(
    host, box
):
    brokerd = await box.start()
    vbd = await refused_disk(host, box)
    selector = methods.ChannelSelector(device_class="vbd", frontend="3", device="51712")
    explained = await brokerd.admin.channel_explain(CALLER, selector)
    assert {it.rule for it in explained.reasons} == {"ste", "classes.vbd"}
    assert all(it.where.startswith(str(box.policy)) for it in explained.reasons)
    assert explained.changes
    text = POLICY.replace("plain: {ste: [red]}", "plain: {ste: [red, storage_red]}")
    assert any("storage_red" in change for change in explained.changes[0])
    assert any("allow" in change for change in explained.changes[0])
    # Made as it says, it is granted.
    text = text.replace("frontend: [web_a, web_b]", "frontend: [web_a, web_b, plain]")
    await box.load(text)
    await host.decided(vbd, "grant")
    explained = await brokerd.admin.channel_explain(CALLER, selector)
    assert explained.changes == ()


@run
async def test_a_domains_details_say_what_its_label_is_stored_for_by_whom_and_its_channels(
    host, box
):
    brokerd = await box.start()
    await refused_disk(host, box)
    host.create(4, name="named")
    box.label("named", "plain", "name")
    vif = host.vif(4)
    host.report(vif)
    await host.decided(vif, "grant")
    _, one, other = await brokerd.admin.domain_list(CALLER, methods.Nothing())
    assert (one.bound_by, one.set_by, one.policy) == ("uuid", "test", "corp")
    assert (one.granted, one.denied) == (0, 1)
    assert (other.bound_by, other.granted, other.denied) == ("name", 1, 0)


def quiet(engine):
    """Whether all is read, decided, verified and shown."""
    later = engine._dirty.has_later or engine._display.waiting
    return not (later or engine._busy or engine.decider.busy or engine._has_work())


@run
async def test_a_relabel_touches_only_its_own_channels(host, box):
    """Counted on the connection: nothing about any other domain is read or written."""
    await box.start()
    vifs = []
    for domid in range(2, 22):
        host.create(domid)
        box.label(uuid_of(domid), "plain")
        vifs.append(host.vif(domid))
        host.report(vifs[-1])
    for vif in vifs:
        await host.decided(vif, "grant")
    await until(lambda: quiet(box.engine))
    connection = box.engine.connection
    sent, plain = [], connection.request_many

    def counted(requests, tx=0):
        sent.extend(payload for _, payload in requests)
        return plain(requests, tx)

    connection.request_many = counted
    before = {vif: host.record(vif).seq for vif in vifs}
    box.label(uuid_of(7), "lonely")
    await until(lambda: host.record(vifs[5]).labels[0] == "lonely")
    await until(lambda: host.read(f"/vm/{uuid_of(7)}/security/acm_label/labelname") == b"lonely")
    await until(lambda: quiet(box.engine))
    mine = (f"/{7}/".encode(), uuid_of(7).encode(), paths.HEARTBEAT.encode())
    assert [it for it in sent if not any(word in it for word in mine)] == []
    assert 0 < len(sent) < 40
    assert [vif for vif in vifs if host.record(vif).seq != before[vif]] == [vifs[5]]
