"""When the agent's watchdog is fed: while the store answers and gates are looked at, else not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import pytest_twisted
from agent_host import COMMAND, config
from bed import Bed, start_agent, until
from support.xenstoreds import start_store
from twisted.internet import defer
from twisted.internet.task import Clock

from broker.agent.watchdog import Watchdog
from broker.systemd.notify import Notifier
from broker.xenstore.errors import StoreError

VIF = "vif/0"


@pytest.fixture
def manager():
    """A service manager's socket."""
    with (
        tempfile.TemporaryDirectory(prefix="xs-", dir="/tmp") as place,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
    ):
        heard.bind(f"{place}/n")
        heard.settimeout(30)
        yield heard


def told(manager):
    """What it was told up to now."""
    manager.setblocking(False)
    found = []
    try:
        while True:
            found.append(manager.recv(200).decode())
    except BlockingIOError:
        return found


class Session:
    """An agent that `answers` as it is set."""

    def __init__(self):
        self.answers = defer.succeed(True)
        self.heard = 7

    async def works(self):
        return await self.answers

    def states(self):
        return ["open", "closed", "open"]

    def beat(self):
        return self.heard


@pytest.fixture
def watched(manager):
    session, clock = Session(), Clock()
    dog = Watchdog(session, Notifier({"NOTIFY_SOCKET": manager.getsockname()}), clock)
    dog.start()
    yield session, clock
    dog.stop()


def test_it_is_fed_every_few_seconds_and_the_manager_told_how_the_gates_are(watched, manager):
    session, clock = watched
    assert told(manager) == ["STATUS=hears the broker; gates: 1 closed, 2 open", "WATCHDOG=1"]
    session.answers, session.heard = defer.succeed(True), None
    clock.advance(5)
    assert told(manager) == ["STATUS=hears no broker; gates: 1 closed, 2 open", "WATCHDOG=1"]


def test_it_is_not_fed_for_an_agent_that_does_not_work_and_again_for_one_that_does(
    watched, manager
):
    session, clock = watched
    told(manager)
    session.answers = defer.succeed(False)
    clock.advance(5)
    assert told(manager) == []
    session.answers = defer.succeed(True)
    clock.advance(5)
    assert told(manager) == ["WATCHDOG=1"]


def test_it_is_not_fed_while_the_store_owes_an_answer(watched, manager):
    session, clock = watched
    told(manager)
    session.answers = owed = defer.Deferred()
    clock.pump([5] * 20)
    assert told(manager) == []
    owed.callback(True)
    assert told(manager) == ["WATCHDOG=1"]


def test_where_no_manager_listens_nobody_looks():
    clock = Clock()
    Watchdog(Session(), Notifier({}), clock).start()
    assert clock.getDelayedCalls() == []


@pytest_twisted.async_yield_fixture
async def bed():
    daemon = start_store("C")
    made = Bed(daemon)
    made.start_beating()
    yield made
    made.close()
    daemon.stop()


@pytest_twisted.async_yield_fixture
async def agent(bed, tmp_path):
    running = start_agent(bed.daemon.address, tmp_path)
    await until(lambda: running._was_fresh, "a fresh heartbeat")
    yield running
    await running.stop()


async def rest(agent):
    """Until the agent works with nothing left to look at."""
    while not (await agent.works() and not agent._busy):
        await until(lambda: agent._ready and not agent._busy, "an agent at rest")


@pytest_twisted.ensureDeferred
async def test_an_agent_at_rest_works(agent):
    await rest(agent)
    assert await agent.works()


@pytest_twisted.ensureDeferred
async def test_an_agent_without_its_store_does_not_work(agent, bed):
    await rest(agent)
    bed.daemon.kill()
    await until(lambda: not agent._ready, "the store lost")
    assert not await agent.works()


@pytest_twisted.ensureDeferred
async def test_an_agent_whose_pass_stands_still_does_not_work_until_it_goes_on(
    agent, bed, monkeypatch
):
    await rest(agent)
    held = defer.Deferred()
    real = agent._enforcer._dirs.look

    async def look(slots):
        await held
        return await real(slots)

    monkeypatch.setattr(agent._enforcer._dirs, "look", look)
    bed.attach(VIF)
    await until(lambda: agent._busy, "a pass")
    await agent.works()  # what was looked at before counts once
    assert not await agent.works()
    held.callback(None)
    await bed.nonce(VIF)
    await rest(agent)
    assert await agent.works()


@pytest_twisted.ensureDeferred
async def test_an_agent_whose_pass_takes_its_time_but_comes_to_gates_works(agent, bed, monkeypatch):
    await rest(agent)
    held = defer.Deferred()

    async def conclude(cases):
        await held

    monkeypatch.setattr(agent._enforcer, "_conclude", conclude)
    bed.attach(VIF)
    await bed.nonce(VIF)
    await until(lambda: agent._busy, "a pass")
    assert await agent.works(), "it came to this gate"
    assert not await agent.works(), "and no further"
    held.callback(None)


@pytest.mark.parametrize("error", [StoreError("refused"), ValueError("unforeseen")])
@pytest_twisted.ensureDeferred
async def test_an_agent_whose_last_pass_failed_does_not_work_until_one_succeeds(
    error, agent, bed, monkeypatch
):
    await rest(agent)

    async def look(slots):
        raise error

    monkeypatch.setattr(agent._enforcer._dirs, "look", look)
    bed.attach(VIF)
    await until(lambda: agent._pass_failed, "a pass that failed")
    assert not await agent.works()
    monkeypatch.undo()
    await bed.nonce(VIF)
    await rest(agent)
    assert await agent.works()


def test_the_program_says_that_it_is_ready_and_feeds_its_watchdog(tmp_path, manager):
    daemon = start_store("C")
    made = config(tmp_path, store=daemon.address, gates="simulated")
    environ = {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}
    with Path(tmp_path / "log").open("wb") as log:
        program = subprocess.Popen([COMMAND, "--config", str(made)], env=environ, stderr=log)
    try:
        heard = [manager.recv(200).decode() for _ in range(3)]
        assert sorted(heard) == [
            "READY=1", "STATUS=hears no broker; gates: none", "WATCHDOG=1"
        ]  # fmt: skip
    finally:
        program.send_signal(signal.SIGTERM)
        assert program.wait(30) == 0
        daemon.stop()
    assert told(manager)[-1] == "STOPPING=1"
