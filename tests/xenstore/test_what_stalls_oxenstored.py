"""A watcher that does not read stalls oxenstored's other clients: what the guide advises against.

Seen with 4.17: events are held for a watcher that reads no more, some 2,300 for one watch; then
whoever causes the next is not heard any more, and it stays so when the watcher has read them all.
"""

from __future__ import annotations

import contextlib
import threading

import pytest
from support.xenstoreds import start_store

WRITES = 6_000
PATIENCE = 4.0
"""Seconds without an answer after which a writer counts as stalled; answers take microseconds."""
QUIET = 1.0
"""Seconds without an event after which a watcher has read them all."""


@pytest.fixture(name="store", params=["C", "oxenstored"])
def a_real_store(request):
    made = start_store(request.param)
    yield made
    made.stop()


def written(client, count):
    """How many writes were answered, each in time."""
    client._socket.settimeout(PATIENCE)
    for number in range(count):
        try:
            client.write("/flood/node", str(number).encode())
        except TimeoutError:
            return number
    return count


def test_a_watcher_that_does_not_read_stalls_a_writer_for_good_on_oxenstored_alone(store):
    with store.client() as watcher, store.client() as writer:
        watcher.watch("/flood", "w")
        answered = written(writer, WRITES)
        if store.kind == "C":
            assert answered == WRITES
            return
        assert 1_000 < answered < WRITES
        with contextlib.suppress(TimeoutError):
            while True:
                watcher.next_event(QUIET)
        with pytest.raises(TimeoutError):
            writer.receive()
        with store.client() as other:
            assert other.write("/elsewhere", b"x") is None


def test_a_watcher_that_always_reads_stalls_nobody(store):
    with store.client() as watcher, store.client() as writer:
        watcher.watch("/flood", "w")
        done = threading.Event()

        def read():
            with contextlib.suppress(TimeoutError):
                while not done.is_set():
                    watcher.next_event(QUIET)

        reading = threading.Thread(target=read)
        reading.start()
        try:
            assert written(writer, WRITES) == WRITES
        finally:
            done.set()
            reading.join()
