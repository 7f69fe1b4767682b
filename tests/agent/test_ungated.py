"""What no gate closes: reported as it is, and destroyed on a denial of its own life only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytest_twisted
from bed import Bed, start_agent, until
from records import OTHER_KEY, OTHER_NONCE, UUID
from twisted.internet import defer, reactor

from broker.agent.config import BootstrapDevice
from broker.agent.destroy import Destroyer
from broker.agent.lives import MARKER
from broker.agent.ungated import HARMLESS, Refusals, unclosed
from broker.core.record import inputs_digest

QDISK = "vbd/51712"
BACKEND = "/local/domain/0/backend/qdisk/3/51712"
KINDS = ("qdisk", "pci", "9pfs", "pvcalls", "vscsi", "vusb", "qusb", "vtpm", "virtio_disk", "new")


class Host(Bed):
    """A toolstack with backends of any kind, and an `xl` that notes its arguments."""

    def __init__(self, daemon, directory):
        super().__init__(daemon)
        self.noted = directory / "noted"
        self.xl = directory / "xl"
        self.exits(0)

    def exits(self, status):
        """What `xl` ends with from now on."""
        fresh = self.xl.with_suffix(".new")
        fresh.write_text(f'#!/bin/sh\necho "$@" >> {self.noted}\nexit {status}\n')
        fresh.chmod(0o755)
        fresh.rename(self.xl)

    def destroyed(self):
        return self.noted.read_text().splitlines() if self.noted.exists() else []

    def serve(self, kind="qdisk", slot=QDISK, *, fe=3, uuid=UUID, **values):
        """A device whose backend is of another kind than its frontend."""
        device_class, devid = slot.split("/")
        frontend = f"/local/domain/{fe}/device/{device_class}/{devid}"
        backend = f"/local/domain/0/backend/{kind}/{fe}/{devid}"
        trusted = f"/libxl/{fe}/device/{device_class}/{devid}"
        nodes = {"frontend": frontend, "frontend-id": str(fe), "online": "1", "state": "1"}
        nodes |= {"params": "aio:/srv/disk.qcow2", "mode": "w", "type": "qdisk"} | values
        tx = self.store.start()
        self.store.write(f"/local/domain/{fe}/vm", f"/vm/{uuid}", tx=tx)
        for top, own in ((trusted, {"backend": backend}), (backend, {})):
            for key, value in {**nodes, **own}.items():
                self.store.write(f"{top}/{key}", value, tx=tx)
        self.store.end(tx)
        return backend

    def decide(self, slot, verdict="grant", fe=3, be=0, **changes):
        """As in a bed; what a qdisk's is decided on is in its own directory."""
        values = self.values(f"/local/domain/{be}/backend/qdisk/{fe}/{slot.partition('/')[2]}")
        if values:
            changes = {"inputs": inputs_digest(values), **changes}
        return super().decide(slot, verdict, fe, be, **changes)

    def why(self, slot=QDISK, fe=3):
        return self.report(slot, "enforced", fe) or b""


@pytest_twisted.async_yield_fixture
async def host(store_daemon, tmp_path):
    made = Host(store_daemon, tmp_path)
    made.start_beating()
    yield made
    made.close()


def start(host, tmp_path, **options):
    destroyer = Destroyer(reactor, {0, 1}, str(host.xl))
    options = {"ungated": destroyer.destroy, **options}
    return start_agent(host.daemon.address, tmp_path / "state", **options)


@pytest_twisted.async_yield_fixture
async def agent(host, tmp_path):
    running = start(host, tmp_path)
    yield running
    await running.stop()


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_a_denial_of_what_no_gate_closes_destroys_the_domain_once(host, agent, kind):
    slot = QDISK if kind == "qdisk" else f"{kind}/0"
    host.serve(kind, slot)
    await host.nonce(slot)
    await host.comes_to(slot, "open")
    assert f"no%20gate%20for%20{kind}".encode() in host.why(slot)
    host.decide(slot, "deny", reason="no shared type")
    await until(host.destroyed)
    await host.comes_to(slot, "failed")
    host.decide(slot, "deny", reason="still none")
    await host.fence()
    assert host.destroyed() == ["destroy 3"]


@pytest_twisted.ensureDeferred
async def test_granted_it_is_left_alone_and_denied_later_destroyed(host, agent):
    host.serve()
    nonce = await host.nonce(QDISK)
    host.decide(QDISK)
    await until(lambda: host.why() == b"open seq=0 nonce=" + nonce + b" reason=granted")
    host.decide(QDISK, "pending", reason="relabelling")
    await host.fence()
    assert host.destroyed() == []
    host.decide(QDISK, "deny")
    await until(host.destroyed)


@pytest_twisted.ensureDeferred
async def test_nothing_but_a_denial_of_its_own_life_destroys(host, agent):
    host.serve()
    await host.nonce(QDISK)
    for text in (
        b"",
        b"deny",
        host.decide(QDISK, "pending", reason="no policy"),
        host.decide(QDISK, "deny", key=OTHER_KEY),
        host.decide(QDISK, "deny", frontend=4),
        host.decide(QDISK, "deny", nonce=None),
        host.decide(QDISK, "deny", nonce=OTHER_NONCE, reason="final: gone"),
        b"",
    ):
        host.publish(QDISK, text)
        await host.fence()
    assert host.destroyed() == []
    assert host.values(BACKEND)
    assert host.enforced(QDISK) == "open"


@pytest_twisted.ensureDeferred
async def test_a_stopped_broker_or_a_restarted_agent_destroys_nothing(host, tmp_path):
    host.stop_beating()
    host.serve()
    agent = start(host, tmp_path)
    await host.comes_to(QDISK, "open")
    nonce = host.report(QDISK, "nonce")
    await agent.stop()
    agent = start(host, tmp_path)
    await host.fence()
    assert (host.report(QDISK, "nonce"), host.destroyed()) == (nonce, [])
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_denial_made_while_the_agent_was_away_is_carried_out(host, tmp_path):
    agent = start(host, tmp_path)
    host.serve()
    await host.nonce(QDISK)
    await agent.stop()
    host.decide(QDISK, "deny")
    agent = start(host, tmp_path)
    await until(host.destroyed)
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_denied_and_then_granted_before_it_could_be_destroyed_it_lives(host, agent):
    host.exits(1)
    host.serve()
    await host.nonce(QDISK)
    host.decide(QDISK, "deny")
    await until(host.destroyed)
    host.decide(QDISK)
    await until(lambda: b"reason=granted" in host.why())
    await host.fence()
    count = len(host.destroyed())
    host.decide(QDISK, "pending")
    await host.fence()
    assert len(host.destroyed()) == count


@pytest_twisted.ensureDeferred
async def test_a_destruction_that_failed_is_tried_again_until_it_is_done(host, agent):
    host.exits(1)
    host.serve()
    await host.nonce(QDISK)
    host.decide(QDISK, "deny")
    await until(lambda: len(host.destroyed()) >= 2)
    host.exits(0)
    count = len(host.destroyed())
    await until(lambda: len(host.destroyed()) > count)
    await host.fence()
    count = len(host.destroyed())
    host.decide(QDISK, "deny", reason="again")
    await host.fence()
    assert len(host.destroyed()) == count


@pytest_twisted.ensureDeferred
async def test_domain_0_and_who_is_spared_are_never_destroyed(host, agent):
    for fe in (0, 1):
        host.serve(fe=fe)
        await host.nonce(QDISK, fe=fe)
        host.decide(QDISK, "deny", fe=fe)
        await host.comes_to(QDISK, "failed", fe=fe)
    await host.fence()
    assert host.destroyed() == []


@pytest_twisted.ensureDeferred
async def test_a_bootstrap_devices_domain_is_never_destroyed(host, tmp_path):
    listed = BootstrapDevice(uuid=UUID, device_class="vbd", devid=51712, params="/srv/broker.img")
    agent = start(host, tmp_path, bootstrap=[listed])
    host.serve("qdisk", QDISK, params="/srv/broker.img")
    host.serve("pci", "pci/0")
    for slot in (QDISK, "pci/0"):
        await host.nonce(slot)
        host.decide(slot, "deny")
    await host.comes_to("pci/0", "failed")
    await until(lambda: b"bootstrap%20device" in host.why())
    assert host.enforced(QDISK) == "open"
    host.serve("pci", "pci/0", fe=4, uuid=UUID.replace("5", "6"))
    await host.nonce("pci/0", fe=4)
    host.decide("pci/0", "deny", fe=4)
    await until(host.destroyed)
    assert host.destroyed() == ["destroy 4"]
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_bootstrap_device_that_is_denied_destroys_nobody_in_strict_mode(host, tmp_path):
    listed = BootstrapDevice(uuid=UUID, device_class="vbd", devid=51712, params="/srv/disk.img")
    told = []
    agent = start(host, tmp_path, bootstrap=[listed], refused=lambda *it: told.append(it) or True)
    host.attach(QDISK)
    await host.nonce(QDISK)
    host.decide(QDISK, "deny")
    await host.comes_to(QDISK, "open")
    host.attach("vif/0")
    await host.nonce("vif/0")
    host.decide("vif/0", "deny", reason="ste")
    await until(lambda: b"ste" in host.why("vif/0"))
    assert told == []
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_reported_only_it_is_shown_as_failed(host, tmp_path):
    agent = start(host, tmp_path, ungated=None)
    host.serve()
    await host.nonce(QDISK)
    host.decide(QDISK, "deny", reason="ste")
    await host.comes_to(QDISK, "failed")
    assert b"reason=no%20gate%20for%20qdisk:%20ste" in host.why()
    await agent.stop()
    assert host.destroyed() == []


@pytest_twisted.ensureDeferred
async def test_another_life_of_it_needs_an_answer_of_its_own(host, agent):
    host.serve()
    first = await host.nonce(QDISK)
    host.decide(QDISK, "deny")
    await until(host.destroyed)
    host.store.rm(BACKEND)
    host.serve(params="aio:/srv/other.qcow2")
    await host.nonce(QDISK, other_than=first)
    await host.comes_to(QDISK, "open")
    await host.fence()
    assert host.destroyed() == ["destroy 3"]
    host.decide(QDISK)
    await until(lambda: b"reason=granted" in host.why(), host.why)


@pytest.mark.parametrize("kind", sorted(HARMLESS))
@pytest_twisted.ensureDeferred
async def test_what_leads_to_no_other_domain_is_not_touched(host, agent, kind):
    backend = host.serve(kind, f"{kind}/0")
    await host.fence()
    assert MARKER not in host.values(backend)
    assert host.report(f"{kind}/0", "nonce") is None


@pytest_twisted.ensureDeferred
async def test_a_leftover_of_another_backend_reports_nothing_in_its_name(host, agent):
    """The toolstack says qdisk: a vbd directory for the same disk is not what is decided on."""
    host.attach(QDISK, libxl=False)
    first = await host.nonce(QDISK)
    host.serve()
    nonce = await host.nonce(QDISK, other_than=first)
    assert host.read(f"{BACKEND}/{MARKER}") == nonce
    host.attach(QDISK, libxl=False)
    await until(lambda: host.marker(QDISK))
    await host.fence()
    assert host.report(QDISK, "nonce") == nonce
    host.decide(QDISK, "deny")
    await until(host.destroyed)


@pytest.mark.parametrize(
    ("slot", "kind", "dies"),
    [
        ("vbd/51712", "hvm phy", True),
        ("vbd/768", "hvm phy", True),
        ("vbd/51792", "hvm phy", True),
        ("vbd/51808", "hvm phy", False),
        ("vbd/51712", "pvh phy", False),
        ("vif/0", "hvm vif_ioemu", True),
        ("vif/0", "hvm vif", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_emulated_twin_makes_a_denial_final(host, agent, slot, kind, dies):
    guest, device = kind.split(" ")
    host.store.write("/libxl/3/type", guest)
    host.attach(slot, type=device)
    await host.nonce(slot)
    host.decide(slot, "deny", reason="ste")
    await host.comes_to(slot, "failed" if dies else "closed")
    await until(lambda: b"ste" in host.why(slot))
    assert not host.gate(slot)
    if dies:
        await until(host.destroyed)
        assert b"emulated" in host.why(slot)
    await host.fence()
    assert host.destroyed() == (["destroy 3"] if dies else [])


def test_the_disks_that_a_device_model_may_serve_are_those_of_the_numbering():
    hd, sd, xvda, xvdf, xvdg, extended = 768, 2048, 51712, 51712 + 80, 51712 + 96, 1 << 28
    emulated = [it for it in (hd, sd, xvda, xvdf, xvdg, extended) if _emulated(it)]
    assert emulated == [hd, sd, xvda, xvdf]


def _emulated(number):
    return bool(unclosed("vbd", str(number), {}, hvm=True))


def test_a_domain_whose_uuid_cannot_be_read_is_not_destroyed_while_some_are_spared():
    told = []
    refusals = Refusals(None, lambda *it: told.append(it) or True, {UUID})
    assert refusals.tell("n", 3, None, "denied", "no gate")
    assert told == []
    assert not refusals.tell("n", 3, UUID.replace("5", "6"), "denied", "no gate")
    assert told == [(3, "no gate: denied")]


def test_what_a_gate_closes_destroys_nobody_but_in_strict_mode():
    told = []

    def destroy(*it):
        told.append(it)
        return True

    assert not Refusals(None, destroy, ()).tell("n", 3, UUID, "denied", "")
    assert told == []
    Refusals(destroy, None, ()).tell("n", 3, UUID, "denied", "")
    assert told == [(3, "denied")]


def test_a_destruction_is_told_once_while_it_is_under_way_and_again_if_it_fails():
    endings = []

    def destroy(_domid, _reason):
        endings.append(defer.Deferred())
        return endings[-1]

    refusals = Refusals(None, destroy, ())
    for _ in range(2):
        assert refusals.tell("n", 3, UUID, "denied", "no gate")
    assert len(endings) == 1
    endings[0].errback(OSError("no such file"))
    assert refusals.tell("n", 3, UUID, "denied", "no gate")
    assert len(endings) == 2
    endings[1].callback(True)
    assert not refusals.tell("n", 3, UUID, "denied", "no gate")
    refusals.forget("n")
    assert refusals.tell("n", 3, UUID, "denied", "no gate")


@pytest_twisted.ensureDeferred
async def test_a_toolstack_that_cannot_be_run_is_a_failure():
    destroyer = Destroyer(reactor, {0}, str(Path(sys.executable) / "none"))
    assert not await destroyer.destroy(3, "denied")
    assert await destroyer.destroy(0, "denied")
