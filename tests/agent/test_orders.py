"""dom0's agent carries the broker's orders out: once, in order, and no others."""

from __future__ import annotations

import pytest
import pytest_twisted
from bed import until
from orders_bed import CONNECT_VBD, CONNECT_VIF, DESTROY, DISK, GUEST, NIC, OrdersBed, order
from records import OTHER_KEY, UUID

from broker.agent.order_log import OrderLog
from broker.xenstore.devices import vbd, vif
from broker.xenstore.paths import ORDER_RESULTS

run = pytest_twisted.ensureDeferred
OTHER_UUID = UUID.replace("56b8", "0000")


@pytest_twisted.async_yield_fixture
async def bed(store_daemon, tmp_path):
    made = OrdersBed(store_daemon, tmp_path / "agent")
    yield made
    await made.stop()
    made.close()


@run
async def test_a_vif_is_connected_as_libxl_does_it(bed):
    bed.start()
    result = await bed.done(1, **CONNECT_VIF)
    assert (result.ok, result.reason) == (True, "set up")
    front, back, copy = bed.places("vif", 1)
    expected = vif(1, "00:16:3e:00:00:04", bridge="xpbr0")
    assert bed.values(back) == {
        "frontend": front.encode(),
        **{key: value.encode() for key, value in expected.backend_keys(GUEST).items()},
    }
    assert bed.values(copy) == {**bed.values(back), "backend": back.encode()}
    assert bed.values(front)["state"] == b"1"
    assert tuple(bed.store.get_perms(front)) == (f"n{GUEST}", "r0")
    assert tuple(bed.store.get_perms(back)) == ("n0", f"r{GUEST}")


@run
async def test_a_disk_is_connected_as_libxl_does_it(bed):
    bed.start()
    assert (await bed.done(1, **CONNECT_VBD)).ok
    front, back, _ = bed.places("vbd", 51728)
    expected = vbd(51728, "/dev/vg/red-2", mode="r").backend_keys(GUEST)
    assert bed.values(back) == {
        "frontend": front.encode(),
        **{key: value.encode() for key, value in expected.items()},
    }
    assert bed.values(front)["protocol"] == b"x86_64-abi"
    assert bed.values(back)["dev"] == b"xvdb"


@run
async def test_what_it_takes_is_told(bed):
    bed.start(kinds=["reset", "connect"])
    await until(lambda: bed.read(ORDER_RESULTS) == b"connect,reset")


@run
async def test_a_device_is_taken_away_when_its_backend_has_closed(bed):
    bed.start(patience=60)
    bed.give(order(1))
    back = bed.places("vif", 0)[1]
    await until(lambda: bed.read(f"{back}/state") == b"5")
    assert bed.read(f"{back}/online") == b"0"
    bed.store.write(f"{back}/state", "6")
    result = await bed.answered(1)
    assert (result.ok, result.reason) == (True, "taken away")
    assert bed.present("vif", 0) == [False] * 3
    assert bed.present("vbd", 51712) == [True] * 3


@run
async def test_a_guest_that_does_not_let_go_loses_its_device_all_the_same(bed):
    bed.start()
    result = await bed.done(1)
    assert result.ok
    assert "did not let go" in result.reason
    assert bed.present("vif", 0) == [False] * 3


@run
async def test_by_force_the_guest_is_not_asked(bed):
    bed.start(patience=60)
    result = await bed.done(1, force=True)
    assert (result.ok, result.reason) == (True, "taken away")
    assert bed.present("vif", 0) == [False] * 3


@pytest.mark.parametrize("device", [NIC, DISK], ids=["vif", "vbd"])
@run
async def test_a_reset_device_is_away_at_both_ends_and_back_as_it_was(bed, device):
    bed.start(pause=0.3)
    front, back, copy = bed.places(device.kind, device.devid)
    fresh = bed.values(back), bed.values(copy)
    for path in (front, back):
        bed.store.write(f"{path}/state", "4")
    bed.store.write(f"{back}/xpb-life", "0123")
    bed.store.write(f"{front}/ring-ref", "8")
    bed.give(order(1, kind="reset", device_class=device.kind, device=str(device.devid)))
    await until(lambda: not bed.exists(front))
    assert not bed.exists(back)
    assert bed.exists(copy)
    result = await bed.answered(1)
    assert (result.ok, result.reason) == (True, "taken away and set up again")
    assert (bed.values(back), bed.values(copy)) == fresh
    assert bed.values(front)["state"] == b"1"
    assert bed.read(f"{front}/ring-ref") is None
    assert tuple(bed.store.get_perms(front)) == (f"n{GUEST}", "r0")


@run
async def test_a_domain_is_destroyed_by_the_toolstack(bed):
    bed.start()
    assert (await bed.done(1, **DESTROY)).ok
    assert bed.destroyed == [(GUEST, "a test")]
    bed.destroys = False
    result = await bed.done(2, **DESTROY)
    assert not result.ok
    assert "xl destroy failed" in result.reason


# what is not carried out

REFUSED = {
    "another life of the domid": ({"uuid": OTHER_UUID}, "not (any more) the one"),
    "a domid that is free": ({"frontend": 9}, "not (any more) the one"),
    "a device that vanished": ({"device": "7"}, "there is no vif 7"),
    "another backend": ({"backend": 2}, "not in domain 2"),
    "a qdisk's reset": (
        {"kind": "reset", "device_class": "vkbd", "device": "0"},
        "there is no vkbd 0",
    ),
    "dom0": ({"frontend": 0}, "never touched"),
    "the broker": ({"frontend": 1, **DESTROY}, "never touched"),
    "another life's destruction": ({"uuid": OTHER_UUID, **DESTROY}, "not (any more) the one"),
    "too late": ({"until": 49}, "too late"),
    "a device that is there": ({**CONNECT_VIF, "device": "0"}, "already"),
    "a backend that does not run": ({**CONNECT_VIF, "backend": 8}, "does not run"),
    "the broker's backend": ({**CONNECT_VIF, "backend": 1}, "cannot be its backend"),
    "its own backend": ({**CONNECT_VIF, "backend": GUEST}, "cannot be its backend"),
    "a class without a set-up": ({**CONNECT_VIF, "device_class": "9pfs"}, "only vif and vbd"),
    "a disk of the host": (
        {**CONNECT_VBD, "details": {"params": "/dev/sda", "mode": "r"}},
        "no disk /dev/sda",
    ),
    "a climbing path": (
        {**CONNECT_VBD, "details": {"params": "/dev/vg/..", "mode": "r"}},
        "no disk",
    ),
    "a relative path": ({**CONNECT_VBD, "details": {"params": "vg", "mode": "r"}}, "no path"),
    "a third mode": (
        {**CONNECT_VBD, "details": {"params": "/dev/vg/a", "mode": "w!"}},
        "mode is r or w",
    ),
    "no mode": ({**CONNECT_VBD, "details": {"params": "/dev/vg/a"}}, "mode is r or w"),
    "a disk with a bridge": (
        {**CONNECT_VBD, "details": {"params": "/dev/vg/a", "mode": "r", "bridge": "x"}},
        "not made from bridge",
    ),
    "no bridge": ({**CONNECT_VIF, "details": {"mac": "00:16:3e:00:00:04"}}, "interface name"),
    "a group's mac": (
        {**CONNECT_VIF, "details": {"bridge": "b", "mac": "01:16:3e:00:00:04"}},
        "MAC",
    ),
    "no address": (
        {
            **CONNECT_VIF,
            "details": {"bridge": "b", "mac": "00:16:3e:00:00:04", "ip": "10.0.0.1 ;x"},
        },
        "does not appear",
    ),
    "no class": ({"device_class": "../x"}, "no device"),
    "a number beyond all": ({**CONNECT_VIF, "device": "4294967295"}, "no device has the number"),
}


@pytest.mark.parametrize("name", REFUSED)
@run
async def test_an_order_that_cannot_be_is_refused_with_its_reason(bed, name):
    changes, reason = REFUSED[name]
    bed.start()
    before = bed.values("/libxl/3/device/vif"), bed.values("/libxl/3/device/vbd")
    result = await bed.done(1, **changes)
    assert not result.ok
    assert reason in result.reason
    assert bed.destroyed == []
    assert bed.present("vif", 0) + bed.present("vbd", 51712) == [True] * 6
    assert (bed.values("/libxl/3/device/vif"), bed.values("/libxl/3/device/vbd")) == before


@run
async def test_a_backend_outside_the_kernel_is_not_reset(bed):
    bed.store.write("/libxl/3/device/vbd/51712/backend", "/local/domain/0/backend/qdisk/3/51712")
    bed.start()
    result = await bed.done(1, kind="reset", device_class="vbd", device="51712")
    assert not result.ok
    assert "only a vif or vbd with a backend in the kernel" in result.reason
    assert bed.exists("/local/domain/3/device/vbd/51712")


@pytest.mark.parametrize("kind", ["connect", "disconnect", "reset", "destroy"])
@run
async def test_a_host_takes_the_kinds_it_wants(bed, kind):
    changes = {"connect": CONNECT_VIF, "destroy": DESTROY}.get(kind, {"kind": kind})
    bed.start(kinds=[])
    result = await bed.done(1, **changes)
    assert not result.ok
    assert f"takes no orders to {kind}" in result.reason
    assert bed.present("vif", 0) == [True] * 3
    assert bed.destroyed == []


class _Bootstrap:
    uuid, device_class, devid = UUID, "vif", 0


@pytest.mark.parametrize(
    "changes", [{}, {"force": True}, {"kind": "reset"}, DESTROY], ids=lambda it: str(it)[:40]
)
@run
async def test_bootstrap_devices_are_never_touched(bed, changes):
    bed.start(bootstrap=[_Bootstrap])
    result = await bed.done(1, **changes)
    assert not result.ok
    assert "never touched" in result.reason
    assert bed.present("vif", 0) == [True] * 3
    assert bed.destroyed == []


@pytest.mark.parametrize(
    "text",
    [
        order(1, key=OTHER_KEY, force=True),
        order(1, force=True)[:-4] + b"AAAA",
        order(1, force=True).replace(b" seq=1 ", b" seq=2 "),
        order(1, force=True).replace(b"dev=0", b"dev=1"),
        b"disconnect",
        b"\xff" * 100,
    ],
    ids=["another key", "no signature", "another number", "another device", "short", "bytes"],
)
@run
async def test_what_the_broker_did_not_sign_does_nothing(bed, text):
    bed.start()
    bed.give(text)
    bed.give(order(5, device="7"), "1")
    await bed.answered(5, "1")
    assert bed.result() is None
    assert bed.present("vif", 0) == [True] * 3


@run
async def test_an_order_is_carried_out_once(bed):
    bed.start()
    text = order(1, force=True)
    bed.give(text)
    await bed.answered(1)
    bed.send(NIC)
    for place in ("0", "1", "7"):
        bed.give(b"", place)
        bed.give(text, place)
    bed.give(order(2, device="7"), "2")
    await bed.answered(2, "2")
    assert bed.present("vif", 0) == [True] * 3
    await bed.stop()
    bed.start()
    bed.give(order(3, device="7"), "2")
    await bed.answered(3, "2")
    assert bed.present("vif", 0) == [True] * 3


@run
async def test_an_older_order_is_not_taken_after_a_newer_one(bed):
    bed.start()
    await bed.done(9, device="7")
    bed.give(order(8, force=True), "1")
    bed.give(order(10, device="7"), "2")
    await bed.answered(10, "2")
    assert bed.result("1") is None
    assert bed.present("vif", 0) == [True] * 3


@run
async def test_orders_that_wait_together_are_taken_by_their_numbers(bed):
    bed.give(order(2, force=True), "0")
    bed.give(order(1, kind="reset"), "1")
    bed.give(order(3, **CONNECT_VIF), "2")
    bed.start()
    assert (await bed.answered(1, "1")).seq == 1
    assert (await bed.answered(3, "2")).ok
    assert (await bed.answered(2, "0")).seq == 2


@run
async def test_two_orders_about_one_device_do_not_meet(bed):
    bed.start(patience=60)
    bed.give(order(1), "0")
    back = bed.places("vif", 0)[1]
    await until(lambda: bed.read(f"{back}/state") == b"5")
    bed.give(order(2, kind="reset"), "1")
    result = await bed.answered(2, "1")
    assert not result.ok
    assert "under way" in result.reason
    bed.store.write(f"{back}/state", "6")
    assert (await bed.answered(1, "0")).ok


@run
async def test_without_a_heartbeat_nothing_is_done_until_there_is_one(bed):
    bed.beating_at = None
    bed.start()
    await until(lambda: bed.read(ORDER_RESULTS))
    bed.give(order(1, force=True))
    await until(lambda: bed.agent._timer is not None)
    assert bed.present("vif", 0) == [True] * 3
    bed.beating_at = 50
    assert (await bed.answered(1)).ok


# what an agent that ended left


@run
async def test_an_order_that_was_taken_and_may_have_been_done_is_not_done_again(bed):
    log = OrderLog(bed.directory)
    log.begin("0", 4, order(4, force=True))
    bed.give(order(4, force=True))
    bed.start()
    result = await bed.answered(4)
    assert not result.ok
    assert "interrupted" in result.reason
    assert bed.present("vif", 0) == [True] * 3
    await bed.stop()
    bed.store.write(f"{ORDER_RESULTS}/0", "")
    bed.start()
    assert not (await bed.answered(4)).ok
    assert bed.present("vif", 0) == [True] * 3


@run
async def test_a_reset_that_was_interrupted_is_gone_on_with(bed):
    bed.start(pause=60)
    bed.give(order(1, kind="reset"))
    await until(lambda: not bed.exists(bed.places("vif", 0)[0]))
    await bed.stop()
    assert bed.present("vif", 0) == [False, False, True]
    bed.start()
    result = await bed.answered(1)
    assert result.ok
    assert bed.present("vif", 0) == [True] * 3


@run
async def test_a_reset_that_was_not_begun_is_not_done_by_halves(bed):
    log = OrderLog(bed.directory)
    log.begin("0", 1, order(1, kind="reset"))
    bed.start()
    result = await bed.answered(1)
    assert not result.ok
    assert bed.present("vif", 0) == [True] * 3


@run
async def test_a_reset_is_not_gone_on_with_for_another_life(bed):
    bed.start(pause=60)
    bed.give(order(1, kind="reset"))
    await until(lambda: not bed.exists(bed.places("vif", 0)[0]))
    await bed.stop()
    bed.store.write(f"/local/domain/{GUEST}/vm", f"/vm/{OTHER_UUID}")
    bed.start()
    assert not (await bed.answered(1)).ok
    assert bed.present("vif", 0) == [False, False, True]


@run
async def test_what_cannot_be_noted_is_not_done(bed):
    bed.start()
    await until(lambda: bed.read(ORDER_RESULTS))
    (bed.directory / "orders.new").mkdir()
    result = await bed.done(1, force=True)
    assert not result.ok
    assert "cannot note" in result.reason
    assert bed.present("vif", 0) == [True] * 3
    (bed.directory / "orders.new").rmdir()
    assert (await bed.done(2, force=True)).ok


@run
async def test_who_does_not_know_what_was_done_does_nothing(bed):
    bed.directory.mkdir()
    (bed.directory / "orders.json").write_text('{"seq": 4')
    bed.give(order(5, force=True))
    agent = bed.start()
    assert agent._store.connection is None
    assert not agent._store.running
    assert bed.present("vif", 0) == [True] * 3
