"""Other enforcers: the example of docs/consuming-decisions.md is run as it stands there."""

from __future__ import annotations

import re
import selectors
import subprocess
import sys
import time
from pathlib import Path

import pytest_twisted
from bed import Bed, start_agent, until
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from records import KEY, NONCE, record
from twisted.internet import reactor

from broker.agent.consumer import Consumer
from broker.agent.lives import MARKER
from broker.core.record import FIELDS, INPUT_KEYS

DOC = Path(__file__).parents[2] / "docs" / "consuming-decisions.md"
VIF = "vif/0"


class Switch:
    """A user of the API that notes what it is told and does it."""

    def __init__(self, address, memories=None):
        self.ports = set()
        self.told = []
        self.memories = {} if memories is None else memories
        self.consumer = Consumer(
            address,
            reactor,
            domid=0,
            key=KEY.public_key(),
            kinds=["vif"],
            is_open=self.ports.__contains__,
            decided=self.decided,
            memories=self.memories,
        )
        self.consumer.startService()

    def decided(self, channel, judgement):
        self.told.append(judgement.reason)
        if judgement.action == "open":
            self.ports.add(channel)
        elif judgement.action != "hold":
            self.ports.discard(channel)


@pytest_twisted.ensureDeferred
async def test_a_consumer_beside_the_agent_opens_and_closes_with_it(store_daemon, tmp_path):
    bed = Bed(store_daemon)
    bed.start_beating()
    agent = start_agent(store_daemon.address, tmp_path)
    switch = Switch(store_daemon.address)
    bed.attach(VIF)
    await bed.nonce(VIF)
    grant = bed.decide(VIF)
    await until(lambda: switch.ports)
    bed.decide(VIF, "deny")
    await until(lambda: not switch.ports)
    bed.publish(VIF, grant)
    await until(lambda: any("older" in it for it in switch.told))
    assert not switch.ports
    bed.attach(VIF)
    await until(lambda: bed.marker(VIF))
    await bed.fence()
    assert not switch.ports
    await switch.consumer.stopService()
    await agent.stop()
    bed.close()


@pytest_twisted.ensureDeferred
async def test_it_opens_nothing_without_a_marked_life_or_a_heartbeat(store_daemon):
    bed = Bed(store_daemon)
    switch = Switch(store_daemon.address)
    backend = bed.attach(VIF)
    bed.publish(VIF, record(nonce=None, seq=0))
    await until(lambda: any("another life" in it for it in switch.told))
    bed.store.write(f"{backend}/{MARKER}", NONCE)
    bed.decide(VIF, nonce=NONCE, seq=1)
    await until(lambda: any("heartbeat has stopped" in it for it in switch.told))
    assert not switch.ports
    bed.start_beating()
    await until(lambda: switch.ports)
    await switch.consumer.stopService()
    bed.close()


@pytest_twisted.ensureDeferred
async def test_its_memories_outlive_it(store_daemon):
    bed = Bed(store_daemon)
    bed.start_beating()
    switch = Switch(store_daemon.address)
    backend = bed.attach(VIF)
    bed.store.write(f"{backend}/{MARKER}", NONCE)
    grant = bed.decide(VIF, nonce=NONCE)
    await until(lambda: switch.ports)
    bed.decide(VIF, "deny", nonce=NONCE)
    await until(lambda: not switch.ports)
    await switch.consumer.stopService()
    again = Switch(store_daemon.address, switch.memories)
    bed.publish(VIF, grant)
    await until(lambda: any("older" in it for it in again.told))
    assert not again.ports
    await again.consumer.stopService()
    bed.close()


@pytest_twisted.ensureDeferred
async def test_a_store_that_comes_back_empty_closes_nothing(store_daemon):
    bed = Bed(store_daemon)
    bed.start_beating()
    switch = Switch(store_daemon.address)
    backend = bed.attach(VIF)
    bed.store.write(f"{backend}/{MARKER}", NONCE)
    bed.decide(VIF, nonce=NONCE)
    await until(lambda: switch.ports)
    bed.stop_beating()
    store_daemon.restart_empty()
    bed.reconnect()
    other = bed.attach("vif/1")
    bed.store.write(f"{other}/{MARKER}", NONCE)
    bed.decide("vif/1", nonce=NONCE, seq=1)
    # Its 10 s are not over: what is granted now still opens.
    await until(lambda: {channel.device for channel in switch.ports} == {"0", "1"})
    await switch.consumer.stopService()
    bed.close()


@pytest_twisted.ensureDeferred
async def test_the_documented_example_runs_as_it_stands(store_daemon, tmp_path):
    code = re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[1]
    key = tmp_path / "broker.pub"
    key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    bed = Bed(store_daemon)
    bed.start_beating()
    backend = bed.attach(VIF)
    bed.store.write(f"{backend}/{MARKER}", NONCE)
    bed.decide(VIF, nonce=NONCE)
    program = _started([sys.executable, "-c", code, store_daemon.address, str(key), "0"])
    try:
        await until(lambda: _line(program) == b"open vif/3/0 -> 0: granted\n")
        bed.decide(VIF, "deny", nonce=NONCE, reason="relabelled")
        await until(lambda: _line(program) == b"close vif/3/0 -> 0: relabelled\n")
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
        bed.close()


def _started(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _line(program):
    """A line of its output, if there is one within a moment."""
    with selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        if not selector.select(0.01):
            return b""
    began = time.monotonic()
    line = program.stdout.readline()
    assert time.monotonic() - began < 5
    return line


def test_the_document_names_the_fields_that_the_code_has():
    text = DOC.read_text()
    line = re.search(r"^    grant (.*)$", text, re.MULTILINE)[1]
    assert [word.partition("=")[0] for word in line.split(" ")] == [*FIELDS, "sig"]
    assert ", ".join(f"`{key}`" for key in INPUT_KEYS) in text
