"""When refused packets are reported: not more often than every few seconds, and only news."""

from __future__ import annotations

import pytest
from reported import Connection, Reported

from broker.agent.drop_reports import DropReports
from broker.core.drops import Drop, parse_drops
from broker.xenstore.errors import ConnectionLostError, DeniedError


class DropsReported(Reported):
    def __init__(self):
        super().__init__()
        self.drops = [Drop("web", "bank", 1, 60)]
        self.reports = DropReports(4, self.clock, self.connected, lambda: list(self.drops))
        self.reports.start(now=False)


@pytest.fixture
def it():
    made = DropsReported()
    yield made
    made.reports.stop()


def test_only_news_is_told_and_not_more_often_than_every_five_seconds(it):
    it.clock.pump([1.0] * 4)
    assert it.connection.written == []
    it.clock.pump([1.0] * 20)
    ((path, value),) = it.connection.written
    assert path == "/broker/v1/report/4/drops"
    assert parse_drops(value).drops == tuple(it.drops)
    for n in range(2, 30):
        it.drops = [Drop("web", "bank", n, 60 * n)]
        it.clock.advance(0.5)
    assert len(it.connection.written) <= 4


def test_nothing_refused_is_nothing_to_tell(it):
    it.drops = []
    it.clock.pump([5.0] * 3)
    assert it.connection.written == []


def test_another_connection_is_told_anew(it):
    it.clock.advance(5)
    it.connection = None
    it.clock.pump([5.0] * 2)
    it.connection = Connection()
    it.clock.advance(5)
    assert len(it.connection.written) == 1


@pytest.mark.parametrize("error", [DeniedError("no node yet"), ConnectionLostError("gone")])
def test_what_was_refused_is_tried_again(it, error):
    it.connection.fails = error
    it.clock.advance(5)
    it.connection.fails = None
    it.clock.advance(5)
    assert len(it.connection.written) == 1


def test_after_its_end_nothing_is_told(it):
    it.reports.stop()
    it.clock.pump([5.0] * 3)
    assert it.connection.written == []
