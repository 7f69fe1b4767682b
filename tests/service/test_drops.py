"""What agents report of refused packets, as administrators hear of it."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import until

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.rpc.methods import filters

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


FILTERS = "/broker/v1/report/0/filters"


@run
async def test_what_filters_counted_and_learned_is_told_of_the_backends_own_vifs_alone(host, box):
    host.create(3, name="web1")
    host.create(DRIVER, name="net")
    host.attach(3, "vif", 0, {"type": "vif", "mac": "00:16:3e:00:00:03"})
    host.client.write(
        FILTERS,
        "at=7 omitted=4/1 clean-traffic/1=12/840 vif3.0=10.0.0.5/60 vif3.1=10.0.0.6/60 "
        "vif9.0=10.0.0.9/60",
    )
    host.client.write(f"/broker/v1/report/{DRIVER}/filters", "at=8 omitted=0/0 vif3.0=10.9.9.9/60")
    brokerd = await box.start()
    await until(lambda: len(brokerd.engine.mirror.untrusted_filter_counts) == 2, "both are read")
    await until(lambda: ("vif", "0") in brokerd.engine.mirror.domains[3].devices, "the vif")
    own, others = await brokerd.admin.filter_counts(CALLER, methods.Nothing())
    assert own == filters.FilterCounts(
        backend=0,
        backend_name="Domain-0",
        at=7.0,
        rules=(filters.FilterRuleCount(rule="clean-traffic/1", packets=12, bytes=840),),
        learned=(
            filters.LearnedAddress(
                frontend=3, frontend_name="web1", device="0", address="10.0.0.5", until=60.0
            ),
        ),
        omitted_rules=4,
        omitted_learned=1,
    )
    assert (others.backend, others.learned) == (DRIVER, ()), "another's vif is not its to speak of"
    host.client.write(FILTERS, "no report")
    host.destroy(DRIVER)
    await until(
        lambda: (
            list(brokerd.engine.mirror.untrusted_filter_counts) == [0]
            and brokerd.engine.mirror.untrusted_filter_counts[0] == b"no report"
        ),
        "what is none",
    )
    assert await brokerd.admin.filter_counts(CALLER, methods.Nothing()) == ()
