"""What an agent reports of filter profiles: one bounded line, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.filter_report import (
    FilterReport,
    Lease,
    RuleCount,
    encode_filter_report,
    parse_filter_report,
)
from broker.core.record import MAX_SIGNED_BYTES, RecordError

RULES = st.builds(
    RuleCount,
    st.from_regex(r"[a-z][a-z0-9-]{0,47}/([0-9]{1,4}|default)", fullmatch=True),
    st.integers(0, 2**64),
    st.integers(0, 2**64),
)
LEASES = st.builds(
    Lease,
    st.integers(0, 32_767),
    st.integers(0, 99).map(str),
    st.ip_addresses(v=4).map(str),
    st.integers(0, 10**11 - 1),
)


@given(st.integers(0, 10**10), st.lists(RULES, max_size=90), st.lists(LEASES, max_size=90))
def test_what_was_written_is_read_as_far_as_it_fits_and_the_rest_is_counted(at, rules, leases):
    text = encode_filter_report(at, rules, leases)
    assert len(text) <= MAX_SIGNED_BYTES
    report = parse_filter_report(text.encode("ascii"))
    assert report.at == at
    assert len(report.counts) + report.omitted_counts == len(rules)
    assert len(report.leases) + report.omitted_leases == len(leases)
    assert set(report.leases) <= set(leases)
    if sum(len(it.rule) + 42 for it in rules) < MAX_SIGNED_BYTES // 2 - 60:
        assert len(report.counts) == len(rules)


def test_the_largest_counts_come_first():
    rules = [RuleCount("a/1", 1, 9), RuleCount("b/default", 7, 70), RuleCount("c/2", 7, 80)]
    leases = [Lease(4, "0", "10.0.0.4", 60), Lease(3, "0", "10.0.0.3", 120)]
    assert encode_filter_report(5, rules, leases) == (
        "at=5 omitted=0/0 c/2=7/80 b/default=7/70 a/1=1/9 vif3.0=10.0.0.3/120 vif4.0=10.0.0.4/60"
    )
    assert parse_filter_report(b"at=5 omitted=2/1") == FilterReport(5, (), (), 2, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"at=5",
        b"at=5 omitted=0",
        b"at=05 omitted=0/0",
        b"at=99999999999999 omitted=0/0",
        b"at=5 omitted=0/0 ",
        b"at=5 omitted=0/0 a/1=1",
        b"at=5 omitted=0/0 A/1=1/1",
        b"at=5 omitted=0/0 a/x=1/1",
        b"at=5 omitted=0/0 a/1=01/1",
        b"at=5 omitted=0/0 vif3.0=10.0.0.256/60",
        b"at=5 omitted=0/0 vif3.0=1.2.3.4.5/60",
        b"at=5 omitted=0/0 vif03.0=10.0.0.5/60",
        b"at=5 omitted=0/0 vif3.0=10.0.0.5/999999999999",
        b"at=5 omitted=0/0 a/1=1/1\n",
        b"at=5 omitted=0/0 \xff",
        b"at=5 omitted=0/0 " + b"a/1=1/1 " * 400,
    ],
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(RecordError):
        parse_filter_report(text)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(text):
    try:
        parse_filter_report(text)
    except RecordError:
        return
