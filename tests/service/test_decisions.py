"""brokerd end to end on each store: what is granted, what is denied, and why."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY, nonce, until, uuid_of

from broker.core.record import inputs_digest
from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.rpc.selector import Selector
from broker.service.decider import SLICE
from broker.xenstore import paths

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")


@run
async def test_a_labelled_domain_is_granted_its_vif_once_the_agent_reports(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    record = await host.decided(vif, "pending", "no nonce reported")
    value = host.report(vif)
    record = await host.decided(vif, "grant")
    assert box.verified(host.text(vif)) == record
    assert (record.frontend, record.backend, record.device_class, record.device) == (
        3,
        0,
        "vif",
        "0",
    )
    assert record.nonce == value.decode()
    assert record.uuid == uuid_of(3)
    assert record.labels == ("web_a", "SystemManagement")
    assert record.policy == box.engine.judge.policy.digest
    assert record.spec == box.engine.judge.specs["vif"]
    details = {
        "script": b"vif-bridge",
        "mac": b"00:16:3e:00:00:03",
        "bridge": b"xenbr0",
        "type": b"vif",
    }
    assert record.inputs == inputs_digest(details)


@run
async def test_a_disk_is_granted_by_its_resource_and_denied_without_one(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    red, other = host.vbd(3), host.vbd(3, 51728, params="/dev/vg/blue-1")
    dots = host.vbd(3, 51744, params="/dev/vg/red-1/../blue-1")
    for channel in (red, other, dots):
        host.report(channel)
    assert (await host.decided(red, "grant")).resource == "lun_red"
    assert (await host.decided(other, "deny", "resource")).resource is None
    await host.decided(dots, "deny", "resource")


@run
async def test_every_verdict_is_shown_in_the_domain_s_security_directory(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    host.report(host.vif(3))
    security = f"/vm/{uuid_of(3)}/security"
    await until(lambda: (host.read(f"{security}/channel/vif/0") or b"").startswith(b"grant"))
    await until(lambda: host.read(f"{security}/status") == b"labelled")
    assert host.read(f"{security}/acm_label/labelname") == b"web_a"
    assert host.read(f"{security}/acm_label/policyname") == b"corp"
    reference = str(box.engine.judge.policy.ssidref("web_a")).encode()
    assert host.read(f"{security}/ssidref") == reference


@run
async def test_an_unlabelled_domain_is_denied(host, box):
    host.create(3)
    await box.start()
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "deny", "unlabelled")
    status = f"/vm/{uuid_of(3)}/security/status"
    await until(lambda: (host.read(status) or b"").startswith(b"unlabelled no label"))


@run
async def test_a_class_without_a_description_is_denied_by_name(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    unknown = host.attach(3, "console", 1, {})
    undescribed = host.attach(3, "vkbd", 0, {})
    await host.decided(unknown, "deny", "class console has no description")
    await host.decided(undescribed, "deny", "nowhere is not loaded")


@run
async def test_a_primary_console_is_part_of_its_domain_and_nothing_is_decided_of_it(host, box):
    host.create(3)
    host.create(4)
    primary = host.attach(3, "console", 0, {})
    secondary = host.attach(3, "console", 1, {})
    elsewhere = host.attach(4, "console", 0, {}, backend=3)
    brokerd = await box.start()
    for domid in (3, 4):
        box.label(uuid_of(domid), "web_a")
    for channel in (secondary, elsewhere):
        await host.decided(channel, "deny", "class console has no description")
    assert host.text(primary) == b""
    listed = await brokerd.admin.channel_list(CALLER, methods.ChannelFilter())
    assert [(it.frontend, it.device) for it in listed] == [(3, "1"), (4, "0")]
    granting = POLICY.replace("  vkbd:", "  console: {protocol: console, default: ste}\n  vkbd:")
    load = methods.PolicyLoad(text=granting, dry_run=True)
    change = await brokerd.admin.policy_load(CALLER, load)
    assert not any("console/3/0" in it for it in (*change.opens, *change.closes))


@run
async def test_labels_that_share_no_type_are_denied(host, box):
    host.create(3)
    host.create(5, name="dd")
    await box.start()
    box.label(uuid_of(3), "lonely")
    box.label(uuid_of(5), "driver")
    vif = host.vif(3, backend=5)
    host.report(vif)
    record = await host.decided(vif, "deny", "STE")
    assert record.labels == ("lonely", "driver")


@run
async def test_a_backend_domain_without_a_label_is_denied(host, box):
    host.create(3)
    host.create(5)
    await box.start()
    box.label(uuid_of(3), "plain")
    vif = host.vif(3, backend=5)
    host.report(vif)
    await host.decided(vif, "deny", "backend domain 5 is unlabelled")
    box.label(uuid_of(5), "driver")
    await host.decided(vif, "grant")


@run
async def test_the_frontend_s_kind_names_the_class_whatever_the_backend_s(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vbd = host.vbd(3, kind="qdisk")
    host.report(vbd)
    await host.decided(vbd, "grant")


@run
@pytest.mark.parametrize(
    "path",
    [
        "/local/domain/0/backend/vif/03/0",
        "/local/domain/0/backend/vif/3/0/",
        "/local/domain/0/backend/../vif/3/0",
        "/local/domain/32752/backend/vif/3/0",
        "x" * 2000,
        b"\xff\xfe",
    ],
)
async def test_a_backend_path_that_is_not_canonical_opens_nothing(host, box, path):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    host.attach(3, "vif", 0, {}, path=path)
    shown = f"/vm/{uuid_of(3)}/security/channel/vif/0"
    value = await until(lambda: host.read(shown))
    assert value.startswith(b"deny the device's backend path")
    assert b"is not canonical" in value
    assert not box.engine.state.ledger


@run
async def test_a_backend_path_of_another_device_is_denied(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.attach(3, "vif", 0, {}, path="/local/domain/0/backend/vif/4/0")
    host.report(vif)
    await host.decided(vif, "deny", "another device")


@run
async def test_keys_that_are_not_utf8_are_denied_and_harm_nobody(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    bad = host.vbd(3, 51728, params=b"/dev/vg/red-\xff")
    good = host.vbd(3)
    host.report(bad)
    host.report(good)
    await host.decided(bad, "deny", "not UTF-8")
    await host.decided(good, "grant")


@run
@pytest.mark.parametrize("value", [b"", b"xyz", b"A" * 32, b"0" * 33, b"\xff" * 16, b"z" * 2000])
async def test_a_nonce_that_is_none_leaves_the_channel_pending(host, box, value):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    host.report(vif, value)
    record = await host.decided(vif, "pending", "nonce")
    assert record.nonce is None


@run
async def test_a_disk_swapped_on_the_same_devid_gets_a_record_of_its_own(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vbd = host.vbd(3)
    host.report(vbd)
    granted = await host.decided(vbd, "grant")
    host.vbd(3, params="/dev/vg/blue-1")
    denied = await host.decided(vbd, "deny", "resource")
    assert denied.seq > granted.seq
    assert denied.inputs != granted.inputs


@run
async def test_a_new_life_of_a_device_gets_a_new_record(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    first = host.report(vif)
    one = await host.decided(vif, "grant")
    second = host.report(vif)
    await until(lambda: host.record(vif).nonce == second.decode())
    assert host.record(vif).seq > one.seq
    assert first != second


@run
async def test_a_replayed_nonce_neither_opens_nor_closes(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    old = host.report(vif)
    await host.decided(vif, "grant")
    now = host.report(vif)
    await until(lambda: host.record(vif).nonce == now.decode())
    text = host.text(vif)
    host.report(vif, old)
    await until(lambda: box.lines("alarm"))
    assert host.text(vif) == text
    other = host.vif(3, 1)
    host.report(other, now)
    record = await host.decided(other, "pending", "used before")
    assert record.nonce is None


@run
async def test_a_channel_that_is_gone_loses_its_record(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "grant")
    host.detach(vif)
    await until(lambda: not host.text(vif))
    assert box.lines("vanished")[-1]["path"] == paths.decision_path(vif)


@run
async def test_a_domain_that_is_gone_leaves_no_node_by_its_domid(host, box):
    for domid in (3, 4):
        host.create(domid)
    await box.start()
    vifs = [host.vif(domid) for domid in (3, 4)]
    for domid, vif in zip((3, 4), vifs, strict=True):
        box.label(uuid_of(domid), "web_a")
        host.report(vif)
        await host.decided(vif, "grant")
    host.destroy(3)
    for top in (paths.DECISIONS, paths.REPORTS):
        await until(lambda top=top: host.read(f"{top}/0/vif/3") is None)
    assert host.text(vifs[1])
    assert host.read(f"{paths.report_dir(vifs[1])}/nonce")


@run
async def test_a_reused_domid_inherits_nothing(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    value = host.report(vif)
    granted = await host.decided(vif, "grant")
    host.destroy(3)
    host.create(3, uuid=uuid_of(33))
    host.vif(3)
    record = await host.decided(vif, "deny", "unlabelled")
    assert record.uuid == uuid_of(33)
    assert record.seq > granted.seq
    box.label(uuid_of(33), "web_a")
    record = await host.decided(vif, "pending", "used before")
    assert value.decode() != record.nonce
    host.report(vif, nonce())
    await host.decided(vif, "grant")


@run
async def test_what_changes_while_a_batch_is_judged_is_judged_again_before_it_is_written(host, box):
    """A label taken away in the midst of a long batch: no grant is written after that."""
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vifs = [host.vif(3, device) for device in range(2 * SLICE)]
    for vif in vifs:
        await host.decided(vif, "pending")
    judge = box.engine.judge
    judged = 0
    plain = judge.judge

    def judge_then_relabel(device):
        nonlocal judged
        judged += 1
        if judged == SLICE + 1:
            box.brokerd.admin.labels.remove(Selector("uuid", uuid_of(3)), "test")
        return plain(device)

    judge.judge = judge_then_relabel
    box.engine.decider.pending.update(dict.fromkeys(box.engine.mirror.devices()))
    for vif in vifs:
        device = box.engine.mirror.device_of(vif)
        device.untrusted_nonce = host.report(vif)
    box.engine.decider.start(box.engine._publisher)
    for vif in vifs:
        await host.decided(vif, "deny", "unlabelled")
    lines = box.journal()
    removed = next(n for n, line in enumerate(lines) if line["event"] == "label_removed")
    assert not [line for line in lines[removed:] if line.get("text", "").startswith("grant")]
    assert judged > 2 * SLICE


@run
async def test_nothing_is_decided_about_a_device_that_goes_while_others_are_judged(
    host, box, monkeypatch
):
    monkeypatch.setattr("broker.service.decider.SLICE", 1)
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "plain")
    vif, other = host.vif(3, 0), host.vif(3, 1)
    for channel in (vif, other):
        host.report(channel)
        await host.decided(channel, "grant")
    await box.engine.decider.settled()
    goes, stays = (box.engine.mirror.device_of(it) for it in (vif, other))
    goes.untrusted_nonce = nonce()
    box.engine.decider.pending.update({goes: None, stays: None})
    box.engine.decider.start(box.engine._publisher)
    assert list(box.engine.decider.pending) == [stays]
    before = box.engine.state.ledger[goes.path]
    box.engine.mirror.drop_device(goes)
    await box.engine.decider.settled()
    assert box.engine.state.ledger[goes.path] == before
