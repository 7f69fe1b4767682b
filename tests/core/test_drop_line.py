"""The line in which an agent reports refused packets: bounded, exact, and read with suspicion."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.drops import Drop, encode_drops, parse_drops
from broker.core.record import MAX_SIGNED_BYTES, RecordError

NAMES = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
COUNTS = st.integers(0, 10**19 - 1)
DROPS = st.lists(st.builds(Drop, NAMES, NAMES, COUNTS, COUNTS), max_size=60)


def test_the_line_is_as_documented():
    drops = [Drop(None, "shop", 1, 60), Drop("web", "bank", 12, 840)]
    text = encode_drops(1764000000, drops)
    assert text == "at=1764000000 omitted=0 web>bank=12/840 ->shop=1/60"
    report = parse_drops(text.encode())
    assert (report.at, report.omitted, report.drops) == (1764000000, 0, (drops[1], drops[0]))


@given(st.integers(0, 10**12), DROPS)
def test_what_is_told_is_read_and_never_longer_than_a_record(at, drops):
    text = encode_drops(at, drops)
    assert text.isascii()
    assert len(text) <= MAX_SIGNED_BYTES
    report = parse_drops(text.encode())
    assert report.at == at
    assert len(report.drops) + report.omitted == len(drops)
    assert all(drop in drops for drop in report.drops)


def test_the_largest_counts_are_kept():
    drops = [Drop("a" * 100, f"b{n:03}", n, n) for n in range(100)]
    report = parse_drops(encode_drops(1, drops).encode())
    kept = [drop.packets for drop in report.drops]
    assert kept == list(range(99, 99 - len(kept), -1))
    assert report.omitted == 100 - len(kept) > 0


def test_counts_beyond_the_lines_room_are_cut():
    (drop,) = parse_drops(encode_drops(1, [Drop("a", "b", 10**30, 10**30)]).encode()).drops
    assert drop.packets == drop.bytes == 10**19 - 1


def test_labels_that_are_no_unicode_can_be_shown_all_the_same():
    report = parse_drops(b"at=1 omitted=0 %FF>web=1/2")
    assert report.drops == (Drop("\\xff", "web", 1, 2),)
    assert msgspec.json.encode(report)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"at=1",
        b"at=01 omitted=0",
        b"at=-1 omitted=0",
        b"at=1 omitted=0 ",
        b"at=1 omitted=0  a>b=1/1",
        b"at=1 omitted=0 a>b=1",
        b"at=1 omitted=0 a>b=1/1 c",
        b"at=1 omitted=0 a>b=01/1",
        b"at=1 omitted=0 a>b>c=1/1",
        b"at=1 omitted=0 a%61>b=1/1",
        b"at=1 omitted=0 \xff>b=1/1",
        b"at=1 omitted=0 \x1b[2J>b=1/1",
        b"at=1 omitted=0 >b=1/1",
        b"at=1 omitted=0 a>b=99999999999999999999/1",
        b"at=1 omitted=0 " + b"a" * 601 + b">b=1/1",
        b"at=1 omitted=0" + b" a>b=1/1" * 300,
    ],
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(RecordError):
        parse_drops(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_refused(data):
    try:
        report = parse_drops(b"at=1 omitted=0" + data)
    except RecordError:
        return
    again = encode_drops(report.at, report.drops)
    assert parse_drops(again.encode()).drops or not report.drops
