"""What a relabelling costs the store: the domain's own channels, however many others there are."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import until, uuid_of

from broker.xenstore import paths

run = pytest_twisted.ensureDeferred
pytestmark = pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)
HEARTBEAT = (paths.HEARTBEAT, paths.STATE)


@pytest.mark.parametrize("others", [1, 20])
@run
async def test_a_relabelling_reads_and_writes_its_own_domain_alone(others, host, box):
    await box.start()
    vifs = []
    for domid in range(3, 4 + others):
        host.create(domid)
        box.label(uuid_of(domid), "plain")
        vifs.append(host.vif(domid))
        host.report(vifs[-1])
    for vif in vifs:
        await host.decided(vif, "grant")
    engine = box.engine
    shown = f"/vm/{uuid_of(3)}/security/acm_label/labelname"

    def resting():
        idle = not engine.decider.busy and not engine._busy and not engine._dirty
        return idle and not engine._dirty.has_later and not engine._display.waiting

    async def rest():
        """Until nothing is left to do, also not on events of what the broker wrote itself."""
        while True:
            await until(resting, "the broker to rest")
            await engine.connection.directory("/")  # what is under way to it comes before this
            if resting():
                return

    await until(lambda: host.read(shown) == b"plain", "the labels to be shown")
    await rest()
    asked, send = [], engine.connection.request_many

    def counting(requests, tx=0):
        asked.extend(payload.partition(b"\0")[0].decode("latin-1") for _, payload in requests)
        return send(requests, tx)

    engine.connection.request_many = counting
    box.label(uuid_of(3), "lonely")
    await until(lambda: host.record(vifs[0]).labels[0] == "lonely", "a new record")
    await until(lambda: host.read(shown) == b"lonely", "the label to be shown")
    await rest()
    engine.connection.request_many = send
    own = [it for it in asked if it != "/" and not it.startswith(HEARTBEAT)]
    assert own, asked
    assert {it for it in own if uuid_of(3) not in it and "/3/" not in f"{it}/"} == set()
    assert len(own) <= 40
