"""The vbd gate on real files and loop devices, from policy to loop: links and `..` open nothing."""

from __future__ import annotations

import pytest
import pytest_twisted
from support.product import POLICY, Product, until
from support.xenstoreds import KINDS, start_store

from broker.sim.toolstack import vbd

run = pytest_twisted.ensureDeferred
STORES = [pytest.param(kind, marks=[pytest.mark.xenstored, pytest.mark.root]) for kind in KINDS]


@run
@pytest.mark.parametrize("kind", STORES)
async def test_a_link_under_a_granted_name_stays_closed_and_the_file_itself_opens(kind):
    daemon = start_store(kind)
    product = Product(daemon, agent_yaml="gates: real", drivers=False)
    disks = product.directory / "disks"
    disks.mkdir()
    product.policy.write_text(POLICY.replace("/dev/vg/", f"{disks}/"))
    for name in ("red-1", "blue-1"):
        (disks / name).write_bytes(bytes(1 << 20))
    (disks / "red-link").symlink_to(disks / "blue-1")
    (product.directory / "away").symlink_to(disks)
    try:
        await product.start()
        good, link = vbd(51712, f"{disks}/red-1"), vbd(51728, f"{disks}/red-link")
        up = vbd(51744, f"{disks}/../disks/red-1")
        domain = await product.create(good, link, up, label="red")
        await product.comes_to(domain, good, "grant")
        await product.comes_to(domain, up, "deny")
        await until(
            lambda: product.report(domain, link).startswith("failed"),
            lambda: product.shown(domain, link),
        )
        assert not product.is_open(domain, link)
        path = product.read(f"{good.backend_dir(domain.domid)}/physical-device-path") or b""
        node = product.read(f"{good.backend_dir(domain.domid)}/node") or b""
        assert b"loop" in path + node
        product.label(domain, "blue")
        await product.comes_to(domain, good, "deny")
        product.check()
        await product.destroy(domain)
        await until(lambda: "it is gone" in product.log("agent"), "the release")
    finally:
        product.close()
        daemon.stop()
