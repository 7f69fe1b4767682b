"""The session: connects, tells of loss, connects again, from nothing each time."""

from __future__ import annotations

import pytest_twisted
from twisted.internet import defer, reactor, task
from twisted.internet.threads import deferToThread

from broker.xenstore.errors import NotFoundError
from broker.xenstore.session import StoreSession


class Told:
    """What a session told its user, and a way to wait for it."""

    def __init__(self):
        self.calls = []
        self.prepare = None

    async def on_connect(self, connection):
        self.calls.append("connect")
        if self.prepare is not None:
            await self.prepare(connection)
        self.calls.append("ready")

    def on_event(self, path, token):
        self.calls.append((path, token))

    def on_disconnect(self, reason):
        self.calls.append(("disconnect", str(reason.value)))

    def count(self, word):
        return sum(it == word or (isinstance(it, tuple) and it[0] == word) for it in self.calls)

    async def until(self, condition):
        for _ in range(5000):
            if condition():
                return
            await task.deferLater(reactor, 0.002)
        raise AssertionError(f"did not come about: {self.calls}")


def session_of(address, told):
    return StoreSession(
        address,
        reactor,
        on_connect=told.on_connect,
        on_event=told.on_event,
        on_disconnect=told.on_disconnect,
        first_delay=0.01,
        longest_delay=0.05,
    )


@pytest_twisted.ensureDeferred
async def test_a_session_takes_up_a_store_that_was_killed_and_is_empty(store_daemon):
    told = Told()

    async def prepare(connection):
        await connection.watch("/test", "t")

    told.prepare = prepare
    session = session_of(store_daemon.address, told)
    session.startService()
    await told.until(lambda: told.count("ready") == 1)
    await session.connection.write("/test/x", b"1")
    await told.until(lambda: ("/test/x", "t") in told.calls)
    outstanding = session.connection.read_many(["/test/x"] * 2000)
    failed = []
    outstanding.addErrback(lambda failure: failed.append(failure.value))
    await deferToThread(store_daemon.restart_empty)
    await told.until(lambda: told.count("ready") == 2)
    assert told.count("disconnect") == 1
    assert outstanding.called
    try:
        await session.connection.read("/test/x")
    except NotFoundError:
        pass
    else:
        raise AssertionError("the store was not empty")
    await session.connection.write("/test/y", b"1")
    await told.until(lambda: ("/test/y", "t") in told.calls)
    await session.stopService()
    assert session.connection is None
    assert told.count("disconnect") == 1


@pytest_twisted.ensureDeferred
async def test_a_session_waits_for_a_store_that_is_not_there_yet(tmp_path):
    told = Told()
    session = session_of(f"unix:{tmp_path}/none", told)
    session.startService()
    await task.deferLater(reactor, 0.05)
    assert told.calls == []
    await session.stopService()


@pytest_twisted.ensureDeferred
async def test_a_connection_that_cannot_be_taken_up_is_made_anew(store_daemon):
    told = Told()
    attempts = []

    async def prepare(connection):
        attempts.append(connection)
        if len(attempts) < 3:
            raise ValueError("not yet")

    told.prepare = prepare
    session = session_of(store_daemon.address, told)
    session.startService()
    await told.until(lambda: told.count("ready") == 1)
    assert len(attempts) == 3
    assert told.count("connect") == 3
    assert told.count("disconnect") == 2
    await session.stopService()


@pytest_twisted.ensureDeferred
async def test_taking_up_a_store_that_goes_away_meanwhile_is_cut_short(store_daemon):
    told = Told()
    never = []

    async def prepare(connection):
        if not never:
            never.append(defer.Deferred())
            await never[0]

    told.prepare = prepare
    session = session_of(store_daemon.address, told)
    session.startService()
    await told.until(lambda: never)
    session.connection.close()
    await told.until(lambda: told.count("ready") == 1)
    assert told.count("disconnect") == 1
    await session.stopService()


@pytest_twisted.ensureDeferred
async def test_a_session_works_from_a_guest(store_daemon):
    told = Told()
    guest = await deferToThread(store_daemon.guest, 7)

    async def prepare(connection):
        await connection.watch("data", "t")

    told.prepare = prepare
    session = session_of(guest.address, told)
    session.startService()
    await told.until(lambda: told.count("ready") == 1)
    await session.connection.write("data", b"1")
    await told.until(lambda: told.count("data") == 2)
    assert await session.connection.get_perms("data") == ("n7",)
    await session.stopService()


@pytest_twisted.ensureDeferred
async def test_a_connection_whose_events_cannot_be_handled_is_made_anew(store_daemon):
    told = Told()

    faults = iter([True])

    def on_event(path, token):
        if told.count("ready") == 1 and next(faults, False):
            raise ValueError("a fault in the service")

    async def prepare(connection):
        await connection.watch("/test", "t")
        await connection.get_domain_path(0)

    told.prepare = prepare
    told.on_event = on_event
    session = session_of(store_daemon.address, told)
    session.startService()
    await told.until(lambda: told.count("ready") == 1)
    session.connection.mkdir("/test").addErrback(lambda _: None)
    await told.until(lambda: told.count("ready") == 2)
    assert told.count("disconnect") == 1
    await session.stopService()


@pytest_twisted.ensureDeferred
async def test_preparing_that_fails_at_once_is_tried_again(store_daemon):
    told = Told()
    connect = told.on_connect

    def on_connect(connection):
        if not told.count("connect"):
            told.calls.append("connect")
            raise ValueError("not even a coroutine")
        return connect(connection)

    told.on_connect = on_connect
    session = session_of(store_daemon.address, told)
    session.startService()
    await told.until(lambda: told.count("ready") == 1)
    await session.stopService()


def test_the_time_between_attempts_doubles_up_to_a_limit_and_varies():
    clock = task.Clock()
    told = Told()
    session = StoreSession(
        "xenbus:/nonexistent/device", clock,
        on_connect=told.on_connect, on_event=told.on_event, on_disconnect=told.on_disconnect,
        first_delay=0.1, longest_delay=2.0,
    )  # fmt: skip
    session.startService()
    delays = []
    for _ in range(40):
        (call,) = clock.getDelayedCalls()
        delays.append(call.getTime() - clock.seconds())
        clock.advance(delays[-1])
    limits = [min(0.1 * 2**number, 2.0) for number in range(40)]
    assert all(
        limit / 2 - 1e-6 <= delay <= limit + 1e-6
        for limit, delay in zip(limits, delays, strict=True)
    )
    assert len({round(delay, 9) for delay in delays[-20:]}) > 10
    assert told.calls == []
    session.stopService()
    assert clock.getDelayedCalls() == []
