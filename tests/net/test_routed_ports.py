"""Ports that dom0 routes for (vif-route): the inet and arp tables, with the same classes."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import pytest
from labelled_rig import lay
from net_rig import arp, ethernet, ipv4, ipv6, mac, marker, raw, run

pytestmark = pytest.mark.root


@pytest.fixture
def routed(labelled):
    """Three routed guests; dom0 has a fixed neighbour entry for each."""
    return lay(labelled(), "vif1.0", "vif2.0", "vif3.0")


def packet(family, sender, receiver):
    data = marker(sender, receiver, 0)
    if family == "ipv4":
        return 0x0800, ipv4(1, 0, data, target=bytes((10, receiver, 0, 1))), data
    to = bytes.fromhex(f"fd0{receiver}" + "00" * 13 + "01")
    return 0x86DD, ipv6(1, 0, data, target=to), data


def passes(guests, family, sender, receiver, timeout):
    ethertype, content, data = packet(family, sender, receiver)
    guest = guests[receiver - 1]
    guest.socket.settimeout(timeout)
    guests[sender - 1].send(ethernet(mac(100 + sender), guests[sender - 1].mac, ethertype, content))
    try:
        while data not in guest.socket.recv(2048):
            pass
    except TimeoutError:
        return False
    finally:
        guest.socket.setblocking(False)
    return True


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_routed_packets_pass_exactly_between_classes_that_may(routed, family):
    rig, guests = routed
    assert passes(guests, family, 1, 3, 5), "the bed itself routes"
    ports = [rig.port(g, n, bridge=None) for n, g in enumerate(guests, 1)]
    rig.enforcer.start(rig.target(ports, {(1, 2), (2, 1)}))
    assert passes(guests, family, 1, 2, 5)
    assert passes(guests, family, 2, 1, 5)
    assert not passes(guests, family, 1, 3, 0.2)
    assert not passes(guests, family, 3, 2, 0.2)
    assert rig.alarms == []


def test_a_routed_vif_without_a_class_is_closed(routed):
    rig, guests = routed
    ports = [rig.port(g, 1, bridge=None) for g in guests[:2]]
    rig.enforcer.start(rig.target(ports, {(1, 1)}))
    assert passes(guests, "ipv4", 1, 2, 5)
    assert not passes(guests, "ipv4", 3, 2, 0.2)
    assert not passes(guests, "ipv4", 1, 3, 0.2)


def asks(guest, n, timeout):
    guest.socket.settimeout(timeout)
    body = bytearray(arp(1, 0, b""))
    body[14:18], body[24:28] = bytes((10, n, 0, 1)), bytes((10, n, 0, 100))
    guest.send(ethernet("ff:ff:ff:ff:ff:ff", guest.mac, 0x0806, bytes(body)))
    try:
        while guest.socket.recv(2048)[20:22] != b"\0\2":
            pass
    except TimeoutError:
        return False
    finally:
        guest.socket.setblocking(False)
    return True


def test_a_routed_port_finds_its_gateway_and_nothing_else_of_dom0(routed):
    rig, guests = routed
    ports = [rig.port(guests[0], 1, bridge=None), rig.port(guests[1], 1, host=True, bridge=None)]
    rig.enforcer.start(rig.target(ports, {(1, 1)}))
    assert asks(guests[0], 1, 5)
    assert not asks(guests[2], 3, 0.3), "no class, not even ARP"
    assert not pings(guests[0], 1, 0.2)
    assert pings(guests[1], 2, 5)


def pings(guest, n, timeout):
    """Whether dom0's address answers the guest's echo request."""
    guest.socket.settimeout(timeout)
    echo = struct.pack(">BBHHH", 8, 0, 0xF7FF - 1, 1, 0)
    echo = echo[:2] + struct.pack(">H", ~(0x0800 + 1) & 0xFFFF) + echo[4:]
    content = bytearray(ipv4(1, 0, b"", target=bytes((10, n, 0, 100)))[:20])
    content[2:4], content[9], content[10:12] = struct.pack(">H", 28), 1, b"\0\0"
    content[12:16] = bytes((10, n, 0, 1))
    total = sum(struct.unpack(">10H", content))
    content[10:12] = struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    guest.send(ethernet(mac(100 + n), guest.mac, 0x0800, bytes(content) + echo))
    try:
        while (frame := guest.socket.recv(2048))[12:14] != b"\x08\0" or frame[34] != 0:
            pass
    except TimeoutError:
        return False
    finally:
        guest.socket.setblocking(False)
    return True


def test_pairs_reach_the_routing_table_with_the_first_routed_port(routed):
    rig, guests = routed
    rig.enforcer.start(rig.target([], {(1, 1)}))
    assert not passes(guests, "ipv4", 1, 2, 0.2)
    for guest in guests[:2]:
        rig.enforcer.put(rig.port(guest, 1, bridge=None))
    assert passes(guests, "ipv4", 1, 2, 5)
    rig.enforcer.remove(guests[1].index)
    assert not passes(guests, "ipv4", 1, 2, 0.2)
    assert rig.alarms == []


@pytest.fixture
def mixed(labelled):
    """Two labelled ports, one with a name of its own; a vif without a class; two plain links."""
    rig, guests = lay(labelled(), "vif1.0", "web0", "vif3.0", "lan0", "lan1")
    ports = [rig.port(guest, 1, host=True, bridge=None) for guest in guests[:2]]
    rig.enforcer.start(rig.target(ports, {(1, 1)}))
    return rig, guests


@pytest.mark.parametrize(
    ("sender", "receiver", "open_"),
    [(1, 2, True), (4, 5, True), (4, 1, False), (4, 2, False), (1, 4, False), (2, 4, False),
     (3, 4, False), (4, 3, False), (3, 2, False), (2, 3, False)],
)  # fmt: skip
def test_ordinary_links_are_left_alone_and_lead_to_no_port(mixed, sender, receiver, open_):
    _, guests = mixed
    assert passes(guests, "ipv4", sender, receiver, 5 if open_ else 0.2) == open_


@pytest.mark.parametrize(("n", "open_"), [(1, True), (2, True), (3, False), (4, True)])
def test_dom0_itself_talks_with_ordinary_links_and_allowed_ports_alone(mixed, n, open_):
    rig, guests = mixed
    assert pings(guests[n - 1], n, 5 if open_ else 0.2) == open_
    assert dom0_reaches(rig, guests[n - 1], n, 5 if open_ else 0.2) == open_


@pytest.mark.parametrize(("n", "open_"), [(1, True), (3, False), (4, True)])
def test_dom0_hears_nothing_of_a_vif_without_a_class(mixed, n, open_):
    rig, guests = mixed
    with rig.net.host.entered():
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with datagrams:
        datagrams.bind(("0.0.0.0", 2000))
        datagrams.settimeout(5 if open_ else 0.2)
        content = ipv4(1, 0, b"to dom0", target=bytes((10, n, 0, 100)))
        guests[n - 1].send(ethernet(mac(100 + n), guests[n - 1].mac, 0x0800, content))
        try:
            assert datagrams.recv(100) == b"to dom0"
            heard = True
        except TimeoutError:
            heard = False
    assert heard == open_


def dom0_reaches(rig, guest, n, timeout):
    with rig.net.host.entered():
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    guest.socket.settimeout(timeout)
    with datagrams:
        # A refused packet is refused to its sender: EPERM.
        with contextlib.suppress(PermissionError):
            datagrams.sendto(b"from dom0 itself", (f"10.{n}.0.1", 2000))
        try:
            while b"from dom0 itself" not in guest.socket.recv(2048):
                pass
        except TimeoutError:
            return False
        finally:
            guest.socket.setblocking(False)
    return True


def test_dom0_answers_arp_on_ordinary_links(mixed):
    _, guests = mixed
    assert asks(guests[3], 4, 5)
    assert not asks(guests[2], 3, 0.3)


def solicits(guest, n, timeout):
    """Whether dom0 answers the guest's neighbour solicitation for its address."""
    source, target = (bytes.fromhex(f"fd0{n}" + "00" * 12 + last) for last in ("0001", "0100"))
    group = bytes.fromhex("ff02" + "00" * 9 + "01ff") + target[13:]
    body = struct.pack(">BBHI", 135, 0, 0, 0) + target + b"\x01\x01" + raw(guest.mac)
    pseudo = source + group + struct.pack(">II", len(body), 58)
    total = sum(struct.unpack(f">{len(pseudo + body) // 2}H", pseudo + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    head = struct.pack(">IHBB", 0x60000000, len(body), 58, 255) + source + group
    station = "33:33:ff:" + target[13:].hex(":")
    guest.socket.settimeout(timeout)
    guest.send(ethernet(station, guest.mac, 0x86DD, head + body))
    try:
        while (frame := guest.socket.recv(2048))[12:14] != b"\x86\xdd" or frame[54] != 136:
            pass
    except TimeoutError:
        return False
    finally:
        guest.socket.setblocking(False)
    return True


def test_a_routed_port_finds_its_gateway_by_ipv6_too(routed):
    rig, guests = routed
    ports = [rig.port(guests[0], 1, bridge=None)]
    rig.enforcer.start(rig.target(ports, {(1, 1)}))
    assert solicits(guests[0], 1, 5)
    assert not solicits(guests[2], 3, 0.3)


def neighbours(rig, address):
    return run(["ip", "-n", rig.net.host.name, "neigh", "show", address])


def test_dom0_learns_no_neighbour_from_a_vif_without_a_class(mixed):
    rig, guests = mixed
    for n, known in ((4, True), (3, False)):
        guest = guests[n - 1]
        body = bytearray(arp(1, 0, b""))
        body[14:18], body[24:28] = bytes((10, n, 0, 50)), bytes((10, n, 0, 100))
        guest.send(ethernet("ff:ff:ff:ff:ff:ff", guest.mac, 0x0806, bytes(body)))
        if known:
            end = time.monotonic() + 5
            while "lladdr" not in neighbours(rig, f"10.{n}.0.50"):
                assert time.monotonic() < end
        else:
            assert not pings(guest, n, 0.2)
            assert "lladdr" not in neighbours(rig, f"10.{n}.0.50")


def test_dom0_asks_no_vif_without_a_class_for_a_neighbour(mixed):
    rig, guests = mixed
    with rig.net.host.entered():
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with datagrams:
        for n, asked in ((4, True), (3, False)):
            guest = guests[n - 1]
            with contextlib.suppress(PermissionError):
                datagrams.sendto(b"x", (f"10.{n}.0.77", 2000))
            asking = f"neigh replace 10.{n}.0.77 dev {guest.port} nud probe lladdr {guest.mac}"
            rig.net.host.ip(asking)
            assert hears_question(guest, n, 5 if asked else 1.5) == asked


def hears_question(guest, n, timeout):
    guest.socket.settimeout(timeout)
    try:
        while (frame := guest.socket.recv(2048))[12:14] != b"\x08\x06" or (
            frame[38:42] != bytes((10, n, 0, 77))
        ):
            pass
    except TimeoutError:
        return False
    finally:
        guest.socket.setblocking(False)
    return True
