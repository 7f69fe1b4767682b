"""What the broker tells of filters is what an agent takes: both ends on one store."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of

from broker.agent.durable import Known
from broker.agent.gates.base import GateError
from broker.agent.vif_filters import VifFilters
from broker.filters.bind import bind
from broker.filters.library import load_library
from broker.rpc.admin import ROOT, Caller
from broker.rpc.methods.filters import FilterAttach, FilterDetach, FilterUpdate

run = pytest_twisted.ensureDeferred
WHO = Caller(subject="local:uid=0,pid=1", role=ROOT, person="local:uid=0")
PLAIN = "  plain: {ste: [red]}\n"
ATTACHED = POLICY.replace(PLAIN, "  plain: {ste: [red], filters: [clean-traffic]}\n")


async def granted(host, box, domid, label):
    host.create(domid)
    box.label(uuid_of(domid), label)
    channel = host.vif(domid)
    nonce = host.report(channel)
    await host.decided(channel, "grant")
    return channel, Known(nonce=nonce.decode())


@pytest.fixture
def agent(box, tmp_path):
    """The agent of domain 0, once the broker's key is there."""
    return lambda: VifFilters(0, box.public_key(), None, tmp_path)


@run
async def test_an_agent_takes_what_the_broker_tells(host, box, agent):
    box.policy.write_text(ATTACHED)
    brokerd = await box.start()
    plain, has = await granted(host, box, 3, "plain")
    web, none = await granted(host, box, 4, "web_a")
    filters = agent()
    connection = box.engine.connection
    await filters.look(connection, [(plain, has), (web, none)])
    asked = filters.of(has)
    assert asked.profiles == ("clean-traffic",)
    environment, learned = bind(load_library(filters.texts), asked.profiles, asked.variables)
    assert learned == ("IP",)
    assert environment["MAC"][0].low == 0x00163E000003
    assert filters.of(none) is None

    with pytest.raises(GateError, match="no filter record"):
        filters.of(Known(nonce="0" * 32))

    await brokerd.admin.filter_attach(WHO, FilterAttach(domain="4", profile="no-multicast"))
    before = filters.texts

    async def sees(profiles):
        async def look():
            await filters.look(connection, [(plain, has), (web, none)])
            found = filters.of(none)
            return (found.profiles if found else ()) == profiles

        while not await look():
            await until(lambda: True)

    await sees(("no-multicast",))
    assert set(filters.texts) - set(before) == {"no-multicast.yaml"}

    text = f"{filters.texts['no-multicast.yaml'].decode()}# another\n"
    await brokerd.admin.filter_update(WHO, FilterUpdate(text=text))
    while filters.texts["no-multicast.yaml"] != text.encode():
        await sees(("no-multicast",))
    assert agent().texts == filters.texts, "a restarted agent has them without the store"

    await brokerd.admin.filter_detach(WHO, FilterDetach(domain="4", profile="no-multicast"))
    await sees(())


@pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)
@run
async def test_with_a_state_made_anew_an_agent_still_takes_what_is_told(host, box, agent):
    box.policy.write_text(ATTACHED)
    await box.start()
    channel, known = await granted(host, box, 3, "plain")
    filters = agent()
    await filters.look(box.engine.connection, [(channel, known)])
    assert filters.of(known) is not None
    before = known.filter.seq
    await box.stop()
    (box.state / "audit.jsonl").unlink()
    await box.start(init=True)
    box.label(uuid_of(3), "plain")
    known.nonce = host.report(channel).decode()

    async def taken():
        await filters.look(box.engine.connection, [(channel, known)])
        return known.filter.seq > before and known.filter.nonce == known.nonce

    while not await taken():
        await until(lambda: True)
    assert filters.of(known).profiles == ("clean-traffic",)
