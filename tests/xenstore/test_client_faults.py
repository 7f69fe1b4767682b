"""The client against a store that misbehaves, conflicts, or goes away."""

from __future__ import annotations

import itertools
import os
import socket

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from support.scripted import ScriptedStore, error
from twisted.internet import defer, reactor, task
from twisted.internet.testing import StringTransportWithDisconnection

from broker.xenstore import requests, wire
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import (
    AgainError,
    ConnectionLostError,
    DeniedError,
    InvalidError,
    QuotaError,
    StoreError,
    UnsupportedError,
    error_for,
)
from broker.xenstore.pipeline import WINDOW
from broker.xenstore.transport import XenbusTransport, connect


class Transport(StringTransportWithDisconnection):
    def abortConnection(self):
        self.loseConnection()


def in_memory(clock=None):
    """A connection whose wire is a string."""
    events = []
    connection = StoreConnection(
        lambda path, token: events.append((path, token)), clock or task.Clock()
    )
    transport = Transport()
    transport.protocol = connection
    connection.makeConnection(transport)
    return connection, transport, events


def sent(transport):
    """The requests written since the last call."""
    frames = list(wire.Decoder().receive_data(transport.value()))
    transport.clear()
    return frames


def result_of(deferred):
    """What `deferred` fired with, an exception included; None while it has not."""
    results = []
    deferred.addBoth(lambda it: results.append(getattr(it, "value", it)))
    return results[0] if results else None


@pytest.fixture
def scripted():
    stores = []

    def start(answer):
        stores.append(ScriptedStore(answer))
        return stores[-1]

    yield start
    for store in stores:
        store.stop()


async def joined(store):
    return await connect(reactor, store.address, StoreConnection(lambda *_: None, reactor))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_whatever_the_store_sends_ends_the_connection_at_worst(data, cuts):
    connection, transport, _ = in_memory()
    waiting = connection.read("/a")
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        if transport.connected:
            connection.dataReceived(data[start:end])
    if not transport.connected:
        assert isinstance(result_of(waiting), StoreError | bytes)
        assert isinstance(result_of(connection.read("/b")), ConnectionLostError)
    else:
        result_of(waiting)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (wire.encode(wire.READ, 999, 0, b"x"), "no request"),
        (wire.encode(wire.WRITE, 1, 0, b"OK\0"), "11 answers a request of 2"),
        (wire.HEADER.pack(wire.READ, 1, 0, wire.MAX_REPLY + 1), "payload of"),
        (wire.encode(wire.WATCH_EVENT, 0, 0, b"/a"), "watch event"),
    ],
)
def test_a_malformed_frame_ends_the_connection_and_says_why(frame, why):
    connection, transport, _ = in_memory()
    waiting = connection.read("/a")
    connection.dataReceived(frame)
    assert not transport.connected
    assert why in str(result_of(waiting))
    assert why in str(result_of(connection.lost))


def test_all_that_is_outstanding_fails_when_the_connection_is_lost():
    connection, transport, _ = in_memory()
    waiting = [
        connection.read("/a"),
        connection.write_many([("/b", b"")] * 100),
        connection.read_tree("/c"),
        connection.transaction(lambda tx: tx.read("/d")),
        connection.watch("/e", "t"),
    ]
    transport.loseConnection()
    assert all(isinstance(result_of(it), ConnectionLostError) for it in waiting)


def test_no_more_than_the_window_is_on_the_wire_and_order_is_kept():
    connection, transport, _ = in_memory()
    waiting = connection.read_many([f"/n{number}" for number in range(100)])
    asked = []
    while frames := sent(transport):
        assert len(frames) <= WINDOW
        asked += frames
        connection.dataReceived(b"".join(wire.encode(*frame) for frame in frames))
    assert [frame[3] for frame in asked] == [b"/n%d\0" % number for number in range(100)]
    assert result_of(waiting) == [b"/n%d\0" % number for number in range(100)]


def test_answers_out_of_order_find_their_requests():
    connection, transport, _ = in_memory()
    waiting = connection.read_many(["/a", "/b", "/c"])
    for frame in reversed(sent(transport)):
        connection.dataReceived(wire.encode(*frame))
    assert result_of(waiting) == [b"/a\0", b"/b\0", b"/c\0"]


def test_events_are_dispatched_while_requests_wait():
    connection, transport, events = in_memory()
    connection.read("/a")
    connection.dataReceived(wire.encode(wire.WATCH_EVENT, 0, 0, b"/x\xff\0token\0") * 3)
    assert events == [("/x\xff", "token")] * 3
    assert transport.producerState == "producing"


def test_what_no_daemon_takes_is_refused_here_and_not_sent():
    connection, transport, _ = in_memory()
    assert isinstance(result_of(connection.read("bad path")), InvalidError)
    assert isinstance(result_of(connection.write("/a", bytes(4094))), QuotaError)
    assert isinstance(result_of(connection.set_perms("/a", [])), InvalidError)
    assert isinstance(result_of(connection.watch("@other", "t")), InvalidError)
    assert isinstance(result_of(connection.watch("/a", "a\0b")), InvalidError)
    refused = result_of(connection.read_many(["bad path", "a//b"]))
    assert [type(it) for it in refused] == [InvalidError, InvalidError]
    assert sent(transport) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ENOSPC", QuotaError), ("EQUOTA", QuotaError), ("E2BIG", QuotaError), ("EPERM", DeniedError),
     ("EACCES", DeniedError), ("EAGAIN", AgainError), ("ENOSYS", UnsupportedError),
     ("EIO", StoreError), ("\xff\xfe", StoreError)],
)  # fmt: skip
def test_a_refusal_is_one_class_whatever_the_daemon_calls_it(name, kind):
    connection, transport, _ = in_memory()
    waiting = connection.read("/a")
    (request,) = sent(transport)
    connection.dataReceived(wire.encode(wire.ERROR, request[1], 0, name.encode("latin-1") + b"\0"))
    refusal = result_of(waiting)
    assert type(refusal) is kind is type(error_for(name))
    assert (refusal.errno_name, refusal.what) == (name, "/a")


def test_close_fails_what_is_outstanding():
    connection, transport, _ = in_memory()
    waiting = connection.read("/a")
    connection.close()
    assert not transport.connected
    assert isinstance(result_of(waiting), ConnectionLostError)


@pytest_twisted.ensureDeferred
async def test_a_storm_of_conflicts_passes(scripted):
    conflicts = iter([error("EAGAIN")] * 5)

    def answer(operation, tx, payload):
        if operation == wire.TRANSACTION_START:
            return operation, b"7\0"
        if operation == wire.TRANSACTION_END and payload == b"T\0":
            return next(conflicts, (operation, b"OK\0"))
        return operation, b"OK\0"

    store = scripted(answer)
    connection = await joined(store)
    await connection.transact([requests.write("/a", b"1"), requests.rm("/b")])
    operations = [it[0] for it in store.requests]
    assert operations.count(wire.TRANSACTION_START) == 6
    assert operations.count(wire.WRITE) == operations.count(wire.RM) == 6
    connection.close()


@pytest_twisted.ensureDeferred
async def test_an_endless_storm_is_given_up_on(scripted):
    def answer(operation, tx, payload):
        if operation == wire.TRANSACTION_START:
            return operation, b"7\0"
        return error("EAGAIN") if payload == b"T\0" else (operation, b"OK\0")

    store = scripted(answer)
    connection = await joined(store)
    with pytest.raises(AgainError):
        await connection.transact([requests.mkdir("/a")], attempts=3)
    assert [it[0] for it in store.requests].count(wire.TRANSACTION_START) == 3
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_transaction_whose_body_fails_is_dropped_not_committed(scripted):
    def answer(operation, tx, payload):
        if operation == wire.TRANSACTION_START:
            return operation, b"7\0"
        return error("EACCES") if operation == wire.WRITE else (operation, b"OK\0")

    store = scripted(answer)
    connection = await joined(store)
    with pytest.raises(DeniedError):
        await connection.transact([requests.write("/a", b""), requests.mkdir("/b")])
    await connection.mkdir("/after")
    ends = [it for it in store.requests if it[0] == wire.TRANSACTION_END]
    assert ends == [(wire.TRANSACTION_END, 7, b"F\0")]
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_transaction_id_that_is_none_is_refused(scripted):
    store = scripted(lambda operation, tx, payload: (operation, b"x\0"))
    connection = await joined(store)
    with pytest.raises(StoreError, match="transaction id"):
        await connection.transact([requests.mkdir("/a")])
    connection.close()


def test_a_transaction_given_up_before_its_start_was_answered_is_dropped():
    connection, transport, _ = in_memory()
    waiting = connection.transact([requests.mkdir("/a")])
    (start,) = sent(transport)
    waiting.cancel()
    assert isinstance(result_of(waiting), defer.CancelledError)
    connection.dataReceived(wire.encode(start[0], start[1], 0, b"7\0"))
    assert [it[:1] + it[2:] for it in sent(transport)] == [(wire.TRANSACTION_END, 7, b"F\0")]


def test_a_transaction_given_up_in_its_body_is_dropped():
    connection, transport, _ = in_memory()
    waiting = connection.transact([requests.mkdir("/a")])
    (start,) = sent(transport)
    connection.dataReceived(wire.encode(start[0], start[1], 0, b"7\0"))
    assert [it[0] for it in sent(transport)] == [wire.MKDIR]
    waiting.cancel()
    assert isinstance(result_of(waiting), defer.CancelledError)
    assert [it[:1] + it[2:] for it in sent(transport)] == [(wire.TRANSACTION_END, 7, b"F\0")]


def _parts(parts):
    """A store whose listings are too long, and whose parts come from the iterator."""

    def answer(operation, tx, payload):
        return error("E2BIG") if operation == wire.DIRECTORY else (operation, next(parts))

    return answer


@pytest_twisted.ensureDeferred
async def test_a_listing_in_parts_is_begun_anew_when_the_node_changes(scripted):
    parts = iter([b"1\0a\0b\0", b"2\0c\0\0", b"2\0a\0d\0", b"2\0c\0\0"])
    store = scripted(_parts(parts))
    connection = await joined(store)
    assert await connection.directory("/x") == ["a", "d", "c"]
    offsets = [it[2] for it in store.requests if it[0] == wire.DIRECTORY_PART]
    assert offsets == [b"/x\x000\0", b"/x\x004\0", b"/x\x000\0", b"/x\x004\0"]
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_listing_that_never_holds_still_is_given_up_on(scripted):
    def ever_changing():
        number = 0
        while True:
            number += 1
            yield b"%d\0a\0" % number

    connection = await joined(scripted(_parts(ever_changing())))
    with pytest.raises(AgainError):
        await connection.directory("/x")
    refused = await connection.directory_many(["/x"])
    assert isinstance(refused[0], AgainError)
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_listing_without_an_end_is_refused(scripted):
    connection = await joined(scripted(_parts(iter([b"1\0a\0", b"1\0"]))))
    with pytest.raises(StoreError, match="does not end"):
        await connection.directory("/x")
    connection.close()


@pytest_twisted.ensureDeferred
async def test_an_oversized_reply_is_taken(scripted):
    names = [f"name-{number}" for number in range(5000)]
    listing = "".join(f"{name}\0" for name in names).encode()
    connection = await joined(scripted(lambda operation, tx, payload: (operation, listing)))
    assert await connection.directory("/x") == names
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_tree_leaves_out_what_vanishes_and_reports_what_is_hidden(scripted):
    listings = {b"/t\0": b"gone\0hidden\0kept\0", b"/t/kept\0": b""}
    values = {b"/t\0": b"top", b"/t/gone\0": b"v", b"/t/kept\0": b"w"}

    def answer(operation, tx, payload):
        known = listings if operation == wire.DIRECTORY else values
        if payload in known:
            return operation, known[payload]
        return error("EACCES" if b"hidden" in payload else "ENOENT")

    connection = await joined(scripted(answer))
    unreadable = []
    tree = await connection.read_tree("/t", unreadable=unreadable)
    assert tree == {"/t": b"top", "/t/kept": b"w"}
    assert unreadable == ["/t/hidden"]
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_tree_takes_a_long_listing_in_parts(scripted):
    def answer(operation, tx, payload):
        if operation == wire.DIRECTORY and payload == b"/t\0":
            return error("E2BIG")
        if operation == wire.DIRECTORY_PART:
            return operation, b"1\0a\0b\0\0"
        return operation, b""

    connection = await joined(scripted(answer))
    assert await connection.read_tree("/t") == {"/t": b"", "/t/a": b"", "/t/b": b""}
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_tree_does_not_pass_over_other_errors(scripted):
    connection = await joined(scripted(lambda *_: error("EIO")))
    with pytest.raises(StoreError, match="EIO"):
        await connection.read_tree("/t")
    connection.close()


class SeenFrames:
    """Stands where a protocol stands."""

    def __init__(self):
        self.data = b""
        self.ended = defer.Deferred()

    def makeConnection(self, transport):
        self.transport = transport

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.ended.callback(reason.value)


@pytest_twisted.ensureDeferred
async def test_the_device_gets_each_request_once_the_one_before_is_answered():
    """A sequenced-packet socket keeps writes apart, as the device does."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernels.setblocking(False)
    ours.setblocking(False)
    connection = StoreConnection(lambda *_: None, reactor)
    XenbusTransport(reactor, ours.detach(), connection, "device").start()
    waiting = connection.read_many([f"/n{number}" for number in range(20)])
    answered = 0
    while answered < 20:
        await task.deferLater(reactor, 0)
        try:
            packet = kernels.recv(65536)
        except BlockingIOError:
            continue
        await task.deferLater(reactor, 0.001)
        with pytest.raises(BlockingIOError):
            kernels.recv(65536)
        ((operation, request_id, tx, payload),) = wire.Decoder().receive_data(packet)
        kernels.send(wire.encode(operation, request_id, tx, payload[:2]))
        answered += 1
    assert await waiting == [b"/n"] * 20
    refused = await connection.write_many([("/a", bytes(4078))])
    assert isinstance(refused[0], QuotaError)
    kernels.close()
    assert "device ended" in str(await connection.lost)


@pytest_twisted.ensureDeferred
async def test_the_device_waits_while_the_kernel_takes_no_more():
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernels.setblocking(False)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    seen = SeenFrames()
    transport = XenbusTransport(reactor, ours.detach(), seen, "device")
    transport.start()
    frames = [b"%04d" % number * 100 for number in range(100)]
    transport.writeSequence(frames)
    got = []
    while len(got) < len(frames):
        await task.deferLater(reactor, 0)
        try:
            got.append(kernels.recv(65536))
        except BlockingIOError:
            continue
    assert got == frames
    transport.abortConnection()
    transport.abortConnection()
    assert "closed" in str(await seen.ended)
    kernels.close()


class NeverWritable:
    """The reactor, for a device that never says that it can be written to, as Linux's does not."""

    def addWriter(self, writer):
        pass

    def __getattr__(self, name):
        return getattr(reactor, name)


@pytest_twisted.ensureDeferred
async def test_the_device_is_written_to_although_it_never_says_that_it_can_be():
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernels.settimeout(5)
    seen = SeenFrames()
    transport = XenbusTransport(NeverWritable(), ours.detach(), seen, "device")
    transport.start()
    transport.write(b"one")
    transport.write(b"two")
    await task.deferLater(reactor, 0)
    assert [kernels.recv(100), kernels.recv(100)] == [b"one", b"two"]
    transport.write(b"never")
    transport.abortConnection()
    assert "closed" in str(await seen.ended)
    assert kernels.recv(100) == b""
    kernels.close()


@pytest_twisted.ensureDeferred
async def test_a_device_that_refuses_a_write_is_lost():
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    seen = SeenFrames()
    transport = XenbusTransport(reactor, ours.detach(), seen, "device")
    transport.start()
    kernels.close()
    transport.write(b"one")
    assert "device" in str(await seen.ended)


@pytest_twisted.ensureDeferred
async def test_addresses_that_lead_nowhere():
    connection = StoreConnection(lambda *_: None, reactor)
    with pytest.raises(FileNotFoundError):
        await connect(reactor, "unix:/nonexistent/socket", connection)
    with pytest.raises(FileNotFoundError):
        await connect(reactor, "xenbus:/nonexistent/device", connection)
    with pytest.raises(ValueError, match="not a store's address"):
        await connect(reactor, "tcp:somewhere", connection)


@pytest_twisted.ensureDeferred
async def test_a_store_whose_queue_is_full_is_told_in_words(tmp_path):
    """What is logged of it on each attempt must not look like a traceback."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as before:
        busy.bind(path)
        busy.listen(0)
        before.connect(path)
        with pytest.raises(BlockingIOError) as told:
            await connect(reactor, f"unix:{path}", StoreConnection(lambda *_: None, reactor))
    assert str(told.value) == "[Errno 11] its queue of connects is full"


@pytest_twisted.ensureDeferred
async def test_an_address_of_a_device_is_opened(tmp_path):
    """A fifo, read and written by the same descriptor, echoes like the device answers."""
    fifo = tmp_path / "device"
    os.mkfifo(fifo)
    connection = StoreConnection(lambda *_: None, reactor)
    await connect(reactor, f"xenbus:{fifo}", connection)
    assert await connection.read("/echo") == b"/echo\0"
    connection.close()
    assert "closed" in str(await connection.lost)
