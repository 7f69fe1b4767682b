"""Reading a log by places: forward, backward, over rotations, and what was dropped meanwhile."""

from __future__ import annotations

import pytest
from audit_logs import small_log
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import unframe
from broker.audit.query import Query, select
from broker.audit.reading import BLOCK, End, LogReader, Place, number_of
from broker.audit.segments import older_name
from broker.service import events

LOG = small_log()
LINES = [line for lines in LOG.segments for line in lines]


class Files:
    """The log's segments in a directory, and a reader of them."""

    def __init__(self, path, segments=None):
        self.newest = path / "audit.jsonl"
        segments = segments or LOG.segments
        for lines in segments[:-1]:
            (path / older_name(number_of(lines[0]))).write_bytes(b"".join(lines))
        self.write(segments[-1])
        self.reader = LogReader(self.newest, lambda: self.end)

    def write(self, lines):
        data = b"".join(lines)
        self.newest.write_bytes(data)
        self.end = End(number_of(lines[0]), len(data), number_of(lines[-1]))


def forward(reader, place):
    lines, lost = [], 0
    while True:
        block = reader.forward(place)
        lines += block.lines
        lost += block.lost
        if block.place == place:
            return lines, lost
        place = block.place


def backward(reader, place):
    lines = []
    while True:
        block = reader.backward(place)
        if block.place == place:
            return lines
        lines[:0] = block.lines
        place = block.place


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_from_any_record_on_all_that_follow_are_read_and_all_before(files):
    for n in range(len(LINES) + 1):
        place = files.reader.after(n)
        assert forward(files.reader, place) == (LINES[n:], 0)
        assert backward(files.reader, place) == LINES[:n]


def test_beyond_the_end_is_the_end(files):
    assert forward(files.reader, files.reader.after(99)) == ([], 0)
    assert backward(files.reader, files.reader.after(99)) == LINES


def test_what_was_written_but_does_not_count_yet_is_not_read(files):
    whole = files.newest.read_bytes()
    files.newest.write_bytes(whole + LINES[-1] + b'{"n":')
    for n in (10, 17, 19):
        assert forward(files.reader, files.reader.after(n)) == (LINES[n:], 0)


def test_a_reader_goes_on_where_it_was_after_a_rotation(files):
    place = files.reader.after(17)
    newest = files.newest.read_bytes()
    maker = small_log()
    maker.rotate()
    maker.alarms(2)
    (files.newest.parent / older_name(14)).write_bytes(newest)
    files.write(maker.segments[-1])
    lines, lost = forward(files.reader, place)
    assert lost == 0
    assert [number_of(line) for line in lines] == [18, 19, 20, 21, 22, 23]


def test_what_was_dropped_is_counted_as_lost(files):
    (files.newest.parent / older_name(1)).unlink()
    assert forward(files.reader, Place(1, 40, 3)) == (LINES[8:], 5)
    assert forward(files.reader, files.reader.after(3)) == (LINES[8:], 5)
    (files.newest.parent / older_name(9)).unlink()
    assert forward(files.reader, Place(9, 0, 8)) == (LINES[13:], 5)
    assert backward(files.reader, files.reader.after(19)) == LINES[13:]
    assert backward(files.reader, Place(9, 50, 10)) == []


def test_lines_longer_than_a_block_are_read_whole(tmp_path):
    maker = small_log()
    maker.add(events.Alarm(1.0, "x", "y" * BLOCK * 3))
    maker.alarms(2)
    maker.add(events.Alarm(1.0, "x", "y" * BLOCK * 2))
    files = Files(tmp_path, maker.segments)
    assert forward(files.reader, files.reader.after(19))[0] == maker.segments[-1][6:]
    assert backward(files.reader, files.reader.after(23))[-10:] == maker.segments[-1]


@given(st.integers(0, 2000), st.integers(1, 300))
def test_many_records_are_found_by_their_number(tmp_path_factory, n, length):
    maker = small_log()
    for number in range(300):
        maker.add(events.Alarm(1.0, "x" * ((number * length) % 397), "y"))
    path = tmp_path_factory.mktemp("log")
    files = Files(path, maker.segments)
    lines = [line for segment in maker.segments for line in segment]
    n %= len(lines)
    place = files.reader.after(n)
    assert files.reader.forward(place).lines[0] == lines[n]
    for file in path.iterdir():
        file.unlink()


UUID = "00000000-0000-4000-8000-000000000003"
PATH = "/broker/v1/decision/7/vif/3/0"
TEXT = f"deny seq=1 id=x fe=3 be=7 class=vif dev=0 uuid={UUID} nonce=-"
RECORDS = {
    "decided": events.Decided(1.0, PATH, TEXT, "x"),
    "vanished": events.Vanished(1.0, PATH, removed=True),
    "reported": events.Reported(1.0, "vif/3/0 -> 7", "open"),
    "admitted": events.Admitted(1.0, 3, UUID, "a"),
    "label_set": events.LabelSet(1.0, "uuid", UUID, "a", "corp", "anna", "operator"),
    "named": events.LabelSet(1.0, "name", "web1", "a", "corp", "bert"),
    "alarm": events.Alarm(1.0, "audit log", "vif/3/0"),
    "other": events.Admitted(1.0, 33, None, None),
}


def chosen(**query):
    maker = small_log()
    lines = [maker.add(event) for event in RECORDS.values()]
    found = {line: framed for framed, line in select(lines, Query(**query)).records}
    return {name for name, line in zip(RECORDS, lines, strict=True) if line in found}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, set(RECORDS)),
        ({"events": frozenset(["alarm"])}, {"alarm"}),
        ({"verdict": "deny"}, {"decided"}),
        ({"verdict": "grant"}, set()),
        ({"subject": "an"}, {"label_set"}),
        ({"subject": "anna", "events": frozenset(["alarm"])}, set()),
        ({"domids": frozenset([3])}, {"decided", "vanished", "reported", "admitted"}),
        ({"domids": frozenset([7])}, {"decided", "vanished", "reported"}),
        ({"names": frozenset([UUID])}, {"decided", "admitted", "label_set"}),
        ({"names": frozenset(["web1"])}, {"named"}),
        ({"domids": frozenset([3]), "verdict": "deny"}, {"decided"}),
        ({"domids": frozenset([5])}, set()),
    ],
)
def test_what_is_left_out_of_a_query_matches_all_and_what_is_in_it_narrows(query, names):
    assert chosen(**query) == names


def test_what_was_selected_is_the_line_as_it_is():
    framed, line = select(LINES[:1], Query()).records[0]
    assert line == LINES[0]
    assert framed == unframe(line)


def test_lines_that_are_no_records_are_counted_and_passed_over(tmp_path):
    lines = [LINES[0], b"garbage\n", LINES[1].replace(b'"t":', b"t:"), LINES[2]]
    selected = select(lines, Query(subject="path"))
    assert selected.unread == 2
    assert [line for _, line in selected.records] == [LINES[2]]
    segments = [list(lines) for lines in LOG.segments]
    for at in (0, 1, -1):
        segments[1][at] = b"garbage\n"
    files = Files(tmp_path, [segments[0], [LINES[8]], segments[2]])
    (tmp_path / older_name(9)).write_bytes(b"".join(segments[1]))
    whole = [line for part in segments for line in part]
    assert forward(files.reader, files.reader.after(0)) == (whole, 0)
    assert backward(files.reader, files.reader.after(19)) == whole
    assert forward(files.reader, files.reader.after(11))[0][-7:] == whole[-7:]
