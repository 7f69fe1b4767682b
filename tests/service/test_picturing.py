"""The policy in force as administrators see it: who put it there, and who may talk to whom."""

from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import POLICY
from twisted.internet.defer import ensureDeferred, gatherResults

from broker.core.picture import picture
from broker.policy.load import load_policy
from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.rpc.errors import RpcError
from broker.service import picturing

run = pytest_twisted.ensureDeferred
pytestmark = pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)

ROLES = """\
roles:
  careful: [{verbs: [read, policy.load], second_person: true}]
  approver: [{verbs: [read, policy.approve]}]
"""
NOTHING = methods.Nothing()
ROOT_CALLER = Caller(subject="local:uid=0,pid=9", role=ROOT, person="local:uid=0")
CARA, ABE = (Caller(subject=it, role=role, person=it) for it, role in
             (("cara", "careful"), ("abe", "approver")))  # fmt: skip


@run
async def test_before_any_policy_there_is_neither_text_nor_picture(host, box):
    admin = (await box.start(policy=None)).admin
    for ask in (admin.policy_show, admin.policy_picture):
        with pytest.raises(RpcError) as caught:
            await ask(ROOT_CALLER, NOTHING)
        assert caught.value.code == "unavailable"


@run
async def test_who_changed_the_policy_last_and_who_approved_is_known_after_a_restart(host, box):
    box.policy.write_text(POLICY + ROLES)
    admin = (await box.start()).admin
    first = await admin.policy_show(ROOT_CALLER, NOTHING)
    assert (first.changed.subject, first.changed.replaces) == ("the first start", None)
    text = (POLICY + ROLES).replace('"1.0"', '"1.1"')
    change = await admin.policy_load(CARA, methods.PolicyLoad(text=text))
    await admin.policy_approve(ABE, methods.Approval(id=change.proposal))
    shown = await admin.policy_show(ROOT_CALLER, NOTHING)
    assert (shown.changed.subject, shown.changed.role) == ("cara", "careful")
    assert (shown.changed.approver, shown.changed.approver_role) == ("abe", "approver")
    assert shown.changed.replaces == first.digest
    assert shown.changed.time > first.changed.time
    await box.stop()
    admin = (await box.start()).admin
    assert await admin.policy_show(ROOT_CALLER, NOTHING) == shown


@run
async def test_the_picture_is_that_of_the_policy_in_force_and_made_once(host, box):
    admin = (await box.start()).admin
    shown = await admin.policy_picture(ROOT_CALLER, NOTHING)
    expected = picture(load_policy(POLICY.encode(), "P"))
    assert [it.labels for it in shown.nodes] == [it.labels for it in expected.nodes]
    for key in ("device_class", "frontend", "backend", "both", "reading", "resources"):
        assert [getattr(it, key) for it in shown.edges] == [
            getattr(it, key) for it in expected.edges
        ]
    assert [(it.one, it.other, it.names) for it in shown.walls] == [
        (it.one, it.other, it.names) for it in expected.walls
    ]
    assert (shown.title, shown.classes) == (expected.title, expected.classes)
    assert await admin.policy_picture(ROOT_CALLER, NOTHING) is shown
    text = POLICY.replace('"1.0"', '"1.1"').replace("lonely: {ste: [blue]}", "lonely: {ste: [red]}")
    await admin.policy_load(ROOT_CALLER, methods.PolicyLoad(text=text))
    assert (await admin.policy_picture(ROOT_CALLER, NOTHING)).title == "corp 1.1"


@run
async def test_however_many_ask_at_once_it_is_drawn_once(host, box, monkeypatch):
    admin = (await box.start()).admin
    drawn = []
    draw = picturing._draw
    monkeypatch.setattr(picturing, "_draw", lambda policy: drawn.append(policy) or draw(policy))
    asked = [ensureDeferred(admin.policy_picture(ROOT_CALLER, NOTHING)) for _ in range(5)]
    pictures = await gatherResults(asked)
    assert len(drawn) == 1
    assert all(it is pictures[0] for it in pictures)
