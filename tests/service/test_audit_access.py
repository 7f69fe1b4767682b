"""The audit log as administrators read it, beside a journal that is written and rotated."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from audit_box import SMALL, Log
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from broker.audit.chain import unframe
from broker.audit.query import Query
from broker.audit.segments import older_segments
from broker.rpc.errors import RpcError
from broker.rpc.stream import EventStream
from broker.service.audit_access import PAUSE, AuditAccess

run = pytest_twisted.ensureDeferred


class Outlet:
    """A client of a stream."""

    def __init__(self):
        self.text = b""
        self.stream = None
        self.reads = True

    def write(self, data):
        self.text += data
        if not self.reads:
            self.stream.pauseProducing()

    def abort(self):
        pass

    def numbers(self):
        """What it got: the number of each record, or what it lost."""
        found = []
        for event in self.text.decode().split("\n\n"):
            if event.startswith("id: "):
                found.append(int(event.split("\n")[0][4:]))
            elif event.startswith("event: lagged"):
                found.append(event.split("data: ")[1])
        return found


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path / "s", init=True)
    log.access = AuditAccess(log.audit)
    yield log
    log.close()


def follow(log, since=None, query=None):
    outlet, clock = Outlet(), log.audit.clock
    outlet.stream = EventStream(outlet, Clock(), bound=10, keep_alive=15, stall=60)
    stop = log.access.follow(query or Query(), since, outlet.stream)
    outlet.stream.start(stop)
    clock.advance(PAUSE)
    return outlet


def served(log):
    """Let everybody be served who waits."""
    while log.access._call is not None:
        log.audit.clock.advance(PAUSE)


async def page(log, last, before=None, query=None):
    asking = Deferred.fromCoroutine(log.access.page(query or Query(), last, before))
    while not asking.called:
        log.audit.clock.advance(0)
    return await asking


def numbers(page):
    return [record.n for record in page.records]


def test_a_follower_gets_every_record_from_where_it_asks_over_rotations(log):
    log.decide(3)
    outlet = follow(log, since=2)
    log.rotations(2)
    served(log)
    last = log.journal.head.n
    assert outlet.numbers() == list(range(3, last + 1))
    log.label("x")
    served(log)
    assert outlet.numbers()[-1] == last + 1


def test_a_follower_that_says_nothing_gets_what_comes(log):
    log.decide(2)
    outlet = follow(log)
    assert outlet.numbers() == []
    log.label("x")
    served(log)
    assert outlet.numbers() == [4]


def test_a_follower_gets_what_it_asks_for_alone(log):
    outlet = follow(log, query=Query(events=frozenset(["label_set"])))
    log.decide(2)
    log.label("x")
    served(log)
    assert outlet.numbers() == [4]


def test_a_follower_that_does_not_read_holds_nothing_and_misses_nothing_that_is_kept(log):
    outlet = follow(log, since=0)
    outlet.reads = False
    log.decide(3)
    served(log)
    got = len(outlet.numbers())
    log.decide(3)
    served(log)
    assert len(outlet.numbers()) == got
    assert log.access._call is None
    assert len(outlet.stream._kept) <= 10
    outlet.reads = True
    outlet.stream.resumeProducing()
    served(log)
    seen = [it for it in outlet.numbers() if isinstance(it, int)]
    assert seen == list(range(1, 8))


def test_a_follower_too_slow_for_what_is_kept_is_told_what_it_lost(log):
    outlet = follow(log, since=0)
    outlet.stream.pauseProducing()
    log.rotations(SMALL.keep + 2)
    outlet.stream.resumeProducing()
    served(log)
    oldest, last = min(older_segments(log.path)), log.journal.head.n
    first = outlet.numbers()[0]
    assert outlet.numbers() == [first, f'{{"lost":{oldest - 2}}}', *range(oldest, last + 1)]


def test_a_follower_that_left_is_served_no_more(log):
    outlet = follow(log)
    log.label("x")
    outlet.stream.close()
    served(log)
    assert outlet.numbers() == []
    assert not log.audit.readers
    assert log.access._call is None


def test_followers_together_cost_one_block_at_a_time(log):
    outlets = [follow(log, since=0) for _ in range(5)]
    served(log)
    before = sum(len(it.numbers()) for it in outlets)
    log.label("x")
    log.audit.clock.advance(PAUSE)
    assert sum(len(it.numbers()) for it in outlets) == before + 1
    served(log)
    assert [it.numbers() for it in outlets] == [[1, 2]] * 5


def test_nobody_follows_from_a_record_that_is_not_there_yet(log):
    with pytest.raises(RpcError, match="ends with record 1"):
        log.access.follow(Query(), 2, follow(log).stream)


def test_a_log_that_cannot_be_read_alarms_and_is_followed_on_when_it_can(log, monkeypatch):
    outlet = follow(log)
    real = type(log.journal.path).open

    def fail(path, *args, **options):
        if path.name.startswith("audit"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(log.journal.path), "open", fail)
        log.label("x")
        served(log)
    assert outlet.numbers() == []
    log.label("y")
    served(log)
    assert outlet.numbers() == [2, 3, 4]
    assert b"Permission denied" in log.journal.path.read_bytes()


@run
async def test_a_page_has_the_last_that_match_oldest_first(log):
    log.rotations(2)
    log.label("x")
    last = log.journal.head.n
    assert numbers(await page(log, 5)) == list(range(last - 4, last + 1))
    assert numbers(await page(log, 3, before=5)) == [2, 3, 4]
    assert numbers(await page(log, 9, query=Query(events=frozenset(["label_set"])))) == [last]
    assert numbers(await page(log, 9, query=Query(events=frozenset(["nosuch"])))) == []


@run
async def test_pages_one_after_the_other_are_the_whole_log(log):
    log.rotations(3)
    seen, before = [], None
    while True:
        found = await page(log, 7, before)
        seen[:0] = numbers(found)
        if not found.more:
            break
        before = found.oldest
    assert seen == list(range(1, log.journal.head.n + 1))


@run
async def test_a_page_beyond_the_beginning_of_what_is_kept_is_empty(log):
    log.rotations(SMALL.keep + 2)
    oldest = min(older_segments(log.path))
    found = await page(log, 5, before=oldest)
    assert (numbers(found), found.more) == ([], False)


@run
async def test_a_page_looks_through_so_much_at_once_and_says_where_to_go_on(log, monkeypatch):
    monkeypatch.setattr("broker.service.audit_access.LOOKED_THROUGH", 1)
    monkeypatch.setattr("broker.audit.reading.BLOCK", 700)
    log.label("x")
    log.decide(4)
    wanted = Query(events=frozenset(["label_set"]))
    found = await page(log, 1, query=wanted)
    assert numbers(found) == []
    assert found.more
    while found.more and not found.records:
        found = await page(log, 1, before=found.oldest, query=wanted)
    assert numbers(found) == [2]


@run
async def test_a_page_of_a_log_that_cannot_be_read_says_so(log, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(log.journal.path), "open", fail)
    with pytest.raises(RpcError, match="cannot be read"):
        await page(log, 5)


@run
async def test_what_is_no_record_is_passed_over_and_counted(log):
    log.decide(2)
    log.rotations()
    oldest = log.path / "audit-000000000001.jsonl"
    lines = oldest.read_bytes().splitlines(keepends=True)
    oldest.write_bytes(b"".join([*lines[:2], b"x" + lines[2], *lines[3:]]))
    found = await page(log, 999)
    assert found.unread == 1
    assert numbers(found) == [1, 2, *range(4, log.journal.head.n + 1)]
    outlet = follow(log, since=0)
    served(log)
    assert outlet.numbers() == ['{"lost":1}', *numbers(found)]


def test_a_checkpoint_names_who_asked_for_it(log):
    record = log.access.checkpoint("anna", "auditor")
    assert record.event == "checkpoint"
    assert '"subject":"anna","role":"auditor"' in record.line
    assert unframe(record.line.encode() + b"\n").n == record.n == log.journal.head.n


def test_no_checkpoint_is_signed_on_a_full_disk(log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RpcError, match="No space left"):
            log.access.checkpoint("anna", "auditor")
    assert log.audit.broken
    assert log.label("x")
    assert not log.audit.broken
