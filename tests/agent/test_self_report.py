"""An agent says that it lives: soon after it is connected, then every few seconds."""

from __future__ import annotations

import pytest
from reported import Connection, Reported

from broker.agent.self_report import SelfReports
from broker.core.agent_report import PERIOD, parse_agent_report
from broker.xenstore.errors import ConnectionLostError, DeniedError


class SelfReported(Reported):
    def __init__(self):
        super().__init__()
        self.states, self.heard, self.policy = ["open", "closed", "open", "failed"], True, None
        self.reports = SelfReports(
            4,
            self.clock,
            self.connected,
            states=lambda: self.states,
            beat=lambda: self.heard,
            policy=lambda: self.policy,
        )
        self.reports.start()


@pytest.fixture
def it():
    made = SelfReported()
    yield made
    made.reports.stop()


def test_it_says_how_its_gates_are(it):
    ((path, value),) = it.connection.written
    report = parse_agent_report(value)
    assert path == "/broker/v1/report/4/agent"
    assert (report.open, report.closed, report.failed) == (2, 1, 1)
    assert (report.beat, report.policy) == (True, None)
    it.heard, it.policy = False, "missing"
    it.clock.advance(PERIOD)
    report = parse_agent_report(it.connection.written[-1][1])
    assert (report.beat, report.policy) == (False, "missing")


def test_it_says_so_every_few_seconds_and_no_more_once_stopped(it):
    it.clock.pump([1.0] * int(3 * PERIOD))
    assert len(it.connection.written) == 4
    it.reports.stop()
    it.clock.pump([1.0] * int(3 * PERIOD))
    assert len(it.connection.written) == 4


def test_another_connection_is_told_at_once(it):
    it.connection = None
    it.clock.advance(1)
    it.connection = Connection()
    it.clock.advance(1)
    assert len(it.connection.written) == 1


@pytest.mark.parametrize("error", [DeniedError("no node yet"), ConnectionLostError("gone")])
def test_what_could_not_be_told_is_told_later(error):
    it = SelfReported()
    it.reports.stop()
    it.connection = Connection()
    it.connection.fails = error
    it.reports.start()
    assert it.connection.written == []
    it.connection.fails = None
    it.clock.advance(1)
    assert len(it.connection.written) == 1
    it.reports.stop()
