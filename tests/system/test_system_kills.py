"""Killed at any point: broker, agent, the store; conflicts without end."""

from __future__ import annotations

import random
import threading

import pytest_twisted
from support.product import mac, until
from twisted.internet import reactor, task

from broker.sim.toolstack import vbd, vif
from broker.xenstore import paths
from broker.xenstore.errors import StoreError

run = pytest_twisted.ensureDeferred
KILLS = 12
VERDICTS = {"red": ("grant", "grant"), "jailed": ("deny", "deny"), "blue": ("grant", "deny")}


@run
async def test_killed_at_random_points_all_comes_true_and_nothing_else(running):
    """Labels and disks change while broker or agent dies, also in the middle of catching up."""
    product, dice = running, random.Random(417)
    domains = [
        await product.create(vif(0, mac(n, 0)), vbd(51712, f"/dev/vg/red-{n}"), label="red")
        for n in range(3)
    ]
    labels = dict.fromkeys(range(3), "red")
    for number in range(1, KILLS + 1):
        await product.enforcing()
        for which in dice.sample(range(3), 2):
            labels[which] = dice.choice(list(VERDICTS))
            product.label(domains[which], labels[which])
        if dice.random() < 0.5:
            victim = domains[dice.randrange(3)]
            disk = victim.devices[1]
            await product.detach(victim, disk)
            await product.attach(victim, disk)
        await task.deferLater(reactor, dice.random() * dice.choice([0.01, 0.03, 0.6]))
        names = [["brokerd"], ["agent"], ["brokerd", "agent"]][number % 3]
        for name in names:
            product.kill(name)
        for name in names:
            product.spawn(name)
        if number % 4 == 0:
            for which, domain in enumerate(domains):
                for device, verdict in zip(domain.devices, VERDICTS[labels[which]], strict=True):
                    await product.comes_to(domain, device, verdict)
    await product.enforcing()
    await product.clear()
    product.check()


@run
async def test_transactions_that_conflict_without_end_delay_nobody_else_and_open_in_the_end(
    product,
):
    """Somebody makes new nodes in a backend directory for as long as its gate is to open."""
    stop = threading.Event()
    domain = await product.create(label="red")
    disk = vbd(51712, "/dev/vg/red-1")
    back = disk.backend_dir(domain.domid)

    def storm():
        with product.daemon.client() as client:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    client.write(f"{back}/frontend", disk.frontend_dir(domain.domid))
                    client.write(f"{back}/storm-{number % 50}", b"%d" % number)
                    client.rm(f"{back}/storm-{number % 50}")
                except StoreError:
                    continue

    await product.attach(domain, disk)
    storming = threading.Thread(target=storm)
    storming.start()
    try:
        for devid in range(1, 9):
            nic = await product.attach(product.witness, vif(devid, mac(1, devid)))
            await product.comes_to(product.witness, nic, "grant")
            await product.detach(product.witness, nic)
    finally:
        stop.set()
        storming.join()
    await product.comes_to(domain, disk, "grant")


@run
async def test_a_store_killed_and_restarted_empty_loses_no_decision_and_opens_nothing(running):
    """Last of its module: whoever lived in the store is gone with it."""
    product = running
    product.check()
    denied = await product.create(vif(0, mac(1, 0)), label="jailed")
    await product.comes_to(denied, denied.devices[0], "deny")
    decided = len(product.audit.by_text)
    product.connection.close()
    product.client.close()
    for domain in product.domains.values():
        domain.connection.close()
    witness, product.witness = product.witness, None
    product.domains.clear()
    for _ in range(3):
        product.daemon.restart_empty()
    await product.connect()
    await until(lambda: product.read(paths.STATE) == b"enforcing", "taking up the empty store")
    product.audit.refresh()
    assert len(product.audit.by_text) >= decided
    again = await product.create(
        *witness.devices, domid=witness.domid, uuid=witness.uuid, name="witness"
    )
    jailed = await product.create(*denied.devices, domid=denied.domid, uuid=denied.uuid)
    for device in again.devices:
        await product.comes_to(again, device, "grant")
    await product.comes_to(jailed, jailed.devices[0], "deny")
    product.check()
