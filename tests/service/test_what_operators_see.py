"""What operators are told: names as they are, where labels are stored, ends, and the log."""

from __future__ import annotations

import contextlib
import os

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from twisted.logger import formatEvent, globalLogPublisher

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.rpc.errors import RpcError
from broker.rpc.selector import Selector
from broker.service import audit
from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")


@contextlib.contextmanager
def logged():
    """The log's lines, with their level, as they come."""
    lines = []

    def observe(event):
        if event["log_namespace"].startswith("broker."):
            lines.append(f"{event['log_level'].name} {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


async def granted(host, box, domid, **options):
    host.create(domid, **options)
    box.label(uuid_of(domid), "plain")
    vif = host.vif(domid)
    host.report(vif)
    await host.decided(vif, "grant")
    return vif


@run
async def test_a_name_is_answered_as_it_is_and_no_reason_doubles_a_backslash(host, box):
    brokerd = await box.start()
    name = "str\x1bay\\\u202e"
    vif = await granted(host, box, 3, name=name.encode())
    host.client.write(
        "/broker/v1/report/0/vif/3/0/enforced",
        f"failed seq=- nonce={'0' * 32} reason=says%201%1B".encode(),
    )
    (_, domain) = await brokerd.admin.domain_list(CALLER, methods.Nothing())
    assert domain.name == name
    await until(lambda: any(it.untrusted_enforced for it in box.engine.mirror.devices()))
    (channel,) = await brokerd.admin.channel_list(CALLER, methods.ChannelFilter())
    assert (channel.frontend_name, channel.enforced.reason) == (name, "says 1\x1b")
    host.client.write("/libxl/3/device/vif/0/bridge", b"b\xff\x1b")
    explain = methods.ChannelSelector(device_class="vif", frontend="3", device="0")

    async def inputs():
        return (await brokerd.admin.channel_explain(CALLER, explain)).inputs["bridge"]

    await host.decided(vif, "deny", "UTF-8")
    assert await inputs() == "b\\xff\x1b"
    assert brokerd.admin.labels.get(Selector("domid", "3")).uuid == uuid_of(3)


@run
async def test_the_record_is_explained_whole(host, box):
    brokerd = await box.start()
    vif = await granted(host, box, 3)
    explain = methods.ChannelSelector(device_class="vif", frontend="3", device="0")
    # The store has it a moment before the broker is told so.
    await until(lambda: any(it.published == host.text(vif) for it in box.engine.mirror.devices()))
    explanation = await brokerd.admin.channel_explain(CALLER, explain)
    assert explanation.published == host.text(vif).decode("ascii")


@run
async def test_removing_a_label_by_the_wrong_handle_says_which_is_the_right_one(host, box):
    brokerd = await box.start()
    host.create(3, name="web")
    host.create(4, name="named")
    await until(lambda: {3, 4} <= box.engine.mirror.domains.keys())
    await until(lambda: box.engine.mirror.domains[4].name == "named")
    box.label(uuid_of(3), "plain")
    box.label("named", "plain", bound="name")
    for selector, right in (
        (Selector("name", "web"), f"brokerctl label rm uuid:{uuid_of(3)}"),
        (Selector("domid", "4"), "brokerctl label rm name:named"),
    ):
        with pytest.raises(RpcError) as caught:
            brokerd.admin.labels.remove(selector, "test")
        assert right in caught.value.message
    with pytest.raises(RpcError) as caught:
        brokerd.admin.labels.remove(Selector("name", "nobody"), "test")
    assert caught.value.message == "no label is stored for name nobody"


@run
async def test_a_filter_for_a_domain_that_does_not_run_is_not_found(host, box):
    brokerd = await box.start()
    with pytest.raises(RpcError) as caught:
        await brokerd.admin.channel_list(CALLER, methods.ChannelFilter(domain="nobody"))
    assert caught.value.code == "not_found"
    assert "nobody" in caught.value.message


@run
async def test_domain_0_has_the_name_that_it_gave_itself(host, box):
    brokerd = await box.start()
    (domain,) = await brokerd.admin.domain_list(CALLER, methods.Nothing())
    assert domain.name == "Domain-0"


@run
@pytest.mark.parametrize("detached", [True, False])
async def test_a_watcher_is_told_that_a_channel_is_gone_as_it_was_last(host, box, detached):
    brokerd = await box.start()
    vif = await granted(host, box, 3, name="web")
    told = []
    stop = await brokerd.admin.channel_watch(
        CALLER, methods.ChannelFilter(domain="web"), told.append
    )
    if detached:
        host.detach(vif)
    else:
        host.destroy(3)
    event = await until(lambda: next((it for it in told if it.event == "gone"), None))
    assert (event.previous, event.channel.verdict) == ("grant", "grant")
    assert event.channel.frontend == 3
    stop()
    assert sum(it.event == "gone" for it in told) == 1


@run
async def test_the_log_has_a_line_for_each_change(host, box):
    with logged() as lines:
        await box.start()
        await granted(host, box, 3, name="web")
        host.create(4)
        await until(lambda: "info domain 4 is unlabelled: no label is assigned to it" in lines)
        box.brokerd.admin.labels.remove(Selector("uuid", uuid_of(3)), "me")
        await until(lambda: any(it.startswith("info deny vif/3/0 -> 0 (-,Sys") for it in lines))
        host.destroy(3)
        await until(lambda: "info domain 3 is gone" in lines)
        await box.stop()
    assert f"info uuid {uuid_of(3)} has label plain now, by test" in lines
    assert "info domain 3 is labelled (plain)" in lines
    assert any(
        it.startswith("info grant vif/3/0 -> 0 (plain,SystemManagement) seq=") for it in lines
    )
    assert f"info uuid {uuid_of(3)} has no label now, by me" in lines
    assert any("policy corp 1.0 (sha256:" in it and "the first start" in it for it in lines)
    assert "info stopped; every record and every gate stays as it is" in lines


@run
async def test_many_decisions_and_domains_of_one_turn_have_one_line_together(
    host, box, monkeypatch
):
    monkeypatch.setattr(audit, "MOST_LOGGED", 2)
    for domid in range(3, 9):
        host.create(domid)
        host.vif(domid)
    with logged() as lines:
        await box.start()
    assert any("decided 6 channels: 6 deny; records " in it for it in lines)
    assert "info 6 domains stand otherwise than before" in lines
    assert not any("vif/3/0" in it for it in lines)


@run
async def test_a_policy_that_a_signal_cannot_load_is_told_a_line_each(host, box):
    brokerd = await box.start()
    box.policy.write_text(POLICY + "nosuch: 1\nneither: 2\n")
    with logged() as lines:
        brokerd.reload()
    told = [it for it in lines if "SIGHUP" in it]
    assert len(told) == 3
    assert not any("\n" in it for it in told)
    assert "the policy in force stays" in told[-1]
    assert "nosuch" in brokerd.audit.last_error[1]


@run
async def test_a_signal_does_not_have_the_broker_wait_at_a_fifo(host, box):
    brokerd = await box.start()
    box.policy.unlink()
    os.mkfifo(box.policy)
    brokerd.reload()
    assert "no regular file" in brokerd.audit.last_error[1]


@run
async def test_why_a_label_found_late_is_not_adopted_stays_in_the_status(host, box):
    await box.start(adopt_labels=True)
    host.create(3)
    home = f"/vm/{uuid_of(3)}/security"
    await until(lambda: host.read(f"{home}/status") == b"unlabelled no label is assigned to it")
    host.client.write(f"{home}/acm_label/policyname", b"other")
    host.client.write(f"{home}/acm_label/labelname", b"plain")
    found = b"unlabelled label plain was found, of policy other instead of corp"
    await until(lambda: host.read(f"{home}/status") == found)
    await until(lambda: host.read(f"{home}/acm_label/labelname") == b"")
    box.engine.relabelled()
    host.create(4)
    await until(lambda: host.read(f"/vm/{uuid_of(4)}/security/status"))
    assert host.read(f"{home}/status") == found
    box.label(uuid_of(3), "plain")
    box.brokerd.admin.labels.remove(Selector("uuid", uuid_of(3)), "test")
    await until(lambda: host.read(f"{home}/status") == b"unlabelled no label is assigned to it")


@run
async def test_a_good_label_found_late_is_adopted(host, box):
    await box.start(adopt_labels=True)
    host.create(3)
    home = f"/vm/{uuid_of(3)}/security"
    await until(lambda: host.read(f"{home}/status") == b"unlabelled no label is assigned to it")
    tx = host.client.start()
    host.client.write(f"{home}/acm_label/policyname", b"corp", tx)
    host.client.write(f"{home}/acm_label/labelname", b"plain", tx)
    host.client.end(tx)
    await until(lambda: host.read(f"{home}/status") == b"labelled")


@run
async def test_what_an_earlier_run_wrote_is_nobody_elses(host, box):
    host.create(3)
    status = f"{paths.security_dir(uuid_of(3))}/status"
    await box.start()
    await until(lambda: host.read(status))
    await box.stop()
    await box.start()
    await until(lambda: box.engine.mirror.domains[3].written)
    box.label(uuid_of(3), "plain")
    await until(lambda: (host.read(status) or b"").startswith(b"labelled"))
    assert not [line for line in box.lines("alarm") if "did not write" in line["detail"]]
