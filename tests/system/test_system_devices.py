"""What a device says of itself: swapped disks, odd paths, hostile frontends, odd values."""

from __future__ import annotations

import contextlib

import pytest
import pytest_twisted
from support.product import POLICY, mac, until

from broker.sim.toolstack import attach_requests, detach_requests, vbd, vif
from broker.xenstore.errors import StoreError

run = pytest_twisted.ensureDeferred
RED = "/dev/vg/red-1"


async def granted(product, *devices):
    domain = await product.create(*devices, label="red")
    for device in devices:
        await product.comes_to(domain, device, "grant")
    return domain


@run
async def test_a_disk_swapped_on_its_devid_needs_a_grant_of_its_own(product):
    """Detached and attached in one transaction, as one event may show it."""
    domain = await granted(product, vbd(51712, RED))
    disk, other = domain.devices[0], vbd(51712, "/dev/vg/blue-1")
    life = product.life(domain, disk)
    swap = [*detach_requests(domain.domid, disk), *attach_requests(domain.domid, other)]
    await product.connection.transact(swap)
    await product.comes_to(domain, other, "deny")
    assert product.life(domain, other) != life


@run
async def test_a_disk_exchanged_in_place_under_an_open_grant_is_closed(product):
    domain = await granted(product, vbd(51712, RED))
    disk = domain.devices[0]
    back = disk.backend_dir(domain.domid)
    # The monitor reads what was opened after it was; it must not read what comes now instead.
    await until(lambda: (back, True) in [(it.path, it.open) for it in product.monitor.moves])
    for home in (back, disk.libxl_dir(domain.domid)):
        product.client.write(f"{home}/params", "/dev/vg/blue-1")
    await product.comes_to(domain, disk, "deny")


@run
async def test_a_backend_directory_that_differs_from_the_toolstack_s_copy_stays_closed(product):
    domain = await product.create(label="red")
    disk = vbd(51712, RED)
    changes = attach_requests(domain.domid, disk)
    await product.connection.transact(changes)
    domain.devices.append(disk)
    await product.comes_to(domain, disk, "grant")
    back = disk.backend_dir(domain.domid)
    # The monitor reads what was opened after it was; it must not read what comes now instead.
    await until(lambda: (back, True) in [(it.path, it.open) for it in product.monitor.moves])
    product.client.write(f"{back}/params", "/dev/vg/blue-1")
    await until(lambda: not product.is_open(domain, disk), lambda: product.shown(domain, disk))
    await product.fence()
    assert not product.is_open(domain, disk)


@run
@pytest.mark.parametrize(
    "params",
    [
        "/dev/vg/red-/../../sda",
        "/dev/vg/red-1/../blue-1",
        "/dev/vg/../vg/red-1",
        "dev/vg/red-1",
        "/dev/vg/blue-1\n",
        "",
    ],
)
async def test_a_path_that_is_not_plainly_the_resource_s_opens_nothing(product, params):
    domain = await product.create(vbd(51712, params), label="red")
    await product.comes_to(domain, domain.devices[0], "deny")


@run
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("params", b"/dev/vg/red-\xff\xfe"),
        ("params", b"/srv/" + b"x" * 1900),
        ("mode", b"\x1b[2J\x00"),
        ("type", b"\xc3\x28"),
        ("script", b"\xff" * 1500),
    ],
)
async def test_odd_bytes_in_a_device_open_nothing_and_reach_no_log(product, key, value):
    domain = await product.create(label="red")
    disk = vbd(51712, "/dev/vg/blue-1")
    for home in (disk.libxl_dir(domain.domid), disk.backend_dir(domain.domid)):
        product.client.write(f"{home}/{key}", value)
    await product.attach(domain, disk)
    await product.comes_to(domain, disk, "deny")
    for home in (disk.libxl_dir(domain.domid), disk.backend_dir(domain.domid)):
        product.client.write(f"{home}/{key}", value)
    await product.fence()
    assert not product.is_open(domain, disk)
    product.ctl("channel", "list")
    product.ctl("channel", "explain", f"vbd/{domain.domid}/51712")
    nic = await product.attach(domain, vif(0, mac(domain.domid, 0)))
    await product.comes_to(domain, nic, "grant")


@run
@pytest.mark.parametrize(
    "backend",
    [b"/local/domain/0/backend/vif/1/0", b"\xff", b"/local/domain/00/backend/vif/0/0", b"/"],
)
async def test_a_toolstack_copy_that_names_another_backend_dir_opens_nothing(product, backend):
    domain = await product.create(label="red")
    nic = vif(0, mac(domain.domid, 0))
    product.client.write(f"{nic.libxl_dir(domain.domid)}/backend", backend)
    back = nic.backend_dir(domain.domid)
    product.client.write(f"{back}/frontend", nic.frontend_dir(domain.domid))
    product.client.write(f"{back}/state", "1")
    await until(lambda: product.life(domain, nic), "a life in the agent's eyes")
    await product.fence()
    assert not product.is_open(domain, nic)
    assert b"grant" not in product.text(domain, nic)
    product.client.rm(back)


@run
async def test_a_frontend_that_rewrites_its_backend_gains_and_loses_nothing(product):
    domain = await granted(product, vif(0, mac(1, 0)), vbd(51712, RED))
    before = {
        it.devid: (product.text(domain, it), product.life(domain, it)) for it in domain.devices
    }
    with domain.guest.client() as guest:
        for device in domain.devices:
            front = device.frontend_dir(domain.domid)
            guest.write(f"{front}/backend-id", "7\x1b[31m")
            guest.write(f"{front}/backend", b"/local/domain/7/backend/vif/\xff/0")
            guest.write(f"{front}/mac", "00:16:3e:ff:ff:ff")

    def noted():
        return any(it["domid"] == domain.domid for it in product.audit.events("violation"))

    await until(noted, "the violation in the audit log")
    await product.fence()
    for device in domain.devices:
        assert (product.text(domain, device), product.life(domain, device)) == before[device.devid]
        assert not product.monitor.closings(device.backend_dir(domain.domid))


@run
async def test_a_frontend_that_breaks_its_protocol_loses_that_channel_where_the_policy_closes(
    product,
):
    file = product.directory / "strict.yaml"
    file.write_text(POLICY.replace("default: report", "default: close"))
    assert product.ctl("policy", "load", str(file))[0] == 0
    try:
        domain = await granted(product, vif(0, mac(1, 0)), vbd(51712, RED))
        other = await granted(product, vif(0, mac(2, 0)))
        nic, disk = domain.devices
        with domain.guest.client() as guest:
            guest.write(f"{nic.frontend_dir(domain.domid)}/backend-id", "7")
        await product.comes_to(domain, nic, "deny", "closed: frontend broke")
        await product.fence()
        assert product.is_open(domain, disk)
        assert product.is_open(other, other.devices[0])
    finally:
        file.write_text(POLICY)
        assert product.ctl("policy", "load", "--revoke", str(file))[0] == 0


@run
async def test_a_frontend_that_hides_its_directory_is_noted_and_gains_nothing(product):
    domain = await granted(product, vif(0, mac(1, 0)))
    nic = domain.devices[0]
    front = nic.frontend_dir(domain.domid)
    with domain.guest.client() as guest:
        for path in (f"{front}/backend", f"{front}/backend-id", front):
            guest.set_perms(path, f"n{domain.domid}")
    disk = await product.attach(domain, vbd(51712, "/dev/vg/blue-1"))
    await product.comes_to(domain, disk, "deny")
    await product.fence()
    assert not product.monitor.closings(nic.backend_dir(domain.domid))


@run
async def test_values_of_4096_bytes_from_a_guest_disturb_nobody(product):
    domain = await granted(product, vif(0, mac(1, 0)))
    nic = domain.devices[0]
    front = nic.frontend_dir(domain.domid)
    with domain.guest.client() as guest:
        for key in ("backend", "backend-id", "state", "mac", "x" * 200):
            room = 4096 - len(f"{front}/{key}") - 1
            for size in (room, 2048, 1900):
                with contextlib.suppress(StoreError):
                    guest.write(f"{front}/{key}", b"\xff" * size)
    await product.fence()
    assert not product.monitor.closings(nic.backend_dir(domain.domid))


@run
async def test_a_guest_cannot_reach_its_gate_or_its_decision(product):
    """What a guest may write must never be what opens: tried on all the nodes that do."""
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, "/dev/vg/blue-1"), label="red")
    nic, disk = domain.devices
    product.label(domain, "jailed")
    for device in domain.devices:
        await product.comes_to(domain, device, "deny")
    paths = [product.decision_path(domain, it) for it in domain.devices]
    for device in domain.devices:
        back = device.backend_dir(domain.domid)
        paths += [f"{back}/hotplug-status", f"{back}/physical-device", f"{back}/xpb-life"]
        paths += [f"{device.libxl_dir(domain.domid)}/params"]
    paths += ["/broker/v1/heartbeat", "/broker/v1/state", f"/vm/{domain.uuid}/name"]
    paths += [f"/vm/{domain.uuid}/security/acm_label/labelname"]
    with domain.guest.client() as guest:
        for path in paths:
            with pytest.raises(StoreError):
                guest.write(path, "connected")
    await product.fence()
    assert not product.is_open(domain, nic)
    assert not product.is_open(domain, disk)
