"""What agents report of refused packets, as administrators hear of it."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import until

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")
DRIVER = 5


def path(backend):
    return f"/broker/v1/report/{backend}/drops"


async def told(brokerd):
    return await brokerd.admin.net_drops(CALLER, methods.Nothing())


async def comes_to(brokerd, wanted):
    """The reports, once `wanted` holds of them."""
    while not wanted(found := await told(brokerd)):
        seen = brokerd.engine.mirror.untrusted_drops.copy()
        await until(
            lambda seen=seen: brokerd.engine.mirror.untrusted_drops != seen, "another report"
        )
    return found


@run
async def test_reports_are_read_at_the_start_and_as_they_come(host, box):
    host.create(DRIVER, name="net")
    host.client.write(path(0), "at=7 omitted=2 web>bank=12/840 ->web=1/60")
    brokerd = await box.start()
    (report,) = await comes_to(brokerd, lambda found: len(found) == 1)
    assert report == methods.NetDrops(
        backend=0,
        backend_name="Domain-0",
        at=7.0,
        drops=(
            methods.NetDrop(sender="web", receiver="bank", packets=12, bytes=840),
            methods.NetDrop(sender=None, receiver="web", packets=1, bytes=60),
        ),
        omitted=2,
    )
    host.client.write(path(DRIVER), "at=8 omitted=0 a%20b>c=1/1")
    found = await comes_to(brokerd, lambda found: len(found) == 2)
    assert found[1].backend_name == "net"
    assert found[1].drops[0].sender == "a b"
    host.client.write(path(DRIVER), "at=9 omitted=0 a>c=2/2")
    await comes_to(brokerd, lambda found: found[-1].at == 9.0)
    host.client.rm(path(DRIVER))
    await comes_to(brokerd, lambda found: len(found) == 1)


@run
async def test_what_is_no_report_is_told_to_nobody(host, box):
    brokerd = await box.start()
    host.client.write(path(0), "at=7 omitted=0 x")
    await until(lambda: brokerd.engine.mirror.untrusted_drops.get(0), "it is read")
    assert await told(brokerd) == ()


@run
async def test_a_domain_that_is_gone_reports_nothing_any_more(host, box):
    host.create(DRIVER)
    brokerd = await box.start()
    host.client.write(path(DRIVER), "at=8 omitted=0 a>c=1/1")
    await comes_to(brokerd, lambda found: len(found) == 1)
    host.destroy(DRIVER)
    await comes_to(brokerd, lambda found: not found)
    host.client.write(path(DRIVER), "at=9 omitted=0 a>c=1/1")
    host.client.write(path(0), "at=9 omitted=0 a>c=1/1")
    (report,) = await comes_to(brokerd, lambda found: len(found) == 1)
    assert report.backend == 0
