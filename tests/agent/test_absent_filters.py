"""A vif that should have filters and for which no record is there, or nothing to hold it by."""

from __future__ import annotations

import pytest
import pytest_twisted
from bed import Bed, simulated, until
from records import INPUTS, KEY, NONCE, record
from twisted.internet import reactor

from broker.agent.durable import DurableState, Known
from broker.agent.gates.base import GateError
from broker.agent.session import AgentSession
from broker.agent.vif_filters import NotHeld, VifFilters
from broker.core.consumer import NOTHING, Life, judge
from broker.core.filter_record import FilterRecord, as_filtered, is_filtered, sign_filter
from broker.core.observation import is_observed

run = pytest_twisted.ensureDeferred
PUBLIC = KEY.public_key()
VIF = "vif/0"
LIFE = Life(backend=0, device_class="vif", frontend=3, device="0", nonce=NONCE, inputs=INPUTS)


def remembered(*texts):
    memory = NOTHING
    for text in texts:
        memory = judge(text, PUBLIC, LIFE, memory, fresh=True, gate_open=False).memory
    return memory


def test_a_grant_says_that_frames_are_filtered_and_by_observe_mode_still_that_too():
    for reason in ("", "red may use it", "observed: would be denied"):
        assert not is_filtered(reason)
        assert is_filtered(as_filtered(reason))
        assert is_observed(as_filtered(reason)) == is_observed(reason)


def test_a_vif_granted_with_filters_needs_their_record_though_nothing_else_is_told(tmp_path):
    filters = VifFilters(0, PUBLIC, DurableState(tmp_path, 0), tmp_path)
    filtered = record(reason=as_filtered("red may use it"))
    with pytest.raises(GateError, match="no filter record is signed"):
        filters.of(Known(nonce=NONCE, memory=remembered(filtered)))
    plain = record(seq=8, reason="red may use it")
    assert filters.of(Known(nonce=NONCE, memory=remembered(filtered, plain))) is None


def test_what_is_neither_of_this_life_nor_good_changes_nothing_of_it():
    memory = remembered(record(reason=as_filtered("")))
    for text in (record(seq=8, nonce="f" * 32), record("deny", seq=9), record("pending", seq=10)):
        memory = judge(text, PUBLIC, LIFE, memory, fresh=True, gate_open=False).memory
        assert memory.filtered


@run
async def test_an_open_vif_that_gets_profiles_is_closed_where_none_can_be_held(
    store_daemon, tmp_path
):
    bed = Bed(store_daemon)
    durable = DurableState(tmp_path, 0)
    filters = VifFilters(0, PUBLIC, durable, tmp_path)
    agent = AgentSession(
        store_daemon.address, reactor, domid=0, key=PUBLIC, durable=durable,
        make_gates=simulated, bridges=NotHeld(filters), filters=filters,
    )  # fmt: skip
    bed.start_beating()
    agent.startService()
    try:
        bed.attach(VIF)
        nonce = await bed.nonce(VIF)
        bed.decide(VIF)
        await bed.comes_to(VIF, "open")
        told = FilterRecord(
            seq=1, frontend=3, backend=0, device_class="vif", device="0", uuid=None,
            nonce=nonce.decode(), profiles=("p",),
        )  # fmt: skip
        bed.store.write("/broker/v1/filter/0/vif/3/0", sign_filter(told, KEY))
        await until(lambda: not bed.gate(VIF), "the gate closed")
        await until(lambda: bed.enforced(VIF) != "open", "the report of it")
    finally:
        bed.close()
        await agent.stop()
