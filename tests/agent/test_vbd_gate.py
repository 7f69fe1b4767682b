"""The vbd gate on real files and loop devices; a directory stands for /dev and for sysfs."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading

import pytest
import pytest_twisted
from nodes import Nodes
from twisted.internet import defer, reactor
from twisted.internet.task import Clock

from broker.agent.gates import loopdev
from broker.agent.gates.base import Device, GateError
from broker.agent.gates.blkback import Blkback
from broker.agent.gates.disk_path import open_disk
from broker.agent.gates.vbd import VbdGate
from broker.xenstore.paths import Channel

pytestmark = pytest.mark.root
SIZE = 1 << 20


class Bed:
    """A gate, its nodes, disk files, a made-up /dev and the sysfs of a blkback."""

    def __init__(self, tmp_path):
        self.nodes = Nodes()
        self.top = tmp_path
        self.sys, self.proc = tmp_path / "sys", tmp_path / "proc"
        self.dev = tmp_path / "dev"
        self.dev.mkdir()
        self.proc.mkdir()
        self.clock = reactor
        self.nonces = set()
        self.restart()

    def restart(self):
        self.blkback = Blkback(self.sys, self.proc)
        self.gate = VbdGate(self.nodes, self.blkback, self.clock, str(self.dev).encode())

    def disk(self, name="disk.img", fill=b"A"):
        path = self.top / name
        path.write_bytes(fill * SIZE)
        return path

    def device(self, params, devid="51712", fe=3, nonce=None, mode=b"w", **values):
        nonce = nonce or secrets.token_hex(16)
        self.nonces.add(nonce)
        params = params if isinstance(params, bytes) else str(params).encode()
        return Device(
            channel=Channel(0, "vbd", fe, devid),
            kind="vbd",
            values={"params": params, "mode": mode, "dev": b"xvda", **values},
            nonce=nonce,
        )

    def written(self):
        return dict(it.split("=", 1) for it in self.nodes.done if "=" in it)

    def serve(self, fe=3, devid="51712"):
        """The kernel's side: the device exists, bound, serving, with a thread."""
        path = self.sys / "bus/xen-backend/devices" / f"vbd-{fe}-{devid}"
        driver = self.sys / "bus/xen-backend/drivers/vbd"
        path.mkdir(parents=True)
        driver.mkdir(parents=True)
        (path / "driver").symlink_to(driver)
        (path / "physical_device").write_text("7:0\n")
        (driver / "unbind").touch()
        (driver / "bind").touch()
        thread = self.proc / "4711"
        thread.mkdir()
        (thread / "comm").write_text(f"{fe}.xvda-0\n")
        return path, driver, thread

    def clear(self):
        for loop in loopdev.tagged():
            if loop.tag in self.nonces:
                with contextlib.suppress(GateError):
                    loopdev.detach(loop)


@pytest.fixture
def bed(tmp_path):
    made = Bed(tmp_path)
    yield made
    made.clear()


@pytest_twisted.ensureDeferred
async def test_a_file_is_opened_through_a_loop_device_of_its_own(bed):
    vbd = bed.device(bed.disk())
    assert not bed.gate.observe(vbd).open
    await bed.gate.open(vbd)
    names = [it.split("=")[0] for it in bed.nodes.done]
    assert names == ["node", "physical-device-path", "physical-device", "hotplug-status"]
    written = bed.written()
    (loop,) = loopdev.tagged(vbd.nonce)
    assert written["node"] == written["physical-device-path"] == loop.path
    assert written["physical-device"] == f"7:{loop.number[1]:x}"
    assert not loop.read_only
    fd = os.open(loop.path, os.O_RDWR)
    os.pwrite(fd, b"B" * 512, 0)
    os.fsync(fd)
    os.close(fd)
    assert (bed.top / "disk.img").read_bytes()[:513] == b"B" * 512 + b"A"
    await bed.gate.revoke(vbd, final=False)
    assert loopdev.tagged(vbd.nonce) == []


@pytest_twisted.ensureDeferred
async def test_a_grant_to_read_never_opens_for_writing(bed):
    vbd = bed.device(bed.disk(), mode=b"r")
    await bed.gate.open(vbd)
    (loop,) = loopdev.tagged(vbd.nonce)
    assert loop.read_only
    with pytest.raises(OSError, match=r"Read-only|not permitted|denied"):
        os.pwrite(os.open(loop.path, os.O_RDWR), b"x" * 512, 0)


@pytest.mark.parametrize("mode", [b"", b"rw", b"R", b"ro", b"w!!", b"\xff"])
@pytest_twisted.ensureDeferred
async def test_a_mode_that_is_none_opens_nothing(bed, mode):
    vbd = bed.device(bed.disk(), mode=mode)
    with pytest.raises(GateError, match="mode"):
        await bed.gate.open(vbd)
    assert bed.nodes.done == []


@pytest_twisted.ensureDeferred
async def test_a_block_device_is_handed_over_by_number(bed):
    os.mknod(bed.dev / "sda", 0o660 | 0o060000, os.makedev(*ram_or_loop(bed)))
    (bed.dev / "disk").mkdir()
    (bed.dev / "disk" / "by-id").symlink_to("../disk/ids")
    (bed.dev / "disk" / "ids").mkdir()
    (bed.dev / "disk" / "ids" / "wwn").symlink_to("../../sda")
    vbd = bed.device(bed.dev / "disk" / "by-id" / "wwn", mode=b"r")
    await bed.gate.open(vbd)
    major, minor = ram_or_loop(bed)
    assert bed.written()["physical-device"] == f"{major:x}:{minor:x}"
    assert "node" not in bed.written()


def ram_or_loop(bed):
    """The number of a block device that is really there: a loop on a file."""
    if not hasattr(bed, "real"):
        nonce = secrets.token_hex(16)
        bed.nonces.add(nonce)
        fd = os.open(bed.disk("real.img"), os.O_RDWR)
        bed.real = loopdev.attach(fd, nonce, writable=True)
        os.close(fd)
    return bed.real.number


@pytest.mark.parametrize(
    "link",
    ["../../etc/passwd", "/etc/passwd", "../outside", "loop", "sub/../../outside", "plain"],
)
@pytest_twisted.ensureDeferred
async def test_a_link_under_dev_that_leads_astray_opens_nothing(bed, link):
    bed.disk("outside")
    (bed.dev / "plain").write_bytes(b"no device")
    (bed.dev / "sub").mkdir()
    (bed.dev / "loop").symlink_to("loop2")
    (bed.dev / "loop2").symlink_to("loop")
    (bed.dev / "sda").symlink_to(link)
    with pytest.raises(GateError, match="disk"):
        await bed.gate.open(bed.device(bed.dev / "sda"))
    assert bed.nodes.done == []


@pytest.mark.parametrize(
    "params",
    [
        b"",
        b"disk.img",
        b"%s/../%s/disk.img",
        b"%s/./disk.img",
        b"%s//disk.img",
        b"%s/disk.img\0.txt",
        b"%s/none.img",
        b"%s/link.img",
        b"%s/dirlink/disk.img",
        b"%s/sub",
        b"%s/fifo",
        b"%s/disk.img/",
        b"/" + b"a" * 4096,
        b"/" + b"a/" * 2000 + b"a",
        b"phy:/dev/sda",
        b"\xff\xfe",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_path_that_is_not_plain_opens_nothing(bed, params):
    bed.disk()
    (bed.top / "link.img").symlink_to("disk.img")
    (bed.top / "sub").mkdir()
    (bed.top / "sub" / "disk.img").touch()
    (bed.top / "dirlink").symlink_to("sub")
    os.mkfifo(bed.top / "fifo")
    params = params.replace(b"%s", str(bed.top).encode())
    with pytest.raises(GateError, match="disk"):
        await bed.gate.open(bed.device(params))
    assert bed.nodes.done == []


def test_a_block_device_outside_of_dev_is_refused(bed):
    os.mknod(bed.top / "sda", 0o660 | 0o060000, os.makedev(*ram_or_loop(bed)))
    with pytest.raises(GateError, match="outside of /dev"):
        open_disk(str(bed.top / "sda").encode(), writable=False)


def test_a_file_in_a_directory_whose_name_begins_like_dev_is_a_file(bed):
    place = bed.top / "devices"
    place.mkdir()
    path = bed.disk("devices/disk.img")
    with open_disk(str(path).encode(), writable=False, dev=str(bed.dev).encode()) as disk:
        assert disk.device is None


def test_links_swapped_while_it_is_opened_never_lead_elsewhere(bed):
    """A racer swaps the file and its directory for links to a secret, all the time."""
    secret = bed.top / "secret"
    secret.mkdir()
    (secret / "disk.img").write_bytes(b"S" * 512)
    real = bed.top / "real"
    real.mkdir()
    (real / "disk.img").write_bytes(b"G" * 512)
    place = bed.top / "place"
    stop = threading.Event()

    def swap():
        for number in iter(int, 1):
            if stop.is_set():
                return
            fresh = bed.top / f"fresh{number % 2}"
            with contextlib.suppress(FileExistsError):
                fresh.symlink_to(secret)
            os.replace(fresh, place)  # noqa: PTH105 - the racer is meant to be quick
            place.unlink()
            os.rename(real, place)  # noqa: PTH104
            with contextlib.suppress(OSError):
                (place / "disk.img").rename(place / "kept")
                (place / "disk.img").symlink_to(secret / "disk.img")
                (place / "disk.img").unlink()
                (place / "kept").rename(place / "disk.img")
            os.rename(place, real)  # noqa: PTH104

    racer = threading.Thread(target=swap)
    racer.start()
    opened = refused = 0
    try:
        while opened < 20 and refused < 20_000:
            try:
                with open_disk(str(place / "disk.img").encode(), writable=False) as disk:
                    assert os.read(disk.fd, 1) == b"G"
                    opened += 1
            except GateError:
                refused += 1
    finally:
        stop.set()
        racer.join()
    assert opened


@pytest_twisted.ensureDeferred
async def test_the_object_opened_is_the_object_used_though_the_path_moves_on(bed):
    path = bed.disk(fill=b"A")
    other = bed.disk("other.img", fill=b"Z")
    vbd = bed.device(path)
    real_write = bed.nodes.write

    async def write(device, items):
        other.rename(path)
        await real_write(device, items)

    bed.nodes.write = write
    await bed.gate.open(vbd)
    (loop,) = loopdev.tagged(vbd.nonce)
    with open(loop.path, "rb") as file:  # noqa: PTH123, ASYNC230
        assert file.read(1) == b"A"


@pytest_twisted.ensureDeferred
async def test_a_life_that_is_over_leaves_no_loop_behind(bed):
    bed.nodes.over = True
    vbd = bed.device(bed.disk())
    with pytest.raises(GateError, match="gone"):
        await bed.gate.open(vbd)
    assert loopdev.tagged(vbd.nonce) == []


@pytest_twisted.ensureDeferred
async def test_a_repeated_open_uses_the_loop_it_had_made(bed):
    vbd = bed.device(bed.disk())
    await bed.gate.open(vbd)
    await bed.gate.open(vbd)
    assert len(loopdev.tagged(vbd.nonce)) == 1


@pytest_twisted.ensureDeferred
async def test_what_a_crash_left_behind_is_swept(bed):
    kept, lost = bed.device(bed.disk("a.img")), bed.device(bed.disk("b.img"))
    await bed.gate.open(kept)
    await bed.gate.open(lost)
    others = {loop.tag for loop in loopdev.tagged()} - {lost.nonce}
    bed.gate.sweep(others)
    assert loopdev.tagged(lost.nonce) == []
    assert loopdev.tagged(kept.nonce)


@pytest.mark.parametrize(
    ("first", "second", "fine"),
    [
        (b"w", b"w", False),
        (b"w", b"r", False),
        (b"r", b"w", False),
        (b"r", b"r", True),
        (b"w!", b"w!", True),
        (b"w!", b"w", False),
    ],
)
@pytest.mark.parametrize("restart", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_disk_that_one_guest_writes_is_nobody_elses(bed, first, second, fine, restart):
    path = bed.disk()
    one = bed.device(path, mode=first)
    await bed.gate.open(one)
    if restart:
        bed.restart()
        found = {key: value.encode() for key, value in bed.written().items()}
        bed.gate.observe(bed.device(path, mode=first, nonce=one.nonce, **found))
    two = bed.device(path, fe=4, mode=second)
    if fine:
        await bed.gate.open(two)
    else:
        with pytest.raises(GateError, match=r"in use by vbd/3/51712 -> 0"):
            await bed.gate.open(two)
        assert loopdev.tagged(two.nonce) == []


@pytest_twisted.ensureDeferred
async def test_of_two_that_are_opened_at_once_one_gets_the_disk_also_when_the_first_fails(
    bed, monkeypatch
):
    path = bed.disk()
    one, two = bed.device(path), bed.device(path, fe=4)
    answer = defer.Deferred()
    monkeypatch.setattr(bed.nodes, "write", lambda *_: answer)
    opening = defer.Deferred.fromCoroutine(bed.gate.open(one))
    with pytest.raises(GateError, match=r"in use by vbd/3/51712 -> 0"):
        await bed.gate.open(two)
    answer.errback(GateError("the device is gone"))
    with pytest.raises(GateError, match="gone"):
        await opening
    monkeypatch.undo()
    await bed.gate.open(two)


@pytest_twisted.ensureDeferred
async def test_a_disk_is_free_again_once_revoked(bed):
    path = bed.disk()
    one = bed.device(path)
    await bed.gate.open(one)
    await bed.gate.revoke(one, final=False)
    await bed.gate.open(bed.device(path, fe=4))


@pytest_twisted.ensureDeferred
async def test_revoking_removes_the_nodes_then_the_driver_then_the_loop(bed):
    vbd = bed.device(bed.disk())
    await bed.gate.open(vbd)
    path, driver, thread = bed.serve()
    bed.nodes.done.clear()
    revoking = defer.ensureDeferred(bed.gate.revoke(vbd, final=True))
    assert (driver / "unbind").read_text() == "vbd-3-51712"
    assert "-physical-device" in bed.nodes.done
    assert "-" not in bed.nodes.done
    assert loopdev.tagged(vbd.nonce)
    (thread / "comm").unlink()
    (path / "driver").unlink()
    await revoking
    assert loopdev.tagged(vbd.nonce) == []
    assert bed.nodes.done[-1] == "-"


@pytest.mark.parametrize("left", ["driver", "thread"])
@pytest_twisted.ensureDeferred
async def test_a_close_that_the_kernel_does_not_confirm_has_failed(bed, left):
    bed.clock = Clock()
    bed.restart()
    vbd = bed.device(bed.disk())
    await bed.gate.open(vbd)
    path, _, thread = bed.serve()
    if left == "driver":
        (thread / "comm").unlink()
    else:
        (path / "driver").unlink()
    failing = defer.ensureDeferred(bed.gate.revoke(vbd, final=True))
    bed.clock.pump([0.05] * 120)
    with pytest.raises(GateError, match="not closed after 5 s"):
        await failing
    assert "-" not in bed.nodes.done


@pytest_twisted.ensureDeferred
async def test_a_loop_still_in_use_is_not_taken_for_detached(bed):
    vbd = bed.device(bed.disk())
    await bed.gate.open(vbd)
    (loop,) = loopdev.tagged(vbd.nonce)
    user = os.open(loop.path, os.O_RDONLY)
    with pytest.raises(GateError, match="still in use"):
        await bed.gate.revoke(vbd, final=False)
    os.close(user)
    await bed.gate.revoke(vbd, final=False)


@pytest_twisted.ensureDeferred
async def test_granted_again_after_a_revocation_it_is_bound_before_the_disk_is_named(bed):
    path, driver, _ = bed.serve()
    (path / "driver").unlink()
    vbd = bed.device(bed.disk())
    order = []
    real_write = bed.nodes.write

    async def write(device, items):
        order.append((driver / "bind").read_text())
        await real_write(device, items)

    bed.nodes.write = write
    await bed.gate.open(vbd)
    assert order == ["vbd-3-51712"]


def test_a_disk_served_without_its_node_counts_as_open(bed):
    vbd = bed.device(bed.disk())
    path, _, _ = bed.serve()
    assert bed.gate.observe(vbd).open
    (path / "physical_device").unlink()
    assert not bed.gate.observe(vbd).open
