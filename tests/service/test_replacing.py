"""A policy replaced under running domains: nothing is taken away unless that was meant."""

from __future__ import annotations

import time

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of

from broker.rpc.errors import RpcError
from broker.service import events
from broker.service.statedir import StateDir

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
NO_VIFS = POLICY.replace("vif, default: ste", "vif, default: deny")
NO_PLAIN = POLICY.replace("  plain: {ste: [red]}\n", "")
WALLED = POLICY.replace("plain: {ste: [red]}", "plain: {ste: [red], chinese_wall: [bank_b]}")


async def granted(host, box, domid, label):
    host.create(domid, name=f"web{domid}")
    vif = host.vif(domid)
    box.label(uuid_of(domid), label)
    host.report(vif)
    await host.decided(vif, "grant")
    return vif


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NO_VIFS, "would close vif/3/0 -> 0"),
        (NO_PLAIN, "would leave domain 3 (web3) without a label"),
        (WALLED, "would refuse domain 3 (web3): conflict set rivals"),
    ],
    ids=["closes", "unlabels", "refuses"],
)
@run
async def test_a_policy_that_takes_something_away_is_refused_by_name_unless_meant(
    host, box, text, says
):
    await box.start()
    await granted(host, box, 2, "web_a")
    vif = await granted(host, box, 3, "plain")
    digest = box.engine.judge.policy.digest
    with pytest.raises(RpcError) as caught:
        await box.load(text)
    assert caught.value.code == "conflict"
    assert any(says in problem for problem in caught.value.problems)
    assert box.engine.judge.policy.digest == digest
    assert host.verdict(vif) == "grant"
    assert says in str(box.lines("policy_refused")[-1]["problems"])
    dry = await box.load(text, dry_run=True)
    assert str(vif) in dry.closes
    change = await box.load(text, revoke=True)
    assert change.changed
    await host.decided(vif, "deny")


@run
async def test_what_a_sanction_is_closing_is_not_laid_at_the_policys_door(host, box):
    await box.start()
    vif = await granted(host, box, 3, "plain")
    device = next(it for it in box.engine.mirror.devices() if str(it) == str(vif))
    closing = events.Sanctioned(time.time(), device.path, None, "close", "frontend", None, "test")
    box.brokerd.audit.commit([closing])
    change = await box.load(POLICY + "groups: {front: [plain]}\n")
    assert (change.changed, change.closes) == (True, ())
    await host.decided(vif, "deny")


@run
async def test_while_the_store_is_read_anew_what_would_close_cannot_be_told(host, box):
    await box.start()
    await granted(host, box, 3, "plain")
    box.engine.mirror.drop(3)
    with pytest.raises(RpcError, match="the store is being read; try again") as caught:
        await box.load(NO_VIFS)
    assert caught.value.code == "unavailable"


@run
async def test_a_policy_that_takes_nothing_away_needs_no_word(host, box):
    await box.start()
    vif = await granted(host, box, 3, "plain")
    change = await box.load(POLICY + "groups: {front: [plain]}\n")
    assert (change.changed, change.closes, change.unlabels, change.refuses) == (True, (), (), ())
    digest = box.engine.judge.policy.digest
    await until(lambda: host.record(vif).policy == digest)
    assert host.verdict(vif) == "grant"


@pytest.mark.parametrize("step", ["keep", "commit"])
@run
async def test_a_load_that_ends_midway_leaves_the_old_policy_or_the_new_never_a_mixture(
    host, box, monkeypatch, step
):
    """Ended before each thing a load writes, and after it."""
    await box.start()
    vif = await granted(host, box, 3, "plain")
    old = box.engine.judge.policy.digest

    class EndedError(Exception):
        pass

    for when in ("before", "after"):
        target = StateDir if step == "keep" else type(box.brokerd.audit._journal)
        plain = getattr(target, step)

        def ends(self, *arguments, plain=plain, when=when):
            if when == "after":
                plain(self, *arguments)
            raise EndedError

        with monkeypatch.context() as patch:
            patch.setattr(target, step, ends)
            with pytest.raises(EndedError):
                await box.load(NO_VIFS, revoke=True)
        # The next start knows what is on the disk, and that alone.
        await box.stop()
        await box.start()
        loaded = (step, when) == ("commit", "after")
        assert (box.engine.judge.policy.digest == old) is not loaded
        await host.decided(vif, "deny" if loaded else "grant")
