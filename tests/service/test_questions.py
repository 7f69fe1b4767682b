"""`decision.query` on a running broker: by domid, uuid or name, as the channel is decided."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import until, uuid_of

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.rpc.errors import RpcError

run = pytest_twisted.ensureDeferred
pytestmark = pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)
CALLER = Caller(subject="test", role=ROOT, person="test")


@run
async def test_any_two_domains_are_answered_as_their_channel_is_decided(host, box):
    admin = (await box.start()).admin
    for domid, label in ((3, "web_a"), (4, "lonely")):
        host.create(domid)
        box.label(uuid_of(domid), label)
    granted, denied = host.vbd(3), host.vif(4, backend=3)
    for channel in (granted, denied):
        host.report(channel)
    await host.decided(granted, "grant")
    await host.decided(denied, "deny")

    async def ask(frontend, backend, **arguments):
        asked = methods.DecisionQuery(frontend=frontend, backend=backend, **arguments)
        return await admin.decision_query(CALLER, asked)

    for name in ("3", "d3", uuid_of(3), "name:d3"):
        answer = await ask(name, "0", device_class="vbd", resource="lun_red")
        assert (answer.verdict, answer.frontend, answer.backend) == ("grant", 3, 0)
        assert (answer.frontend_label, answer.backend_label) == ("web_a", "SystemManagement")
        assert answer.policy.name == "corp"
        assert all(reason.where for reason in answer.reasons)
    answer = await ask("d4", "d3")
    assert answer.verdict == "deny"
    assert "; ".join(it.text for it in answer.reasons) == host.record(denied).reason
    assert (await ask("d3", "d4", frames=True)).verdict == "deny"
    assert (await ask("d3", "0", device_class="vbd")).verdict == "deny"
    with pytest.raises(RpcError, match="no domain nosuch runs"):
        await ask("nosuch", "0")
    with pytest.raises(RpcError, match="no domain 9 runs"):
        await ask("3", "9")
    host.create(5, name="d3")
    await until(lambda: [it.name for it in box.engine.mirror.of_uuid(uuid_of(5))] == ["d3"])
    with pytest.raises(RpcError, match="2 domains are d3"):
        await ask("d3", "0")
