"""What ACM got wrong while domains ran: P1, P2, P5, P6, P8, P10 and P16 on the running broker."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of

from broker.rpc.errors import RpcError

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
NO_VIFS = POLICY.replace("vif, default: ste", "vif, default: deny")


async def granted_vif(host, box, domid, label="plain"):
    host.create(domid)
    box.label(uuid_of(domid), label)
    vif = host.vif(domid)
    host.report(vif)
    await host.decided(vif, "grant")
    return vif


@run
async def test_p1_no_answer_of_the_policy_before_outlives_a_load(host, box):
    await box.start()
    vif = await granted_vif(host, box, 3)
    await box.load(NO_VIFS, revoke=True)
    await host.decided(vif, "deny")
    await box.load(POLICY)
    await host.decided(vif, "grant")


@run
async def test_p1_no_answer_outlives_a_relabel(host, box):
    await box.start()
    vbd_domain = uuid_of(3)
    host.create(3)
    box.label(vbd_domain, "web_a")
    vbd = host.vbd(3)
    host.report(vbd)
    await host.decided(vbd, "grant")
    box.label(vbd_domain, "plain")
    await host.decided(vbd, "deny")


@run
async def test_p2_a_domid_used_again_inherits_nothing(host, box):
    await box.start()
    vif = await granted_vif(host, box, 3)
    host.destroy(3)
    await until(lambda: 3 not in box.engine.mirror.domains)
    other = uuid_of(77)
    host.create(3, uuid=other)
    vif = host.vif(3)
    host.report(vif)
    record = await host.decided(vif, "deny", "no label is assigned")
    assert (record.uuid, record.labels[0]) == (other, None)


@run
async def test_p5_of_two_that_a_wall_parts_created_at_once_exactly_one_runs(host, box):
    """Both are in the store before the broker reads either, and again on each restart."""
    box.policy.write_text(POLICY)
    await box.start()
    box.label(uuid_of(3), "web_a")
    box.label(uuid_of(4), "web_b")
    vifs = []
    for domid in (4, 3):
        host.create(domid)
        vifs.append(host.vif(domid))
        host.report(vifs[-1])
    good = await until(lambda: [it for it in (3, 4) if box.engine.judge.standing(it).good])
    await until(lambda: all(host.verdict(vif) is not None for vif in vifs))
    await until(lambda: sorted(map(host.verdict, vifs)) == ["deny", "grant"])
    await box.stop()
    await box.start()
    assert [it for it in (3, 4) if box.engine.judge.standing(it).good] == good
    assert sorted(map(host.verdict, vifs)) == ["deny", "grant"]


@pytest.mark.parametrize(
    "text",
    [NO_VIFS, POLICY.replace("label", "lable"), POLICY.replace("plain: {ste: [red]}", "plain: {}")],
    ids=["closes", "misspelt", "typeless"],
)
@run
async def test_p6_a_load_that_fails_leaves_policy_labels_numbers_and_channels_as_they_were(
    host, box, text
):
    await box.start()
    vif = await granted_vif(host, box, 3)
    ssidref = await until(lambda: host.read(f"/vm/{uuid_of(3)}/security/ssidref"))
    before = (host.text(vif), box.engine.judge.policy, dict(box.engine.state.labels))
    with pytest.raises(RpcError):
        await box.load(text)
    box.engine.tick()
    await granted_vif(host, box, 4)  # a later turn, by which anything left over would show
    policy = box.engine.judge.policy
    labels = {key: box.engine.state.labels[key] for key in before[2]}
    assert (host.text(vif), policy, labels) == before
    assert host.read(f"/vm/{uuid_of(3)}/security/ssidref") == ssidref


@run
async def test_p8_a_policy_of_the_same_name_and_version_is_another_by_its_bytes(host, box):
    await box.start()
    first = box.engine.judge.policy
    twin = POLICY + "groups: {front: [plain]}\n"
    with pytest.raises(RpcError, match="it was to replace") as caught:
        await box.load(twin, replaces="sha256:" + "0" * 64)
    assert caught.value.code == "conflict"
    assert box.engine.judge.policy is first
    change = await box.load(twin, replaces=first.digest)
    second = box.engine.judge.policy
    assert change.changed
    assert (second.name, second.version) == (first.name, first.version)
    assert second.digest != first.digest
    with pytest.raises(RpcError, match="it was to replace"):
        await box.load(POLICY, replaces=first.digest)


@run
async def test_p10_without_a_broker_nothing_new_is_granted_and_without_a_policy_nothing_at_all(
    host, box
):
    await box.start()
    vif = await granted_vif(host, box, 3)
    text = host.text(vif)
    await box.stop()
    assert host.read("/broker/v1/state") == b"stopped"
    box.policy.write_text(POLICY)
    host.create(4)
    late = host.vif(4)
    host.report(late)
    assert (host.text(vif), host.text(late)) == (text, b"")


@run
async def test_p10_a_labelled_domain_gets_nothing_where_no_policy_is(host, box):
    host.create(3)
    vif = host.vif(3)
    host.report(vif)
    await box.start(policy=None)
    await host.decided(vif, "deny", "no policy is in force")


@pytest.mark.parametrize("device_class", ["vif", "vbd", "vkbd", "9pfs", "vusb", "unheard-of"])
@run
async def test_p16_a_load_looks_at_live_devices_of_every_class(host, box, device_class):
    """Also of those that neither policy has: they are denied before and after, and stop no load."""
    await box.start()
    vif = await granted_vif(host, box, 3, "web_a")
    if device_class == "vbd":
        channel = host.vbd(3)
    else:
        channel = host.attach(3, device_class, 5, {"params": "x"})
    host.report(channel)
    expected = "grant" if device_class in ("vif", "vbd") else "deny"
    await host.decided(channel, expected)
    text = NO_VIFS.replace("allow: {class: vbd, frontend: [web_a, web_b]", "deny: {class: vbd")
    change = await box.load(text, dry_run=True)
    closing = {str(vif), str(channel)} if expected == "grant" else {str(vif)}
    assert set(change.closes) == closing
    await box.load(text, revoke=True)
    await host.decided(vif, "deny")
    await host.decided(channel, "deny")
