"""Orders: asked of the policy, audited, signed, published and waited for; channels by hand."""

from __future__ import annotations

import re

import msgspec
import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from twisted.internet.defer import Deferred

from broker.core.order import Order, Result, encode_result, verify_order
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service.authority import local_root
from broker.service.orders import By
from broker.xenstore.paths import ORDER_PLACES, ORDER_RESULTS, ORDERS, Channel

run = pytest_twisted.ensureDeferred
ROOT = local_root("a test").caller
ALL = b"connect,disconnect,reset,destroy"


class Dom0:
    """dom0's agent, as far as the broker sees it."""

    def __init__(self, host, box, taken=ALL):
        self.host = host
        self.box = box
        host.client.write(ORDER_RESULTS, taken)

    def orders(self):
        """The orders that are published now, by place."""
        found = {}
        for place in ORDER_PLACES:
            text = self.host.read(f"{ORDERS}/{place}")
            if text:
                found[place] = verify_order(text, self.box.public_key())
        return found

    async def order(self):
        """The order, once one is published."""
        return (await until(self.orders, "an order")).popitem()

    def answer(self, place, order, *, ok=True, reason="done"):
        result = Result(ok=ok, seq=order.seq, id=order.id, reason=reason)
        self.host.client.write(f"{ORDER_RESULTS}/{place}", encode_result(result))


async def begin(host, box, taken=ALL):
    """A broker that enforces, a guest with a label, and an agent that takes orders."""
    await box.start()
    host.create(3)
    box.label(uuid_of(3), "web_a")
    await until(lambda: box.engine.judge.standing(3).label == "web_a")
    return Dom0(host, box, taken)


def ask(box, name, **arguments):
    """A call, as a Deferred."""
    kind = {
        "connect": methods.ChannelConnect,
        "disconnect": methods.ChannelDisconnect,
        "reset": methods.ChannelSelector,
    }[name]
    given = msgspec.convert(arguments, kind)
    handler = getattr(box.brokerd.admin, f"channel_{name}")
    return Deferred.fromCoroutine(handler(ROOT, given))


async def refused(box, name, code, **arguments):
    with pytest.raises(RpcError) as caught:
        await ask(box, name, **arguments)
    assert caught.value.code == code, caught.value
    return caught.value


@run
async def test_a_disk_of_a_resource_is_ordered_as_the_policy_has_it(host, box):
    dom0 = await begin(host, box)
    asked = ask(box, "connect", domain="d3", resource="lun_red", params="/dev/vg/red-7", mode="r")
    place, order = await dom0.order()
    assert order == Order(
        kind="connect",
        seq=order.seq,
        id=order.id,
        until=order.until,
        frontend=3,
        uuid=uuid_of(3),
        backend=0,
        device_class="vbd",
        device="51712",
        details={"params": "/dev/vg/red-7", "mode": "r"},
        reason="a test asked for it",
    )
    assert order.until > box.brokerd.heartbeat.published
    dom0.answer(place, order, reason="set up")
    done = await asked
    assert done == methods.ChannelOrdered(
        device_class="vbd",
        frontend=3,
        backend=0,
        device="51712",
        resource="lun_red",
        seq=order.seq,
        how="set up",
    )
    await until(lambda: not dom0.orders(), "the order to be taken back")
    (ordered,), (ended,) = box.lines("ordered"), box.lines("order_ended")
    assert (ordered["domid"], ordered["uuid"], ordered["kind"]) == (3, uuid_of(3), "connect")
    assert (ordered["subject"], ordered["role"]) == (ROOT.subject, ROOT.role)
    assert ordered["channel"] == "vbd/3/51712 -> 0"
    assert (ended["seq"], ended["ok"], ended["how"]) == (order.seq, True, "set up")


@run
async def test_a_vif_is_ordered_with_an_address_as_xl_draws_one(host, box):
    dom0 = await begin(host, box)
    host.vif(3, 0)
    host.vif(3, 1)
    domain = box.engine.mirror.domains[3]
    await until(lambda: len(domain.devices) == 2)
    asked = ask(box, "connect", **{"class": "vif"}, domain="3", bridge="xenbr0")
    place, order = await dom0.order()
    assert (order.device_class, order.device) == ("vif", "2")
    assert set(order.details) == {"bridge", "mac"}
    assert re.fullmatch("00:16:3e:[0-7][0-9a-f](:[0-9a-f]{2}){2}", order.details["mac"])
    dom0.answer(place, order)
    assert (await asked).resource is None


EXACT = POLICY.replace(
    "classes:\n",
    '  one: {ste: [storage_red], match: {class: vbd, params: "/dev/vg/one"}}\n'
    '  net: {ste: [red], match: {class: vif, bridge: "br0"}}\n'
    "  named: {ste: [red]}\n"
    "classes:\n",
)


@pytest.mark.parametrize(
    ("resource", "details"),
    [("one", {"params": "/dev/vg/one", "mode": "w"}), ("net", {"bridge": "br0"})],
)
@run
async def test_what_a_resource_says_alone_need_not_be_said(host, box, resource, details):
    dom0 = await begin(host, box)
    await box.load(EXACT.replace('version: "1.0"', 'version: "1.1"'), revoke=True)
    asked = ask(box, "connect", domain="3", resource=resource)
    place, order = await dom0.order()
    assert details.items() <= order.details.items()
    dom0.answer(place, order)
    assert (await asked).resource == resource


DENIED = {
    "a label without the disk's type": ({"label": "plain"}, "plain"),
    "no label": ({"label": None}, "unlabelled"),
    "a disk of no resource": ({"params": "/dev/vg/blue", "resource": None, "class": "vbd"}, ""),
}


@pytest.mark.parametrize("name", DENIED)
@run
async def test_what_the_policy_denies_is_refused_with_its_reasons_and_nothing_is_written(
    host, box, name
):
    dom0 = await begin(host, box)
    changes, word = DENIED[name]
    asked = {"domain": "4", "resource": "lun_red", "params": "/dev/vg/red-7", **changes}
    label = asked.pop("label", "web_a")
    host.create(4)
    if label is not None:
        box.label(uuid_of(4), label)
    await until(lambda: 4 in box.engine.judge.standings)
    asked = {key: value for key, value in asked.items() if value is not None}
    error = await refused(box, "connect", "denied", **asked)
    assert error.problems
    assert word in error.message
    assert "nothing was done" in error.message
    assert dom0.orders() == {}
    assert box.lines("ordered") == []
    assert box.lines("call_denied")


BAD = {
    "no such domain": ({"domain": "9"}, "not_found"),
    "no such backend": ({"backend": "9"}, "not_found"),
    "dom0": ({"domain": "0"}, "bad_input"),
    "no such resource": ({"resource": "lun_blue"}, "bad_input"),
    "another resource's disk": ({"params": "/dev/vg/blue-1"}, "bad_input"),
    "the resource of another class": ({"class": "vif"}, "bad_input"),
    "a disk that could be several": ({"params": None}, "bad_input"),
    "a disk on a bridge": ({"bridge": "xenbr0"}, "bad_input"),
    "neither class nor resource": ({"resource": None}, "bad_input"),
    "a class without a set-up": (
        {"resource": None, "class": "vkbd"},
        "bad_input",
    ),
    "a vif with a path": ({"resource": None, "class": "vif", "bridge": "b"}, "bad_input"),
    "a vif without a bridge": (
        {"resource": None, "params": None, "class": "vif"},
        "bad_input",
    ),
}


@pytest.mark.parametrize("name", BAD)
@run
async def test_what_cannot_be_is_not_ordered(host, box, name):
    dom0 = await begin(host, box)
    changes, code = BAD[name]
    asked = {"domain": "3", "resource": "lun_red", "params": "/dev/vg/red-7", **changes}
    await refused(box, "connect", code, **{k: v for k, v in asked.items() if v is not None})
    assert dom0.orders() == {}
    assert box.lines("ordered") == []


@pytest.mark.parametrize("force", [False, True])
@run
async def test_a_channel_is_disconnected(host, box, force):
    dom0 = await begin(host, box)
    channel = host.vif(3)
    await host.decided(channel, "pending")
    selected = {"class": "vif", "frontend": "d3", "device": "0"}
    asked = ask(box, "disconnect", **selected, force=force)
    place, order = await dom0.order()
    assert (order.kind, order.force, order.device) == ("disconnect", force, "0")
    assert (order.frontend, order.uuid, order.backend) == (3, uuid_of(3), 0)
    dom0.answer(place, order, reason="taken away")
    assert (await asked).how == "taken away"


@run
async def test_a_channel_is_reset(host, box):
    dom0 = await begin(host, box)
    await host.decided(host.vif(3), "pending")
    asked = ask(box, "reset", **{"class": "vif"}, frontend="3", device="0")
    place, order = await dom0.order()
    assert (order.kind, order.device_class, order.device) == ("reset", "vif", "0")
    dom0.answer(place, order)
    assert (await asked).frontend == 3


@run
async def test_only_a_channel_that_is_known_is_taken_away(host, box):
    dom0 = await begin(host, box)
    await refused(box, "disconnect", "not_found", **{"class": "vif"}, frontend="3", device="0")
    await refused(box, "reset", "not_found", **{"class": "vif"}, frontend="3", device="0")
    assert dom0.orders() == {}


# sanctions


@run
async def test_the_police_resets_and_destroys_without_anybody_asking(host, box):
    dom0 = await begin(host, box)
    channel = host.vif(3)
    await host.decided(channel, "pending")
    orders = box.brokerd.orders
    resetting = orders.reset(box.engine.mirror.device_of(channel))
    place, order = await dom0.order()
    assert (order.kind, order.reason) == ("reset", "broker asked for it")
    dom0.answer(place, order, ok=False, reason="no such thing")
    outcome = await resetting
    assert (outcome.ok, outcome.answered, outcome.how) == (False, True, "no such thing")
    await until(lambda: not dom0.orders())
    destroying = orders.destroy(3, uuid_of(3), "it broke vif.queues\x1b[2J")
    place, order = await dom0.order()
    assert (order.kind, order.frontend, order.uuid) == ("destroy", 3, uuid_of(3))
    assert order.reason == "it broke vif.queues\\x1b[2J"
    dom0.answer(place, order)
    assert (await destroying).ok
    assert [line["subject"] for line in box.lines("ordered")] == ["broker", "broker"]


@run
async def test_a_device_that_is_gone_is_not_reset(host, box):
    dom0 = await begin(host, box)
    channel = host.vif(3)
    await host.decided(channel, "pending")
    device = box.engine.mirror.device_of(channel)
    host.detach(channel)
    await until(lambda: device.gone)
    outcome = await box.brokerd.orders.reset(device)
    assert not outcome.ok
    assert dom0.orders() == {}


# what is not to be had


@run
async def test_numbers_grow_over_a_restart_and_a_snapshot(host, box, monkeypatch):
    dom0 = await begin(host, box)
    monkeypatch.setattr("broker.service.orders.time.time", lambda: 1e9)

    async def number():
        giving = box.brokerd.orders.destroy(3, uuid_of(3), "a test")
        place, order = await dom0.order()
        dom0.answer(place, order)
        await giving
        await until(lambda: not dom0.orders())
        return order.seq

    first = await number()
    second = await number()
    box.brokerd.audit._rotate()
    await box.stop()
    await box.start()
    third = await number()
    assert (first, second, third) == (10**12, 10**12 + 1, 10**12 + 2)


@pytest.mark.parametrize(
    ("taken", "words"), [(b"", "nobody takes orders"), (b"reset", "takes no orders to destroy")]
)
@run
async def test_who_takes_no_orders_is_given_none(host, box, taken, words):
    await begin(host, box, taken)
    outcome = await box.brokerd.orders.destroy(3, uuid_of(3), "a test")
    assert (outcome.ok, outcome.answered) == (False, False)
    assert words in outcome.how
    assert box.lines("ordered") == []


@run
async def test_an_order_nobody_answers_ends_and_is_taken_back(host, box):
    dom0 = await begin(host, box)
    orders = box.brokerd.orders
    orders._patience = 0.2
    outcome = await orders.destroy(3, uuid_of(3), "a test")
    assert (outcome.ok, outcome.answered) == (False, False)
    assert "no answer" in outcome.how
    await until(lambda: not dom0.orders())
    (ended,) = box.lines("order_ended")
    assert not ended["ok"]


@run
async def test_the_answer_to_another_order_is_none(host, box):
    dom0 = await begin(host, box)
    giving = box.brokerd.orders.destroy(3, uuid_of(3), "a test")
    place, order = await dom0.order()
    path = f"{ORDER_RESULTS}/{place}"
    other = msgspec.structs.replace(order, id=uuid_of(99))
    dom0.answer(place, other, ok=False)
    host.client.write(path, b"ok seq=1")
    host.client.write(path, b"")
    host.client.write(f"{ORDER_RESULTS}/77", b"ok")
    dom0.answer(place, order, reason="the right one")
    assert (await giving).how == "the right one"


@run
async def test_so_many_orders_and_no_more(host, box):
    dom0 = await begin(host, box)
    orders = box.brokerd.orders
    giving = [orders.destroy(3, uuid_of(3), "a test") for _ in ORDER_PLACES]
    await until(lambda: len(dom0.orders()) == len(ORDER_PLACES))
    outcome = await orders.destroy(3, uuid_of(3), "one more")
    assert not outcome.ok
    assert "under way" in outcome.how
    for place, order in dom0.orders().items():
        dom0.answer(place, order)
    for waiting in giving:
        assert (await waiting).ok


@run
async def test_without_an_audit_log_nothing_is_ordered(host, box, monkeypatch):
    dom0 = await begin(host, box)
    monkeypatch.setattr(box.brokerd.audit, "commit", lambda *_: False)
    outcome = await box.brokerd.orders.destroy(3, uuid_of(3), "a test")
    assert not outcome.ok
    assert "audit log" in outcome.how
    assert dom0.orders() == {}


@run
async def test_while_the_broker_does_not_enforce_nothing_is_ordered(host, box):
    dom0 = await begin(host, box)
    box.engine.phase = "reconciling"
    outcome = await box.brokerd.orders.destroy(3, uuid_of(3), "a test")
    box.engine.phase = "enforcing"
    assert not outcome.ok
    assert dom0.orders() == {}


@run
async def test_what_does_not_fit_into_an_order_is_not_ordered(host, box):
    await begin(host, box)
    details = {"params": "/" + "x" * 1900, "mode": "r"}
    outcome = await box.brokerd.orders.connect(
        Channel(0, "vbd", 3, "51712"), uuid_of(3), details, By()
    )
    assert not outcome.ok
    assert "exceeds" in outcome.how
    assert box.lines("ordered") == []
