"""Observe mode: what it opens is granted as what it would have been, in the red, for a time."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.core.channels import Decision
from broker.core.observation import is_observed
from broker.core.record import RecordError, parse_record
from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.service.events import Observed
from broker.service.judge import make_entry
from broker.service.mirror import Device
from broker.service.state import MAX_OBSERVED, State

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")
END = 4102444800.0  # the last midnight of 2099, UTC
OBSERVING = POLICY + (
    "mode: {observe: {opens: [{class: vbd, frontend: plain}], until: 2099-12-31}}\n"
)
WHY = "observed: would be denied: plain lacks STE type storage_red of resource lun_red"


async def observed_disk(host, box, domid=3, **options):
    box.policy.write_text(OBSERVING)
    await box.start()
    host.create(domid)
    box.label(uuid_of(domid), "plain")
    vbd = host.vbd(domid, **options)
    host.report(vbd)
    return vbd, await host.decided(vbd, "grant", WHY)


@run
async def test_what_is_observed_is_granted_and_recorded_as_what_it_would_have_been(host, box):
    _, record = await observed_disk(host, box)
    assert is_observed(record.reason)
    assert "no rule allows it" in record.reason
    vif = host.vif(3, bridge="xenbr0")
    host.report(vif)
    granted = await host.decided(vif, "grant")
    assert not is_observed(granted.reason)


@run
async def test_what_no_pattern_matches_is_enforced_all_the_same(host, box):
    await observed_disk(host, box)
    host.create(4)
    box.label(uuid_of(4), "lonely")
    vbd = host.vbd(4)
    host.report(vbd)
    await host.decided(vbd, "deny")


@run
async def test_a_domain_that_may_not_run_opens_nothing_by_being_observed(host, box):
    vbd, _ = await observed_disk(host, box)
    box.brokerd.admin.labels.remove(box.selector(uuid_of(3)), "test")
    await host.decided(vbd, "deny", "unlabelled")


@run
async def test_status_is_red_while_it_lasts_and_says_how_many(host, box):
    await observed_disk(host, box)
    status = await box.brokerd.admin.status(CALLER, methods.Nothing())
    assert status.health == "red"
    (problem,) = [it for it in status.problems if "observe" in it]
    assert "until the end of 2099-12-31: 1 channels would else be denied" in problem
    await box.load(POLICY, revoke=True)
    status = await box.brokerd.admin.status(CALLER, methods.Nothing())
    assert not [it for it in status.problems if "observe" in it]


@run
async def test_it_ends_at_its_day_without_any_event_and_a_clock_set_back_does_not_revive_it(
    host, box
):
    vbd, _ = await observed_disk(host, box)
    judge = box.engine.judge
    judge.clock = lambda: END - 1
    box.engine.tick()
    assert host.verdict(vbd) == "grant"
    judge.clock = lambda: END
    box.engine.tick()
    await host.decided(vbd, "deny", "plain lacks STE type storage_red")
    judge.clock = lambda: END - 1000
    box.label(uuid_of(3), "lonely")
    box.label(uuid_of(3), "plain")
    await until(lambda: host.record(vbd).labels[0] == "plain")
    assert host.verdict(vbd) == "deny"
    assert not judge.observing


@run
async def test_what_was_seen_is_kept_over_a_restart_and_turned_into_an_amendment(host, box):
    await observed_disk(host, box, mode="r")
    await until(lambda: box.engine.state.observed)
    (line,) = box.lines("observed")
    assert line["asked"] == ["vbd", "plain", "SystemManagement", "lun_red", "r"]
    host.detach(box.engine.mirror.domains[3].devices["vbd", "51712"].channel)
    await box.stop()
    await box.start()
    (seen,) = await box.brokerd.admin.policy_observed(CALLER, methods.Nothing())
    assert (seen.device_class, seen.frontend, seen.backend) == ("vbd", "plain", "SystemManagement")
    assert (seen.resource, seen.mode, seen.channel) == ("lun_red", "r", "vbd/3/51712 -> 0")
    assert any("storage_red" in it.text and it.where for it in seen.reasons)
    assert len(box.lines("observed")) == 1
    # Another policy starts with nothing seen: what is still open is seen again.
    await box.load(POLICY, revoke=True)
    assert await box.brokerd.admin.policy_observed(CALLER, methods.Nothing()) == ()


@run
async def test_an_explanation_says_that_it_is_observed_and_what_stands_against_it(host, box):
    await observed_disk(host, box)
    selector = methods.ChannelSelector(device_class="vbd", frontend="3", device="51712")
    explained = await box.brokerd.admin.channel_explain(CALLER, selector)
    first, *others = explained.reasons
    assert first.text.startswith("observed: would be denied: ")
    assert {it.rule for it in others} == {"ste", "classes.vbd"}


@run
async def test_loading_a_policy_that_observes_warns_of_what_agents_have_to_allow(host, box):
    await box.start()
    change = await box.load(OBSERVING)
    (warning,) = [it for it in change.warnings if "observe mode" in it]
    assert "allow_observe: true" in warning
    assert change.governs == ("mode",)


def test_what_was_seen_is_bounded():
    state = State()
    for number in range(MAX_OBSERVED + 5):
        state.apply(Observed(1.0, ("vif", f"l{number}", "m", None, "w"), "vif/1/0 -> 0"))
    assert len(state.observed) == MAX_OBSERVED


def test_no_observed_grant_is_made_that_has_no_room_to_say_so():
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    device, refused = Device(3, "vbd", "51712"), 0
    device.backend = 0
    for length in range(1000, 1700, 5):
        names = ("plain", "SystemManagement"), "r" * length
        decision = Decision("grant", uuid_of(3), "0" * 32, "0" * 64, *names, None, None, WHY)
        try:
            text = make_entry(device, decision, 1, key).text
        except RecordError:
            refused += 1
        else:
            assert is_observed(parse_record(text).reason)
    assert 0 < refused < 140
