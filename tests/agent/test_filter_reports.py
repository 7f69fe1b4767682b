"""When filter profiles' counts and learned addresses are reported: only news, every ten seconds."""

from __future__ import annotations

import pytest
from reported import Connection, Reported

from broker.agent.filter_reports import FilterReports
from broker.core.filter_report import Lease, RuleCount, parse_filter_report
from broker.xenstore.errors import ConnectionLostError, DeniedError

LEASE = Lease(3, "0", "10.0.0.5", 120)


class FiltersReported(Reported):
    def __init__(self):
        super().__init__()
        self.counts, self.leases = [RuleCount("a/1", 1, 60)], [LEASE]
        self.reports = FilterReports(
            4, self.clock, self.connected, lambda: (list(self.counts), list(self.leases))
        )
        self.reports.start(now=False)


@pytest.fixture
def it():
    made = FiltersReported()
    yield made
    made.reports.stop()


def test_only_news_is_told_and_not_more_often_than_every_ten_seconds(it):
    it.clock.pump([1.0] * 9)
    assert it.connection.written == []
    it.clock.pump([1.0] * 40)
    ((path, value),) = it.connection.written
    assert path == "/broker/v1/report/4/filters"
    assert parse_filter_report(value).leases == (LEASE,)
    for n in range(2, 42):
        it.counts = [RuleCount("a/1", n, 60 * n)]
        it.clock.advance(0.5)
    assert len(it.connection.written) <= 4


def test_where_nothing_is_filtered_nothing_is_told_until_something_was(it):
    it.counts, it.leases = [], []
    it.clock.pump([10.0] * 3)
    assert it.connection.written == []
    it.leases = [LEASE]
    it.clock.advance(10)
    it.leases = []
    it.clock.pump([10.0] * 3)
    assert [value for _, value in it.connection.written][1:] == [b"at=50 omitted=0/0"]


@pytest.mark.parametrize("error", [DeniedError("no node yet"), ConnectionLostError("gone")])
def test_what_could_not_be_told_is_tried_again_and_another_store_is_told_anew(it, error):
    it.connection.fails = error
    it.clock.advance(10)
    it.connection.fails = None
    it.clock.advance(10)
    assert len(it.connection.written) == 1
    it.connection = Connection()
    it.clock.advance(10)
    assert len(it.connection.written) == 1
