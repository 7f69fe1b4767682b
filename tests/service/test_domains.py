"""Labels, the Chinese Wall, two lives of one uuid, policies: on each store."""

from __future__ import annotations

import gc

import pytest
import pytest_twisted
from broker_host import POLICY, nonce, until, uuid_of

from broker.rpc.errors import RpcError
from broker.rpc.selector import Selector
from broker.service.authority import local_root
from broker.service.mirror import Device, Domain

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
ROOT = local_root("test")


def status(host, domid):
    return host.read(f"/vm/{uuid_of(domid)}/security/status") or b""


async def vif_of(host, box, domid, label):
    host.create(domid)
    box.label(uuid_of(domid), label)
    vif = host.vif(domid)
    host.report(vif)
    return vif


@run
async def test_a_relabelled_domain_s_channels_are_decided_anew_and_nobody_else_s(host, box):
    await box.start()
    one, two = await vif_of(host, box, 3, "plain"), await vif_of(host, box, 4, "plain")
    await host.decided(one, "grant")
    await host.decided(two, "grant")
    before = host.text(two)
    node = f"/vm/{uuid_of(3)}/security/acm_label/labelname"
    await until(lambda: host.read(node) == b"plain")
    box.brokerd.admin.labels.remove(Selector("uuid", uuid_of(3)), "test")
    await host.decided(one, "deny", "unlabelled")
    await until(lambda: status(host, 3).startswith(b"unlabelled"))
    assert host.read(node) == b""
    assert host.text(two) == before


@run
async def test_a_label_by_name_holds_for_every_uuid_under_that_name(host, box):
    await box.start()
    box.label("web", "plain", bound="name")
    host.create(3, name="web")
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "grant")
    host.destroy(3)
    host.create(4, uuid=uuid_of(44), name="web")
    vif = host.vif(4)
    host.report(vif)
    record = await host.decided(vif, "grant")
    assert record.uuid == uuid_of(44)


@run
async def test_a_label_that_somebody_else_wrote_is_put_back_and_alarmed(host, box):
    await box.start()
    await host.decided(await vif_of(host, box, 3, "plain"), "grant")
    node = f"/vm/{uuid_of(3)}/security/acm_label/labelname"
    await until(lambda: host.read(node) == b"plain")
    host.client.write(node, b"SystemManagement\x1b]0;")
    await until(lambda: host.read(node) == b"plain")
    await until(lambda: any(line["subject"] == node for line in box.lines("alarm")))
    assert b"\x1b" not in (box.state / "audit.jsonl").read_bytes()


@run
async def test_a_label_wiped_by_libxl_is_injected_again(host, box):
    await box.start()
    await host.decided(await vif_of(host, box, 3, "plain"), "grant")
    node = f"/vm/{uuid_of(3)}/security/acm_label/labelname"
    await until(lambda: host.read(node) == b"plain")
    host.destroy(3)
    host.create(5, uuid=uuid_of(3))
    await until(lambda: host.read(node) == b"plain")


@run
@run
async def test_what_is_put_back_of_a_domain_that_is_being_destroyed_goes_with_it(host, box):
    """Its end is read some time after libxl has removed `/vm/<uuid>`, which comes first."""
    await box.start()
    await vif_of(host, box, 3, "plain")
    node = f"/vm/{uuid_of(3)}/security/acm_label/labelname"
    await until(lambda: host.read(node) == b"plain")
    host.client.rm(f"/vm/{uuid_of(3)}")
    await until(lambda: host.read(node) == b"plain", "the label again")
    for path in ("/local/domain/3", "/libxl/3"):
        host.client.rm(path)
    await until(lambda: uuid_of(3) not in host.client.directory("/vm"), "nothing left in /vm")


@run
async def test_what_somebody_else_has_in_vm_stays_after_a_domain_s_end(host, box):
    await box.start()
    await vif_of(host, box, 3, "plain")
    await until(lambda: host.read(f"/vm/{uuid_of(3)}/security/acm_label/labelname") == b"plain")
    for path in ("/local/domain/3", "/libxl/3"):
        host.client.rm(path)
    vif = await vif_of(host, box, 4, "plain")
    await host.decided(vif, "grant")
    assert host.read(f"/vm/{uuid_of(3)}/name") == b"d3"


@pytest.mark.parametrize(
    ("label", "policy", "reason"),
    [
        (b"plain", b"corp", b"labelled"),
        (b"plain", b"other", b"of policy other instead of corp"),
        (b"nosuch", b"corp", b"nosuch was found"),
        (b"pl\xff\x1bain", b"corp", rb"pl\xff\x1bain"),
        (b"x" * 2000, b"corp", b"(2000 bytes)"),
    ],
)
async def test_a_label_found_on_a_new_uuid_is_adopted_only_if_it_is_good(
    host, box, label, policy, reason
):
    await box.start(adopt_labels=True)
    host.create(3)
    host.client.write(f"/vm/{uuid_of(3)}/security/acm_label/policyname", policy)
    host.client.write(f"/vm/{uuid_of(3)}/security/acm_label/labelname", label)
    if reason == b"labelled":
        await until(lambda: status(host, 3) == b"labelled")
        assert box.lines("label_set")[0]["subject"] == "adopted from /vm"
    else:
        await until(lambda: reason in status(host, 3))
        assert status(host, 3).startswith(b"unlabelled")


@run
async def test_a_label_found_is_not_adopted_unless_configured(host, box):
    await box.start()
    host.create(3)
    node = f"/vm/{uuid_of(3)}/security/acm_label/labelname"
    host.client.write(node, b"plain")
    host.client.write(f"/vm/{uuid_of(3)}/security/acm_label/policyname", b"corp")
    await until(lambda: host.read(node) == b"" and status(host, 3).startswith(b"unlabelled"))


@run
async def test_a_domain_against_the_wall_is_refused_until_its_rival_is_gone(host, box):
    await box.start()
    one = await vif_of(host, box, 3, "web_a")
    await host.decided(one, "grant")
    two = await vif_of(host, box, 4, "web_b")
    await host.decided(two, "deny", "refused")
    await until(lambda: status(host, 4).startswith(b"refused"))
    before = host.text(one)
    await box.stop()
    await box.start()
    assert host.verdict(one) == "grant"
    assert host.verdict(two) == "deny"
    host.destroy(3)
    await host.decided(two, "grant")
    assert before


@run
async def test_the_order_of_admission_survives_a_restart_against_the_order_of_domids(host, box):
    await box.start()
    one = await vif_of(host, box, 9, "web_a")
    await host.decided(one, "grant")
    two = await vif_of(host, box, 3, "web_b")
    await host.decided(two, "deny", "refused")
    await box.stop()
    await box.start()
    assert (host.verdict(one), host.verdict(two)) == ("grant", "deny")


@run
async def test_a_domain_relabelled_against_the_wall_is_refused_not_its_elder_s_rival(host, box):
    await box.start()
    one = await vif_of(host, box, 3, "plain")
    await host.decided(one, "grant")
    two = await vif_of(host, box, 4, "web_b")
    await host.decided(two, "grant")
    box.label(uuid_of(3), "web_a")
    await host.decided(one, "deny", "refused")
    assert host.verdict(two) == "grant"


@run
async def test_of_two_lives_of_one_uuid_the_newer_is_refused(host, box):
    await box.start()
    one = await vif_of(host, box, 3, "plain")
    await host.decided(one, "grant")
    before = host.text(one)
    node = f"/vm/{uuid_of(3)}/security/acm_label/labelname"
    await until(lambda: host.read(node) == b"plain")
    host.create(8, uuid=uuid_of(3))
    two = host.vif(8)
    host.report(two)
    await host.decided(two, "deny", "already runs as domain 3")
    assert host.text(one) == before
    await until(lambda: host.read(node) == b"plain")
    assert status(host, 3) == b"labelled"
    host.destroy(8, uuid="none")
    await until(lambda: not host.text(two))
    assert host.text(one) == before


@run
@pytest.mark.parametrize("vm", [b"/vm/none", b"/vm/", b"\xff", b"/vm/" + b"A" * 36, b"x" * 2000])
async def test_a_uuid_that_is_none_leaves_the_domain_unlabelled(host, box, vm):
    await box.start()
    host.create(3, vm=vm)
    vif = host.vif(3)
    host.report(vif)
    record = await host.decided(vif, "deny", "names no uuid")
    assert record.uuid is None


@run
async def test_another_policy_decides_every_channel_anew_and_a_bad_one_none(host, box):
    await box.start()
    vif = await vif_of(host, box, 3, "plain")
    first = await host.decided(vif, "grant")
    box.policy.write_text("policy: [")
    box.brokerd.reload()
    assert box.engine.judge.policy.digest == first.policy
    assert box.lines("policy_refused")
    box.policy.write_text(POLICY.replace("vif, default: ste", "vif, default: deny"))
    box.brokerd.reload()
    assert box.engine.judge.policy.digest == first.policy  # a signal takes nothing away
    await box.load(box.policy.read_text(), revoke=True)
    second = await host.decided(vif, "deny")
    assert second.policy != first.policy
    await until(lambda: host.read("/broker/v1/policy/digest") == second.policy.encode())
    box.policy.unlink()
    await box.stop()
    await box.start()
    assert box.engine.judge.policy.digest == second.policy
    assert host.record(vif) == second


@run
async def test_a_name_is_not_given_to_another_label_than_the_one_whose_domains_have_it(host, box):
    await box.start()
    digest = box.engine.judge.policy.digest
    taking = POLICY.replace("  lonely: {ste: [blue]}\n", "").replace(
        "plain: {", "plain: {was: lonely, "
    )
    load = box.brokerd._policies.load
    with pytest.raises(
        RpcError, match=r"label plain is what lonely was, but corp 1\.0 has another"
    ):
        load(taking.encode(), "p", ROOT, revoke=True)
    assert box.engine.judge.policy.digest == digest


@run
async def test_a_policy_is_loaded_only_over_the_one_it_replaces(host, box):
    await box.start()
    text = POLICY.replace('version: "1.0"', 'version: "1.2"\nfrom: {policy: corp, version: "1.1"}')
    load = box.brokerd._policies.load
    with pytest.raises(RpcError, match=r"from: corp 1\.1"):
        load(text.encode(), "p", ROOT)
    with pytest.raises(RpcError, match="was to replace"):
        load(POLICY.encode() + b"\n", "p", ROOT, replaces="sha256:" + "0" * 64)
    digest = box.engine.judge.policy.digest
    text = (
        text.replace("1.1", "1.0")
        .replace("  plain:", "  simple:")
        .replace("simple: {ste", "simple: {was: plain, ste")
    )
    vif = await vif_of(host, box, 3, "plain")
    await host.decided(vif, "grant")
    dry = load(text.encode(), "p", ROOT, replaces=digest, dry_run=True)
    assert not dry.closes
    assert box.engine.judge.policy.digest == digest
    load(text.encode(), "p", ROOT, replaces=digest)
    await until(lambda: host.record(vif).labels[0] == "simple")
    assert host.verdict(vif) == "grant"


def known_anywhere():
    """How many domains and devices anything still refers to."""
    gc.collect()
    return sum(isinstance(it, Domain | Device) for it in gc.get_objects())


@run
async def test_of_domains_that_come_and_go_nothing_is_kept_in_memory(host, box):
    await box.start()
    before = known_anywhere()
    for domid in range(3, 63):
        host.create(domid)
        host.vif(domid)
        host.vbd(domid)
        await until(lambda: len(box.engine.state.ledger) == 2)
        host.destroy(domid)
        await until(lambda: not box.engine.state.ledger)
    await until(lambda: known_anywhere() <= before)


@run
async def test_a_grant_waits_until_it_is_known_who_has_a_number_now(host, box):
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "grant")
    engine = box.engine
    device = engine.mirror.device_of(vif)
    # Read already, and not admitted yet: what stands there is the former domain's label.
    engine.mirror.domains[3].uuid = uuid_of(9)
    device.untrusted_nonce = nonce()
    decision = engine.judge.judge(device).decision
    assert decision.verdict == "pending"
    assert decision.reason == "waits until it is known who domain 3 is now"
    assert device in engine.judge.waiting
    engine.mirror.domains[3].uuid = uuid_of(3)
    assert engine.judge.judge(device).decision.verdict == "grant"
    assert device not in engine.judge.waiting
