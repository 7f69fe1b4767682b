"""The validator itself: copies, bounds, misuse, and what a violation says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ring_messages import (
    EXTRA,
    GIVEN,
    MORE,
    RINGS,
    blk,
    blk_done,
    blk_indirect,
    gso,
    rings_of,
    rx,
    rx_buffer,
    segments,
    tx,
    tx_done,
)

from broker.protocol.ring import RingMisuseError, RingValidator

TABLES = {"vbd": rings_of("vbd"), "vif": rings_of("vif")}
ABI = "x86_64-abi"


def disk(slots=4, **given):
    return RingValidator(TABLES["vbd"], "io", given={**GIVEN["vbd"], **given}, slots=slots, abi=ABI)


def network(ring, slots=8):
    return RingValidator(TABLES["vif"], ring, given=GIVEN["vif"], slots=slots, abi="any")


def test_a_request_and_its_response_are_fine():
    ring = disk()
    assert ring.request(blk(ABI, 0, 7, 0, segments(2))) is None
    assert ring.in_flight == 1
    assert ring.response(blk_done(ABI, 7, 0)) is None
    assert ring.in_flight == 0
    assert ring.violation is None


def test_a_violation_says_who_what_and_how():
    ring = disk()
    bad = ring.request(blk(ABI, 0, 7, 0, segments(1) + segments(1, 0, 9)))
    assert bad is ring.violation
    assert (bad.party, bad.rule) == ("frontend", "io.transfer.seg.last_sect.max")
    assert (bad.field, bad.index, bad.value) == ("last_sect", 1, 9)
    assert bad.evidence == "must hold: last_sect <= 7; last_sect is 9; item 1"


def test_a_negative_value_is_shown_as_one_and_kept_as_64_bits():
    ring = disk()
    ring.request(blk(ABI, 0, 7, 0, segments(2)))
    bad = ring.response(blk_done(ABI, 7, 0, -5))
    assert bad.evidence == "must hold: status is one of 0, -1, -2; status is -5"
    assert bad.value == 2**64 - 5


def test_an_unknown_id_is_named():
    bad = disk().response(blk_done(ABI, 99, 0))
    assert bad.evidence == "must hold: it answers a request in flight; the id is 99"


def test_the_message_is_copied_before_it_is_looked_at():
    """What the sender writes while a check runs changes nothing."""
    shared = bytearray(blk_indirect(ABI, 0, 7, 0, 2))
    ring = disk()
    assert ring.request(memoryview(shared)) is None
    shared[1] = 9
    pages = bytearray(segments(2))
    assert ring.request_list(pages) is None
    assert ring.response(blk_done(ABI, 7, 0)) is None


def test_a_slot_may_be_longer_than_the_message():
    """Responses lie in slots of the size of requests."""
    ring = disk()
    ring.request(blk(ABI, 0, 7, 0, segments(2)))
    assert ring.response(blk_done(ABI, 7, 0).ljust(112, b"\xff")) is None


@pytest.mark.parametrize(("operation", "size"), [("request", 111), ("response", 15)])
def test_a_short_slot_is_the_callers_fault(operation, size):
    with pytest.raises(RingMisuseError, match=f"{size} bytes, where a slot has {size + 1}"):
        getattr(disk(), operation)(bytes(size))


MISUSE = [
    ({"ring": "oi"}, "no ring 'oi'; known: io"),
    ({"slots": 0}, "0 slots: a power of two up to 512"),
    ({"slots": 3}, "3 slots: a power of two up to 512"),
    ({"slots": 1024}, "1024 slots: a power of two up to 512"),
    ({"abi": "arm-abi"}, "no ABI 'arm-abi'; known: x86_64-abi, x86_32-abi"),
    ({"given": {}}, "given too much or too little: barrier, discard, flush"),
    ({"given": {**GIVEN["vbd"], "odd": 1}}, "given too much or too little: odd"),
    ({"given": {**GIVEN["vbd"], "sector_size": 0}}, "sector_size=0: it is from 512 to 4096"),
    ({"given": {**GIVEN["vbd"], "barrier": 2}}, "barrier=2: it is from 0 to 1"),
    ({"given": {**GIVEN["vbd"], "flush": -1}}, "flush=-1: it is from 0 to 1"),
]


@pytest.mark.parametrize(("wrong", "said"), MISUSE)
def test_connecting_wrongly_is_refused(wrong, said):
    right = {"ring": "io", "given": GIVEN["vbd"], "slots": 32, "abi": ABI}
    with pytest.raises(RingMisuseError, match=said):
        RingValidator(TABLES["vbd"], **{**right, **wrong})


def test_a_list_that_is_waited_for_comes_first():
    ring = disk()
    with pytest.raises(RingMisuseError):
        ring.request_list(b"")
    ring.request(blk_indirect(ABI, 0, 7, 0, 2))
    assert ring.wants == 16
    for call, message in (
        (ring.request, blk(ABI, 0, 8, 0, segments(1))),
        (ring.response, blk_done(ABI, 7, 0)),
        (ring.request_list, segments(1)),
    ):
        with pytest.raises(RingMisuseError):
            call(message)
    assert ring.request_list(segments(2)) is None
    assert ring.wants == 0
    with pytest.raises(RingMisuseError):
        ring.request_list(segments(2))


def test_an_id_may_be_used_again_when_answered():
    ring = disk(slots=1)
    for _ in range(3):
        assert ring.request(blk(ABI, 0, 5, 0, segments(1))) is None
        assert ring.response(blk_done(ABI, 5, 0)) is None


def test_a_disk_may_grow_while_it_is_in_use():
    ring = disk(sectors=8)
    ring.agree({**GIVEN["vbd"], "sectors": 16})
    assert ring.request(blk(ABI, 0, 1, 8, segments(1))) is None
    with pytest.raises(RingMisuseError, match="sector_size=1: it is from 512 to 4096"):
        ring.agree({**GIVEN["vbd"], "sector_size": 1})
    assert ring.request(blk(ABI, 0, 2, 9, segments(1))).rule == "io.transfer.seg.past-end"


def test_a_packet_goes_on_over_slots_and_begins_anew():
    ring = network("tx")
    packet = (tx(1, 5000, 0, MORE | EXTRA), gso(), tx(2, 1000, 0, MORE), tx(3, 1000))
    assert [ring.request(one) for one in packet] == [None] * 4
    assert ring.in_flight == 4
    # What was kept is forgotten: this one is whole by itself.
    assert ring.request(tx(4, 60)) is None
    answers = (tx_done(3), tx_done(0, 1), tx_done(1), tx_done(4), tx_done(2))
    assert [ring.response(one) for one in answers] == [None] * 5


def test_received_slots_answer_the_oldest_buffer_and_extras_take_one():
    ring = network("rx")
    for name in (5, 6, 7):
        assert ring.request(rx_buffer(name)) is None
    assert ring.response(rx(5, 100, 0, EXTRA | MORE)) is None
    assert ring.response(gso()[:8]) is None
    assert ring.response(rx(7)) is None
    assert ring.in_flight == 0
    # The extra's buffer may be offered again.
    assert ring.request(rx_buffer(6)) is None


@given(
    st.sampled_from(RINGS), st.lists(st.tuples(st.booleans(), st.binary(min_size=112)), max_size=40)
)
def test_noise_never_fails_and_blames_only_its_sender(ring, messages):
    name, title = ring
    abi = TABLES[name].abis[0]
    ours = RingValidator(TABLES[name], title, given=GIVEN[name], slots=2, abi=abi)
    for is_request, noise in messages:
        said = ours.request(noise) if is_request else ours.response(noise)
        assert ours.in_flight <= 2
        if ours.wants:
            said = ours.request_list(bytes(ours.wants))
        if said is not None:
            assert said.party == ("frontend" if is_request else "backend")
            assert said.evidence.isascii()
            break


def test_memory_is_bounded_however_many_are_asked_for():
    ring = disk(slots=4)
    for name in range(10_000):
        ring.request(blk(ABI, 0, name, 0, segments(1)))
        assert ring.in_flight <= 4
    assert ring.violation.rule == "io.request.too-many"


def test_a_row_of_ids_that_meet_in_a_table_is_no_matter():
    ring = disk(slots=512)
    names = [n << 32 for n in range(512)]
    assert {ring.request(blk(ABI, 0, name, 0, segments(1))) for name in names} == {None}
    assert {ring.response(blk_done(ABI, name, 0)) for name in reversed(names)} == {None}
