"""Guests on the ring of the real daemons: states of a domain, and rings that break the rules."""

from __future__ import annotations

import os

import pytest
from support.ring import Ring
from support.xenstoreds import start_store, wait_until

from broker.xenstore import wire


@pytest.fixture(params=["C", "oxenstored"])
def daemon(request):
    made = start_store(request.param)
    yield made
    made.stop()


@pytest.mark.parametrize("state", ["s", "c"])
def test_a_domain_that_stops_is_told_of_and_still_known(daemon, state):
    guest = daemon.guest(7)
    with daemon.client() as root:
        root.watch("@releaseDomain", "r")
        assert root.next_event() == ("@releaseDomain", "r")
        guest.shut_down(state)
        assert root.next_event() == ("@releaseDomain", "r")
        assert root.is_introduced(7)
        guest.die()
        assert root.next_event() == ("@releaseDomain", "r")
        assert not root.is_introduced(7)


def test_a_ring_carries_frames_larger_than_itself(daemon):
    with daemon.guest(7).client() as guest:
        for size in (0, 1, 1008, 1024, 1500, 2000):
            guest.write("data", bytes(size))
            assert guest.read("data") == bytes(size)


def test_two_programs_share_a_ring_and_keep_apart(daemon):
    guest = daemon.guest(7)
    with guest.client() as one, guest.client() as two:
        one.watch("data", "same token")
        two.watch("data", "same token")
        one.drain_events()
        two.drain_events()
        one.write("data", "1")
        assert two.next_event() == ("data", "same token")
        assert one.next_event() == ("data", "same token")
        tx = one.start()
        one.write("data", "2", tx=tx)
        assert two.read("data") == b"1"
        one.end(tx)
        assert two.read("data") == b"2"


def test_a_ring_with_a_malformed_frame_harms_nobody_else(daemon):
    guest = daemon.guest(7)
    guest.ring.put(wire.HEADER.pack(wire.READ, 1, 0, 0xFFFFFFFF))
    with daemon.client() as root, daemon.guest(8).client() as other:
        other.write("data", "1")
        assert root.read("/local/domain/8/data") == b"1"
        assert wait_until(lambda: root.directory("/local/domain"))


def test_a_ring_page_wraps_in_both_directions(tmp_path):
    os.mkfifo(tmp_path / "evtchn")
    ring = Ring(tmp_path, 7)
    words = ring._words
    words[512] = words[513] = words[514] = words[515] = 0xFFFFFFFF - 9
    assert ring.put(bytes(range(256)) * 5) == 1024
    assert ring.put(b"full") == 0
    ring._page[1024:2048] = ring._page[:1024]
    words[515] = (words[515] + 1024) & 0xFFFFFFFF
    assert ring.take() == (bytes(range(256)) * 5)[:1024]
    assert ring.take() == b""
    ring.close()
