"""A line's exact text, its place in the chain, and checkpoints."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from audit_logs import KEY, OTHER_KEY, POLICY, PUBLIC, Maker, small_log
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import GENESIS, ChainError, Head, frame, in_force_field, unframe
from broker.audit.checkpoint import is_signed, read_anchor, read_checkpoint, sign_checkpoint
from broker.audit.segments import read_segment
from broker.service.events import Alarm, LabelSet, decode_event, encode_event

EVENT = Alarm(1.5, "path", 'a "quoted" word')


def test_a_line_is_one_json_object_that_says_what_happened_and_where_it_stands():
    line, digest = frame(17, b"f" * 64, encode_event(EVENT), in_force_field(POLICY))
    assert json.loads(line) == {
        "n": 17,
        "event": "alarm",
        "t": 1.5,
        "subject": "path",
        "detail": 'a "quoted" word',
        "in_force": POLICY,
        "hash": digest.decode(),
    }
    covered = line[: line.index(b',"hash":')]
    assert digest.decode() == hashlib.sha256(b"f" * 64 + covered).hexdigest()


@given(st.integers(1, 10**15), st.text(), st.booleans())
def test_a_line_reads_as_it_was_written_in_printable_ascii(n, text, policy):
    text = text.encode("utf-8", "replace").decode()
    in_force = POLICY if policy else None
    event = Alarm(1.0, text, "")
    line, digest = frame(n, GENESIS, encode_event(event), in_force_field(in_force))
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    framed = unframe(line)
    assert (framed.n, framed.kind, framed.in_force, framed.hash) == (n, "alarm", in_force, digest)
    assert decode_event(framed.event) == event
    assert framed.follows(GENESIS)
    assert not framed.follows(b"1" * 64)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"n":1,', b'{"n":0,'),
        (b'{"n":1,', b'{"n":01,'),
        (b'{"n":1,', b'{ "n":1,'),
        (b'"event":', b'"EVENT":'),
        (b"\n", b""),
        (b"\n", b"\r\n"),
        (b"path", b"p\x7fth"),
        (b"path", b"p\nth"),
        (b'"in_force":null,', b""),
        (b'"hash":"', b'"hash":"0'),
        (b'"}', b'"} '),
    ],
)
def test_what_is_not_written_exactly_so_is_no_line(old, new):
    line, _ = frame(1, GENESIS, encode_event(EVENT), in_force_field(None))
    with pytest.raises(ChainError):
        unframe(line.replace(old, new, 1))


def test_who_did_it_and_in_which_role_is_in_the_line():
    event = LabelSet(1.0, "name", "web1", "red", "corp", "anna", "operator")
    told = json.loads(encode_event(event))
    assert (told["subject"], told["role"]) == ("anna", "operator")


def test_a_checkpoint_is_good_in_its_place_under_its_key_alone():
    before = Head(9, b"a" * 64)
    event = sign_checkpoint(before, 1700000000.1234567, KEY)
    line, _ = frame(10, before.hash, encode_event(event), in_force_field(None))
    framed = unframe(line)
    assert read_checkpoint(framed) == event
    assert is_signed(framed, event, KEY.public_key())
    assert not is_signed(framed, event, OTHER_KEY.public_key())
    moved = msgspec.structs.replace(framed, n=11)
    assert not is_signed(moved, event, KEY.public_key())
    for change in ({"t": event.t + 0.001}, {"head": "b" * 64}, {"sig": "AAAA"}, {"sig": "\xe9"}):
        changed = msgspec.structs.replace(event, **change)
        assert not is_signed(framed, changed, KEY.public_key())


def test_only_a_checkpoint_as_it_was_printed_is_an_anchor():
    line = small_log().segments[-1][-1]
    assert read_anchor(line.rstrip(), PUBLIC).n == 19
    for bad in (b"", b"{}", line.replace(b"1700000000", b"1700000001"), Maker().add(EVENT)):
        with pytest.raises(ChainError):
            read_anchor(bad, PUBLIC)
    with pytest.raises(ChainError, match="not signed"):
        read_anchor(line, [OTHER_KEY.public_key()])


def test_what_is_no_beginning_of_a_segment_is_not_read_as_one():
    maker = small_log()
    assert read_segment(unframe(maker.segments[1][0])).prev
    with pytest.raises(ChainError):
        read_segment(unframe(maker.segments[1][1]))
