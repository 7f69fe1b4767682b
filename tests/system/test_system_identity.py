"""Who a domain is: garbage labels and uuids, two lives of one, domids used again."""

from __future__ import annotations

import pytest
import pytest_twisted
from support.product import mac, until, uuid_of

from broker.sim.toolstack import vbd, vif
from broker.xenstore import paths

run = pytest_twisted.ensureDeferred
OPTIONS = {"broker_yaml": "adopt_labels: true\n"}
GARBAGE = (
    b"",
    b"SystemManagement\x1b]0;x\x07",
    b"\xff\xfe\x00red",
    b"x" * 1900,
    b"red\n",
    b"nosuch",
)


def status(product, domain):
    return product.read(f"{paths.security_dir(domain.uuid)}/status") or b""


@run
async def test_garbage_labels_found_in_vm_label_nobody(product):
    domain = await product.create(vif(0, mac(1, 0)))
    nic = domain.devices[0]
    node = f"{paths.security_dir(domain.uuid)}/acm_label/labelname"
    product.client.write(f"{paths.security_dir(domain.uuid)}/acm_label/policyname", "corp")
    for garbage in GARBAGE:
        product.client.write(node, garbage)
        await product.fence()
        record = await product.comes_to(domain, nic, "deny", "unlabelled")
        assert record.labels[0] is None


@run
async def test_a_label_of_another_policy_is_not_taken_over(product):
    found = {"acm_label/policyname": b"other\x1b[2J", "acm_label/labelname": b"red"}
    domain = await product.create(vif(0, mac(1, 0)), found=found)
    await until(lambda: b"of policy other" in status(product, domain), "the reason shown")
    record = await product.comes_to(domain, domain.devices[0], "deny", "of policy other")
    assert record.labels[0] is None
    code, text = product.ctl("domain", "list", "--long")
    assert (code, "\x1b" in text) == (0, False)


@run
@pytest.mark.parametrize("label", ["nosuch", "red\x1b[31m", "ü", "x" * 3000, "", "-"])
async def test_a_garbage_label_is_refused_by_the_command_and_changes_nothing(product, label):
    domain = await product.create(vif(0, mac(1, 0)))
    code, text = product.ctl("label", "set", str(domain.domid), "--", label)
    assert code == 2, text
    assert (await product.comes_to(domain, domain.devices[0], "deny")).labels[0] is None


@run
@pytest.mark.parametrize("vm", [b"/vm/no-uuid", b"\xff\x1b[31m", b"", b"/vm/" + b"f" * 1900])
async def test_a_uuid_that_is_none_opens_nothing(product, vm):
    domain = await product.create(label="red")
    product.client.write(f"/local/domain/{domain.domid}/vm", vm)
    nic = await product.attach(domain, vif(0, mac(1, 0)))
    disk = await product.attach(domain, vbd(51712, "/dev/vg/red-1"))
    for device in (nic, disk):
        assert (await product.comes_to(domain, device, "deny", "uuid")).uuid is None
    assert product.ctl("channel", "explain", f"vif/{domain.domid}/0")[0] == 1


@run
async def test_of_one_uuid_under_two_domids_the_newer_is_refused_and_the_older_keeps_all(product):
    elder = await product.create(vif(0, mac(1, 0)), vbd(51712, "/dev/vg/red-1"), label="red")
    before = {it.devid: (await product.comes_to(elder, it, "grant")).seq for it in elder.devices}
    lives = {it.devid: product.life(elder, it) for it in elder.devices}
    newer = await product.create(
        vif(0, mac(2, 0)), vbd(51712, "/dev/vg/red-1"), uuid=elder.uuid, name="twin"
    )
    for device in newer.devices:
        await product.comes_to(newer, device, "deny", f"already runs as domain {elder.domid}")
    label = f"{paths.security_dir(elder.uuid)}/acm_label/labelname"
    await until(lambda: product.read(label) == b"red", "the label written back")
    assert status(product, elder) == b"labelled"
    await product.destroy(newer)  # removes /vm/<uuid> too
    await product.fence()
    for device in elder.devices:
        assert (product.record(elder, device).seq, product.is_open(elder, device)) == (
            before[device.devid],
            True,
        )
        assert product.life(elder, device) == lives[device.devid]
        assert not product.monitor.closings(device.backend_dir(elder.domid))


@run
async def test_a_domid_used_again_inherits_nothing(product):
    first = await product.create(vif(0, mac(1, 0)), vbd(51712, "/dev/vg/red-1"), label="red")
    old = {}
    for device in first.devices:
        await product.comes_to(first, device, "grant")
        old[device.kind] = product.text(first, device)
    await product.destroy(first)
    second = await product.create(
        *first.devices, domid=first.domid, uuid=uuid_of(90000 + first.domid), name="second"
    )
    for device in second.devices:
        await product.comes_to(second, device, "deny", "unlabelled")
        product.client.write(product.decision_path(second, device), old[device.kind])
        await until(
            lambda device=device: product.text(second, device) != old[device.kind], "put right"
        )
    await product.fence()
    assert not any(product.is_open(second, device) for device in second.devices)
    product.label(second, "red")
    for device in second.devices:
        await product.comes_to(second, device, "grant")


@run
async def test_a_domid_used_again_at_once_inherits_nothing(product):
    """Destroyed and created within one turn: the broker sees only the second."""
    first = await product.create(vif(0, mac(1, 0)), label="red")
    await product.comes_to(first, first.devices[0], "grant")
    life = product.life(first, first.devices[0])
    product.signal("brokerd", 19)
    product.signal("agent", 19)
    try:
        await product.destroy(first)
        second = await product.create(
            *first.devices, domid=first.domid, uuid=uuid_of(80000 + first.domid), name="second"
        )
    finally:
        product.signal("agent", 18)
        product.signal("brokerd", 18)
    record = await product.comes_to(second, second.devices[0], "deny", "unlabelled")
    assert record.uuid == second.uuid
    assert product.life(second, second.devices[0]) != life
