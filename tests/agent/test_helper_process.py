"""The agent's net helper: heard while it runs, started anew when it ends, told of only once."""

from __future__ import annotations

import os

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from broker.agent import net_helper
from broker.agent.net_helper import NetHelper
from broker.net.messages import Alarm
from broker.net.model import NetError


class Client:
    def __init__(self):
        self.ends = os.pipe()
        self.said = []
        self.fails = ""
        self.closed = False

    def fileno(self):
        return self.ends[0]

    def close(self):
        if not self.closed:
            for fd in self.ends:
                os.close(fd)
        self.closed = True

    def check(self):
        if self.fails:
            raise NetError(self.fails)

    def events(self):
        self.check()
        said, self.said = self.said, []
        return said

    def change_link(self, index, **_):
        self.said.append(Alarm(f"link {index}"))


class Process:
    def __init__(self):
        self.waited = False

    def wait(self, _timeout=None):
        self.waited = True
        return 0


class Reactor(Clock):
    def __init__(self):
        super().__init__()
        self.readers = []

    def addReader(self, reader):
        self.readers.append(reader)

    def removeReader(self, reader):
        self.readers.remove(reader)


class Fixture:
    def __init__(self):
        self.reactor = Reactor()
        self.started = []
        self.broken = ""
        self.alarms, self.heard, self.taken, self.back = [], [], [], []
        self.helper = NetHelper(self.reactor)
        self.helper.alarm = self.alarms.append
        self.helper.heard = self.heard.append
        self.helper.took_up = self.taken.append
        self.helper.back = lambda: self.back.append(self.helper.client)

    def spawn(self):
        client, process = Client(), Process()
        client.fails = self.broken
        self.started.append((client, process))
        return client, process

    @property
    def client(self):
        return self.started[-1][0]


@pytest.fixture
def it(monkeypatch):
    made = Fixture()
    monkeypatch.setattr(net_helper, "spawn", made.spawn)
    yield made
    made.helper.stop()


def test_what_it_says_is_passed_on(it):
    it.helper.start()
    assert it.taken == [it.client]
    it.client.said = [Alarm("tables gone")]
    it.reactor.readers[0].doRead()
    assert it.heard == [Alarm("tables gone")]
    it.helper.change_link(7, up=True)
    it.helper.hear()
    assert it.heard[1:] == [Alarm("link 7")]


def test_one_that_ends_is_followed_by_another_at_once(it):
    it.helper.start()
    first, process = it.started[0]
    first.fails = "the net helper has ended"
    it.reactor.readers[0].doRead()
    assert first.closed
    assert process.waited
    with pytest.raises(NetError, match="started again"):
        it.helper.change_link(7, up=False)
    assert "ended; starting the net helper anew" in it.alarms[0]
    it.reactor.advance(0.1)
    assert it.taken == [first, it.client]
    assert it.back == [it.client]
    assert it.alarms[1:] == ["the net helper runs again"]
    assert len(it.reactor.readers) == 1


def test_while_none_can_be_started_that_is_told_once_and_tried_again(it):
    it.helper.start()
    it.broken = "no CAP_NET_ADMIN"
    it.helper.lost(NetError("out of step"))
    it.reactor.pump([0.1] + [1.0] * 5)
    assert len(it.started) == 7
    assert all(client.closed and process.waited for client, process in it.started)
    assert it.reactor.readers == []
    assert sum("no CAP_NET_ADMIN" in text for text in it.alarms) == 1
    it.broken = "out of memory"
    it.reactor.advance(1)
    assert "out of memory" in it.alarms[-1]
    assert it.back == []
    it.broken = ""
    it.reactor.advance(1)
    assert it.back == [it.client]


def test_the_first_that_cannot_be_started_is_an_error(it):
    it.broken = "no CAP_NET_ADMIN"
    with pytest.raises(NetError, match="CAP_NET_ADMIN"):
        it.helper.start()
    assert it.client.closed
    assert it.taken == []
    assert it.reactor.getDelayedCalls() == []


def test_one_that_cannot_put_in_force_what_it_should_is_ended(it):
    def refuse(_client):
        raise NetError("br0 is no bridge")

    it.helper.took_up = refuse
    with pytest.raises(NetError, match="no bridge"):
        it.helper.start()
    assert it.client.closed
    with pytest.raises(NetError, match="started again"):
        it.helper.route_to(7, [], "eth0")


def test_after_its_end_none_is_started(it):
    it.helper.start()
    it.helper.lost(NetError("out of step"))
    it.helper.lost(NetError("out of step"))
    assert len(it.reactor.getDelayedCalls()) == 1
    it.helper.stop()
    assert it.reactor.getDelayedCalls() == []
    it.helper.hear()
    assert len(it.started) == 1


def test_alarms_reach_the_log_where_nobody_else_takes_them(it):
    lines = []

    def observe(event):
        lines.append(formatEvent(event))

    helper = NetHelper(it.reactor)
    globalLogPublisher.addObserver(observe)
    try:
        helper.heard(Alarm("tables\x1b gone"))
        helper.alarm("ended")
    finally:
        globalLogPublisher.removeObserver(observe)
    assert lines == ["net: tables\\x1b gone", "net: ended"]
