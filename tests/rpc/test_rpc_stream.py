from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from broker.rpc.stream import MOST_BYTES, EventStream


class Event(msgspec.Struct):
    n: int | str


class Outlet:
    """A client; it pauses the stream once `room` writes were taken."""

    def __init__(self, room=None):
        self.written: list[bytes] = []
        self.room = room
        self.stream: EventStream | None = None
        self.aborted = False

    def write(self, data):
        self.written.append(data)
        if self.room is not None:
            self.room -= 1
            if self.room == 0:
                self.stream.pauseProducing()

    def abort(self):
        self.aborted = True

    def events(self):
        """Numbers received, and `lost N`."""
        found = []
        for text in b"".join(self.written).split(b"\n\n"):
            if text.startswith(b"event: lagged\ndata: "):
                found.append(f"lost {json.loads(text.split(b'data: ')[1])['lost']}")
            elif text.startswith(b"data: "):
                found.append(json.loads(text[6:])["n"])
        return found


def make(room=None, bound=3):
    outlet, clock, gone = Outlet(room), Clock(), []
    stream = EventStream(outlet, clock, bound=bound, keep_alive=15, stall=60)
    outlet.stream = stream
    return outlet, clock, stream, gone


def test_events_before_the_start_come_after_it_in_order():
    outlet, _, stream, gone = make()
    stream(Event(1))
    assert outlet.written == []
    stream.start(lambda: gone.append(1))
    stream(Event(2))
    assert outlet.events() == [1, 2]
    assert not gone


def test_a_client_that_does_not_read_is_told_how_many_it_lost_in_their_place():
    outlet, _, stream, _ = make()
    stream.start(lambda: None)
    stream(Event(1))
    stream.pauseProducing()
    for n in range(2, 8):
        stream(Event(n))
    assert outlet.events() == [1]
    stream.resumeProducing()
    stream(Event(8))
    assert outlet.events() == [1, 2, 3, 4, "lost 3", 8]


def test_a_client_that_reads_a_little_gets_the_kept_ones_before_it_is_told():
    outlet, _, stream, _ = make(room=2)
    stream.start(lambda: None)  # the first write is the comment
    for n in range(1, 7):
        stream(Event(n))
    assert outlet.events() == [1]
    outlet.room = 1
    stream.resumeProducing()
    assert outlet.events() == [1, 2]
    stream(Event(7))
    outlet.room = None
    stream.resumeProducing()
    assert outlet.events() == [1, 2, 3, 4, "lost 3"]


def test_both_ends_hear_of_each_other_while_nothing_happens():
    outlet, clock, stream, _ = make()
    stream.start(lambda: None)
    clock.pump([15, 15])
    assert outlet.written == [b": keep-alive\n\n"] * 3


def test_a_client_that_never_reads_is_dropped():
    outlet, clock, stream, _ = make()
    stream.start(lambda: None)
    stream.pauseProducing()
    clock.pump([15] * 3)
    stream.pauseProducing()  # said twice, counted from the first
    assert not outlet.aborted
    clock.advance(15)
    assert outlet.aborted


def test_a_closed_stream_is_unsubscribed_once_and_silent():
    outlet, clock, stream, gone = make()
    stream.start(lambda: gone.append(1))
    stream.close()
    stream.stopProducing()
    stream(Event(1))
    clock.advance(100)
    assert gone == [1]
    assert outlet.events() == []
    assert not clock.getDelayedCalls()


def test_a_stream_closed_before_it_began_has_nobody_to_unsubscribe():
    outlet, _, stream, _ = make()
    stream.close()
    stream(Event(1))
    assert outlet.written == []


def test_an_event_that_cannot_be_written_counts_as_lost_and_is_logged():
    outlet, _, stream, _ = make()
    stream.start(lambda: None)
    with capturedLogs() as logs:
        stream(Event("\udc80"))
        stream(object())
    assert len([event for event in logs if "log_failure" in event]) == 2
    stream(Event(3))
    assert outlet.events() == ["lost 1", "lost 1", 3]


def test_few_but_large_events_are_kept_up_to_their_size():
    outlet, _, stream, _ = make(bound=1000)
    stream.start(lambda: None)
    stream.pauseProducing()
    for _ in range(100):
        stream(Event("x" * 10_000))
    assert sum(map(len, stream._kept)) < MOST_BYTES + 11_000
    kept = len(stream._kept)
    stream.resumeProducing()
    assert outlet.events() == ["x" * 10_000] * kept + [f"lost {100 - kept}"]


def test_who_can_wait_is_told_when_the_client_has_taken_all():
    outlet, _, stream, _ = make()
    told = []
    stream.on_ready = lambda: told.append(stream.ready)
    assert not stream.ready
    stream.start(lambda: None)
    assert told == [True]
    stream.pauseProducing()
    assert not stream.ready
    stream(Event(1))
    outlet.room = 1
    stream.resumeProducing()
    assert told == [True]
    outlet.room = None
    stream.resumeProducing()
    assert told == [True, True]
    stream.close()
    stream.resumeProducing()
    assert not stream.ready
    assert told == [True, True]


def test_an_events_number_goes_with_it():
    outlet, _, stream, _ = make()
    stream.start(lambda: None)
    stream(Event(1), 17)
    assert outlet.written[-1] == b'id: 17\ndata: {"n":1}\n\n'


def test_what_is_gone_elsewhere_is_told_too():
    outlet, _, stream, _ = make()
    stream.start(lambda: None)
    stream.lagged(7)
    stream(Event(1))
    assert outlet.events() == ["lost 7", 1]
    stream.close()
    stream.lagged(1)
    assert outlet.events() == ["lost 7", 1]


@given(st.lists(st.sampled_from(["send", "pause", "resume"]), max_size=60))
def test_every_event_is_either_received_in_order_or_counted_as_lost(steps):
    outlet, _, stream, _ = make()
    stream.start(lambda: None)
    sent = 0
    for step in steps:
        if step == "send":
            stream(Event(sent))
            sent += 1
        elif step == "pause":
            stream.pauseProducing()
        else:
            stream.resumeProducing()
        assert len(stream._kept) <= 3
    stream.resumeProducing()
    expected = 0
    for found in outlet.events():
        if isinstance(found, str):
            expected += int(found.removeprefix("lost "))
        else:
            assert found == expected
            expected += 1
    assert expected == sent
