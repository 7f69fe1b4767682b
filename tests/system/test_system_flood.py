"""A guest that writes without end, and records that the store has no room for."""

from __future__ import annotations

import signal
import socket
import struct
import threading

import pytest
import pytest_twisted
from support.product import POLICY, Product, mac, until
from support.xenstoreds import KINDS, start_store

from broker.sim.toolstack import vbd, vif
from broker.xenstore import wire
from broker.xenstore.errors import StoreError

run = pytest_twisted.ensureDeferred
OPTIONS = {"drivers": False}


def flood(path, front, stop):
    """As many writes as the store takes, 64 under way at a time; how many there were."""
    payloads = [
        f"{front}/{key}".encode() + b"\0" + value
        for key, value in (
            ("backend", b"/local/domain/0/backend/vif/\xff"),
            ("state", b"3"),
            ("request-rx-copy", b"1"),
            ("backend", b"\x1b[2J"),
        )
    ]
    done = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.settimeout(10)
        while not stop.is_set():
            batch = b"".join(
                struct.pack("<IIII", wire.WRITE, done + number, 0, len(payload)) + payload
                for number, payload in enumerate(payloads[done % 4 :] + payloads[: done % 4])
                for _ in range(16)
            )
            connection.sendall(batch)
            answers, received = 64, b""
            while answers:
                received += connection.recv(65536)
                while len(received) >= 16:
                    size = 16 + struct.unpack_from("<I", received, 12)[0]
                    if len(received) < size:
                        break
                    received = received[size:]
                    answers -= 1
            done += 64
    return done


@run
async def test_while_a_guest_writes_without_end_the_others_are_decided(product):
    hostile = await product.create(vif(0, mac(1, 0)), label="red")
    await product.comes_to(hostile, hostile.devices[0], "grant")
    stop, done = threading.Event(), []
    front = hostile.devices[0].frontend_dir(hostile.domid)
    flooding = threading.Thread(target=lambda: done.append(flood(hostile.guest.path, front, stop)))
    flooding.start()
    count = 0
    try:
        while flooding.is_alive() and count < 12:
            nic = await product.attach(product.witness, vif(1 + count, mac(9, count)))
            await product.comes_to(product.witness, nic, "grant")
            await product.detach(product.witness, nic)
            count += 1
    finally:
        stop.set()
        flooding.join()
    assert done
    assert done[0] > 0
    assert count == 12
    size = (product.state / "audit.jsonl").stat().st_size
    assert size < 1 << 20, "a guest fills the audit log"


STORES = [
    pytest.param("C", ("-S", "760"), marks=pytest.mark.xenstored),
    pytest.param("oxenstored", ("quota-maxsize = 700",), marks=pytest.mark.xenstored),
]
LONG = "long-" + "x" * 120


@run
@pytest.mark.parametrize(("kind", "options"), STORES)
async def test_a_record_the_store_has_no_room_for_opens_nothing_and_delays_nobody(kind, options):
    """The broker is an unprivileged domain here, on nodes of dom0's helper: quotas hold for it."""
    daemon = start_store(kind, options)
    policy = POLICY.replace("  jailed:", f"  {LONG}: {{ste: [red, storage_red]}}\n  jailed:")
    helper = "gates: simulated\nhelper: {broker_domid: 1}"
    product = Product(daemon, policy=policy, agent_yaml=helper, drivers=False)
    try:
        product.broker_store = daemon.guest(1).address
        await product.start()
        await product.settle_witness()
        domain = await product.create(vif(0, mac(1, 0)), vbd(51712, "/dev/vg/red-1"), label=LONG)
        await until(lambda: "is not published yet" in product.log("brokerd"), "the reason logged")
        await product.fence()
        assert not any(product.is_open(domain, it) for it in domain.devices)
        code, text = product.ctl("status")
        assert "not published yet" in " ".join(text.split())
        assert code in (0, 1)
        product.label(domain, "red")
        for device in domain.devices:
            await product.comes_to(domain, device, "grant")
        product.check()
    except StoreError as error:
        raise AssertionError(product.log("brokerd")[-2000:]) from error
    finally:
        product.close()
        daemon.stop()


@run
@pytest.mark.parametrize("kind", [pytest.param(it, marks=pytest.mark.xenstored) for it in KINDS])
async def test_a_denial_with_the_longest_reason_still_closes_under_an_unprivileged_broker(kind):
    """A node's quota counts more than its value: a record that fills it was never published."""
    daemon = start_store(kind)
    helper = "gates: simulated\nhelper: {broker_domid: 1}"
    product = Product(daemon, agent_yaml=helper, drivers=False)
    try:
        product.broker_store = daemon.guest(1).address
        await product.start()
        await product.settle_witness()
        one = await product.create(vif(0, mac(1, 0)), label="jailed")
        await product.comes_to(one, one.devices[0], "deny", "no network in jail")
        room = 2045 - len(product.text(one, one.devices[0])) + len("no%20network%20in%20jail")
        two = await product.create(vif(0, mac(2, 0)), label="red")
        await product.comes_to(two, two.devices[0], "grant")
        product.policy.write_text(POLICY.replace("no network in jail", "x" * room))
        product.signal("brokerd", signal.SIGHUP)
        await product.comes_to(one, one.devices[0], "deny", "xxx")
        product.label(two, "jailed")
        await product.comes_to(two, two.devices[0], "deny", "xxx")
        product.check()
    finally:
        product.close()
        daemon.stop()
