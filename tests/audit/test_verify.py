"""Every edit, cut, insertion and reorder of an audit log is found, and where it is."""

from __future__ import annotations

import io

import pytest
from audit_logs import OTHER_KEY, PUBLIC, Maker, small_log, sources
from hypothesis import example, given
from hypothesis import strategies as st

from broker.audit.chain import Head, unframe
from broker.audit.verify import MOST_PROBLEMS, Anchor, Source, verify
from broker.service.events import Alarm

LOG = small_log()
LINES = [line for lines in LOG.segments for line in lines]
ANCHOR = Anchor("anchors:1", unframe(LINES[-1]))


def checked(segments, anchors=()):
    return verify(sources(segments), PUBLIC, anchors)


def places(report):
    return [(problem.file, problem.line) for problem in report.problems]


def told(report):
    return "\n".join(f"{it.file}:{it.line}: {it.message}" for it in report.problems)


def with_lines(change):
    """The log's second segment changed by `change(lines)`."""
    segments = [list(lines) for lines in LOG.segments]
    segments[1] = change(segments[1])
    return verify(
        [
            Source("a", 1, segments[0]),
            Source("b", 9, segments[1]),
            Source("c", None, segments[2]),
        ],
        PUBLIC,
    )


def test_a_log_that_is_whole_is_good():
    report = checked(LOG.segments, [ANCHOR])
    assert report.good, told(report)
    assert (report.first, report.last, report.files) == (1, 19, 3)
    assert (report.checkpoints, report.unsigned, report.anchors) == (4, 0, 1)


def test_a_log_whose_oldest_segments_were_dropped_is_good_and_says_where_it_begins():
    report = verify(LOG.sources()[1:], PUBLIC)
    assert report.good, told(report)
    assert (report.first, report.last) == (9, 19)


def test_records_that_no_checkpoint_covers_yet_are_counted():
    maker = small_log()
    maker.alarms(2)
    report = verify(maker.sources(), PUBLIC)
    assert report.good
    assert report.unsigned == 2
    maker = Maker()
    maker.alarms(3)
    assert verify(maker.sources(), PUBLIC).unsigned == 3


def test_an_edited_line_is_named():
    report = with_lines(lambda ls: [*ls[:2], ls[2].replace(b"number", b"xumber"), *ls[3:]])
    assert places(report) == [("b", 3)]
    assert "record 11 was changed" in told(report)


def test_an_edited_hash_is_named_once():
    report = with_lines(lambda ls: [*ls[:2], ls[2][:-4] + b'0"}\n', *ls[3:]])
    assert places(report) == [("b", 3)]


def test_an_edit_that_leaves_no_line_is_named_once():
    report = with_lines(lambda ls: [*ls[:2], b"x" + ls[2], *ls[3:]])
    assert places(report) == [("b", 3)]
    assert "not a record" in told(report)


def test_a_missing_line_is_named_where_it_was():
    report = with_lines(lambda ls: ls[:2] + ls[3:])
    assert places(report) == [("b", 3)]
    assert "record 11 is missing before record 12" in told(report)


def test_missing_lines_at_a_segments_end_are_named_where_the_log_goes_on():
    report = with_lines(lambda ls: ls[:2])
    assert places(report) == [("c", 1)]
    assert "records 11 to 13 are missing" in told(report)


def test_a_repeated_line_is_named():
    report = with_lines(lambda ls: [*ls[:3], ls[1], *ls[3:]])
    assert places(report) == [("b", 4)]
    assert "repeated, inserted or moved" in told(report)


def test_two_lines_that_changed_places_are_named():
    report = with_lines(lambda ls: [ls[0], ls[1], ls[3], ls[2], ls[4]])
    assert ("b", 3) in places(report)
    assert ("b", 4) in places(report)
    assert {file for file, _ in places(report)} == {"b"}


def test_inserted_lines_are_named():
    report = with_lines(lambda ls: [*ls[:3], b"\n", b"{}\n", *ls[3:]])
    assert places(report) == [("b", 4), ("b", 5)]


def test_a_missing_segment_is_named():
    report = verify([LOG.sources()[0], LOG.sources()[2]], PUBLIC)
    assert "records 9 to 13 are missing before record 14" in told(report)


def test_a_segment_under_another_ones_name_is_named():
    named = LOG.sources()
    report = verify([Source("a", 2, named[0].lines), *named[1:]], PUBLIC)
    assert "not 2 as the name says" in told(report)


def test_a_log_that_begins_amid_a_segment_was_cut():
    report = checked([LINES[2:]])
    assert "records before this one were cut off" in told(report)


def test_a_segment_begins_with_two_lines_of_its_own_and_those_stand_nowhere_else():
    maker = small_log()
    maker.segments = [[*maker.segments[0], *maker.segments[1]], maker.segments[2]]
    assert "amid one" in told(verify(maker.sources(), PUBLIC))
    unsigned = small_log()
    del unsigned.segments[1][1]
    assert "has to be a checkpoint" in told(verify(unsigned.sources(), PUBLIC))


@pytest.mark.parametrize("segments", [[[]], [[], []], [[b"garbage\n"]]])
def test_an_empty_log_is_not_good(segments):
    report = checked(segments)
    assert "no record is here" in told(report)


def test_a_log_chained_anew_is_found_at_its_first_checkpoint():
    forged = Maker(key=OTHER_KEY)
    forged.alarms(5)
    forged.checkpoint()
    report = verify(forged.sources(), PUBLIC)
    assert places(report) == [("audit", 6)]
    assert "not signed by the broker's key" in told(report)
    assert verify(forged.sources(), [*PUBLIC, OTHER_KEY.public_key()]).good


def test_a_checkpoint_that_was_moved_into_a_forged_log_is_found():
    forged = Maker()
    forged.alarms(5)
    forged.segments[-1].append(LINES[5])
    assert not verify(forged.sources(), PUBLIC).good


def test_a_log_cut_and_chained_on_is_found_with_an_anchor_alone():
    forged = Maker()
    forged.alarms(30)
    assert verify(forged.sources(), PUBLIC).good
    report = verify(forged.sources(), PUBLIC, [ANCHOR])
    assert "not the one that anchors:1 saw" in told(report)
    assert places(report) == [("audit", 19)]


@pytest.mark.parametrize("cut", range(1, 5))
def test_an_end_cut_off_is_found_with_an_anchor(cut):
    segments = [*LOG.segments[:2], LOG.segments[2][:-cut]]
    report = checked(segments, [ANCHOR])
    assert "its end was cut off" in told(report)
    assert report.problems[-1].file == "audit"


def test_an_anchor_from_before_the_oldest_segment_kept_is_told():
    early = Anchor("anchors:1", unframe(LINES[5]))
    report = verify(LOG.sources()[1:], PUBLIC, [early, ANCHOR])
    assert report.good
    assert (report.too_old, report.anchors) == (["anchors:1"], 1)


def test_problems_are_bounded():
    report = checked([[b"x\n"] * (MOST_PROBLEMS + 50)])
    assert len(report.problems) == MOST_PROBLEMS
    assert report.more == 51


def mutations():
    size = sum(map(len, LINES))
    count = len(LINES)
    at = st.integers(0, size - 1)
    line = st.integers(0, count - 1)
    return st.one_of(
        st.tuples(st.just("byte"), at, st.integers(1, 255)),
        st.tuples(st.just("insert"), at, st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("cut"), at, st.integers(1, 2000)),
        st.tuples(st.just("drop"), line, st.just(0)),
        st.tuples(st.just("double"), line, line),
        st.tuples(st.just("swap"), line, line),
    )


def mutate(data, mutation):
    """The whole log's bytes after one change."""
    what, at, value = mutation
    lines = list(io.BytesIO(data))
    if what == "byte":
        return data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
    if what == "insert":
        return data[:at] + value + data[at:]
    if what == "cut":
        return data[:at] + data[at + value :]
    if what == "drop":
        del lines[at]
    elif what == "double":
        lines.insert(value, lines[at])
    else:
        lines[at], lines[value] = lines[value], lines[at]
    return b"".join(lines)


@given(mutations())
@example(("drop", len(LINES) - 1, 0))
@example(("cut", 0, 2000))
def test_any_single_change_of_a_log_is_found(mutation):
    maker = Maker()
    maker.add(Alarm(1.0, "a", "b"))
    maker.alarms(7)
    maker.checkpoint()
    maker.alarms(7)
    maker.checkpoint()
    data = b"".join(maker.segments[0])
    anchor = Anchor("x:1", unframe(maker.segments[0][-1]))
    mutation = (mutation[0], mutation[1] % len(data), mutation[2])
    if mutation[0] in ("drop", "double", "swap"):
        places = [part % len(maker.segments[0]) for part in mutation[1:]]
        mutation = (mutation[0], *places)
    changed = mutate(data, mutation)
    report = checked([list(io.BytesIO(changed))], [anchor])
    assert report.good == (changed == data), told(report)
    without = checked([list(io.BytesIO(changed))])
    # Without an anchor an end that was cut off, line by line, is the only thing not found.
    assert without.good == data.startswith(changed) * changed.endswith(b"\n")


def test_a_head_goes_on_from_where_it_says():
    maker = Maker(Head(41, b"c" * 64))
    maker.alarms(1)
    assert unframe(maker.segments[0][0]).n == 42
