"""Bad days of the disk: the audit log full, state lost, corrupt or rolled back."""

from __future__ import annotations

import shutil
import signal
import subprocess

import pytest
import pytest_twisted
from support.product import Product, mac, until
from support.xenstoreds import KINDS, start_store

from broker.rpc.errors import RpcError
from broker.sim.toolstack import vbd, vif
from broker.xenstore import paths

run = pytest_twisted.ensureDeferred
RED = "/dev/vg/red-1"
STORES = [pytest.param(kind, marks=[pytest.mark.xenstored, pytest.mark.root]) for kind in KINDS]


def command(*words):
    subprocess.run(words, check=True)


@pytest_twisted.async_yield_fixture(scope="module", params=STORES)
async def running(request):
    """As elsewhere, but the broker's state is on a file system of 256 KiB."""
    daemon = start_store(request.param)
    product = Product(daemon)
    product.state.mkdir()
    command("mount", "-t", "tmpfs", "-o", "size=256k", "xps", product.state)
    try:
        await product.start()
        await product.settle_witness()
        yield product
    finally:
        product.end_all()
        command("umount", product.state)
        product.close()
        daemon.stop()


def fill(product):
    """Use up the file system; the file that does."""
    filler = product.state / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def fill_last_page(product):
    """The audit log's last page has room for some lines yet: use it up."""
    for number in range(200):
        try:
            product.label_name(f"x{number}", "red")
        except RpcError:
            return
    raise AssertionError("a full disk takes label after label")


@run
async def test_with_the_audit_disk_full_nothing_is_granted_nothing_closes_and_all_recovers(product):
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, RED), label="red")
    for device in domain.devices:
        await product.comes_to(domain, device, "grant")
    later = await product.create(label="red")
    filler = fill(product)
    published = product.text(domain, domain.devices[0])
    nics = []
    try:
        fill_last_page(product)
        for devid in range(40):  # the last page of the log may still have room for some
            nics.append(await product.attach(later, vif(devid, mac(2, devid))))
            await product.agent_saw()
            if "cannot be written" in product.log("brokerd"):
                break
        await until(lambda: product.status().health == "red", "red health")
        assert not product.status().enforcing
        with pytest.raises(RpcError, match="cannot be written"):
            product.label(domain, "jailed")
        with pytest.raises(RpcError, match="cannot be written"):
            product.label(domain, "blue")
        late = await product.attach(later, vbd(51712, RED))
        await product.agent_saw()
        assert not product.text(later, late)
        assert not product.is_open(later, late)
        beat = product.read(paths.HEARTBEAT)
        code, text = product.ctl("status")
        assert code == 1
        assert "audit log cannot be written" in " ".join(text.split())
        assert product.text(domain, domain.devices[0]) == published
        for device in domain.devices:
            assert product.is_open(domain, device)
        product.check()
    finally:
        filler.unlink()
    for device in [*nics, late]:
        await product.comes_to(later, device, "grant")
    assert product.read(paths.HEARTBEAT) != beat
    assert product.status().enforcing
    product.label(domain, "jailed")
    await product.comes_to(domain, domain.devices[0], "deny")


@run
async def test_a_broker_killed_on_a_full_disk_says_so_and_opens_nothing(product):
    domain = await product.create(vif(0, mac(1, 0)), label="red")
    nic = domain.devices[0]
    await product.comes_to(domain, nic, "grant")
    product.kill("brokerd")
    filler, said = fill(product), len(product.log("brokerd"))
    try:
        # The log's last page may have room for the first lines, or not.
        product.spawn("brokerd")
        for devid in range(1, 5):
            await product.attach(domain, vif(devid, mac(1, devid)))
            await product.agent_saw()
        await until(lambda: "audit.jsonl" in product.log("brokerd")[said:], "the reason logged")
        product.end("brokerd")
        assert product.is_open(domain, nic)
    finally:
        filler.unlink()
    await product.restart("brokerd")
    await product.comes_to(domain, nic, "grant")


@run
@pytest.mark.parametrize("lost", ["audit.jsonl", "broker.key", "all", "corrupt", "policy"])
async def test_a_state_that_is_lost_or_corrupt_is_refused_and_every_gate_stays(product, lost):
    domain = await product.create(vif(0, mac(1, 0)), label="red")
    nic = domain.devices[0]
    before = await product.comes_to(domain, nic, "grant")
    assert product.terminate("brokerd") == 0
    saved = product.directory / "saved"
    shutil.copytree(product.state, saved)
    late = await product.attach(domain, vbd(51712, RED))
    try:
        if lost == "corrupt":
            with (product.state / "audit.jsonl").open("r+b") as file:
                file.seek(200)
                file.write(b"\x1b[2J\xff")
        else:
            pattern = {"all": "*", "policy": "policy-*"}.get(lost, lost)
            for path in product.state.glob(pattern):
                path.unlink()
        product.spawn("brokerd")
        assert await product.ended("brokerd") == 1
        last = product.log("brokerd").splitlines()[-1]
        assert "refused to start" in last
        assert str(product.state) in last
        await product.agent_saw()
        assert product.record(domain, nic) == before
        assert product.is_open(domain, nic)
        assert not product.is_open(domain, late)
    finally:
        for path in saved.iterdir():
            shutil.copy2(path, product.state / path.name)
        shutil.rmtree(saved)
    await product.restart("brokerd")
    await product.comes_to(domain, late, "grant")
    assert product.record(domain, nic) == before


@run
@pytest.mark.parametrize(("old", "new"), [("red", "jailed"), ("jailed", "red")])
async def test_a_state_rolled_back_is_refused_and_goes_on_above_with_init(product, old, new):
    verdicts = {"red": "grant", "jailed": "deny"}
    domain = await product.create(vif(0, mac(1, 0)), label=old)
    nic = domain.devices[0]
    await product.comes_to(domain, nic, verdicts[old])
    assert product.terminate("brokerd") == 0
    saved = (product.state / "audit.jsonl").read_bytes()
    await product.restart("brokerd")
    product.label(domain, new)
    newest = (await product.comes_to(domain, nic, verdicts[new])).seq
    assert product.terminate("brokerd") == 0
    with product.monitor.lock:
        product.audit.refresh()
        (product.state / "audit.jsonl").write_bytes(saved)
        product.audit.refresh()  # it is shorter now; once brokerd writes, it may not be
    product.spawn("brokerd")
    assert await product.ended("brokerd") == 1
    assert "older than what is published" in product.log("brokerd").splitlines()[-1]
    await product.agent_saw()
    assert product.is_open(domain, nic) == (verdicts[new] == "grant")
    product.spawn("brokerd", "--init")
    await product.enforcing()
    # The label is the old state's again, decided under a number above every one ever used.
    assert (await product.comes_to(domain, nic, verdicts[old])).seq > newest


@run
@pytest.mark.parametrize("how", ["lost", "corrupt", "rolled back"])
async def test_an_agent_without_its_memory_closes_nothing_open_and_opens_nothing_denied(
    product, how
):
    state = product.directory / "agent" / "agent.json"
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, RED), label="red")
    jailed = await product.create(vif(0, mac(2, 0)), label="red")
    victim = jailed.devices[0]
    for device in domain.devices:
        await product.comes_to(domain, device, "grant")
    await product.comes_to(jailed, victim, "grant")
    granted = product.text(jailed, victim)
    old = state.read_bytes()
    product.label(jailed, "jailed")
    await product.comes_to(jailed, victim, "deny")
    product.kill("agent")
    if how == "lost":
        state.unlink()
    else:
        state.write_bytes(old if how == "rolled back" else b"{\xff\x1b[2J")
    product.signal("brokerd", signal.SIGSTOP)
    try:
        product.client.write(product.decision_path(jailed, victim), granted)
        await product.restart("agent")
        await product.agent_saw()
        assert not product.is_open(jailed, victim)
    finally:
        product.signal("brokerd", signal.SIGCONT)
    await product.comes_to(jailed, victim, "deny")
    for device in domain.devices:
        await product.comes_to(domain, device, "grant")
        assert not product.monitor.closings(device.backend_dir(domain.domid))
    product.expect_new_lives()
