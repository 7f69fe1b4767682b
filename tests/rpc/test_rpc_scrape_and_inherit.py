"""`GET /metrics`, for who may; and a socket that the service manager made."""

from __future__ import annotations

import errno
import os
import socket
import stat

import pytest
from pytest_twisted import ensureDeferred
from rpc_fake_admin import METRICS
from twisted.internet import reactor, task
from twisted.internet.threads import deferToThread

from broker.rpc import inherited, methods
from broker.rpc.address import local
from broker.rpc.client import Client
from broker.rpc.errors import RpcError
from broker.rpc.inherited import InheritedPort


def get(path, uri="/metrics"):
    """The whole answer to a GET."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(f"GET {uri} HTTP/1.0\r\nHost: broker\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


@ensureDeferred
async def test_a_scrape_is_answered_as_the_method_would(serve, admin):
    head, _, body = (await deferToThread(get, serve())).partition("\r\n\r\n")
    assert head.split()[1] == "200"
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert "Cache-Control: no-store" in head
    assert body == METRICS
    (call,) = admin.calls
    assert call[0] == "metrics"


@ensureDeferred
async def test_who_may_not_ask_for_metrics_gets_none(serve, admin):
    admin.deny = RpcError("denied", "role watcher may not metrics")
    answer = await deferToThread(get, serve())
    assert answer.split()[1] == "403"
    assert "xpb_" not in answer
    assert admin.calls == []


@pytest.fixture
def made(short_dir):
    """A listening socket as systemd makes one; its descriptor is handed over."""
    path = short_dir / "s"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(8)
    yield path, listening
    listening.close()


def status(path):
    return Client(local(str(path))).call("status", methods.Nothing())


@ensureDeferred
async def test_a_socket_that_was_handed_over_is_served_and_left_behind(made, serve):
    path, listening = made
    serve(path, inherited=os.dup(listening.fileno()))
    assert (await deferToThread(status, path)).health == "green"
    await serve.servers.pop().stop()
    assert path.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Who comes in the meantime waits for the next broker.
    waiting = deferToThread(status, path)
    serve(path, inherited=os.dup(listening.fileno()))
    assert (await waiting).health == "green"


@ensureDeferred
async def test_who_is_gone_before_he_is_accepted_does_no_harm(made, serve):
    path, listening = made
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    serve(path, inherited=os.dup(listening.fileno()))
    assert (await deferToThread(status, path)).health == "green"


class Exhausted:
    """A listening socket that cannot be accepted from, for a time."""

    def __init__(self, descriptor, errors):
        self.inner = socket.socket(fileno=descriptor)
        self.errors = list(errors)

    def accept(self):
        if self.errors:
            raise self.errors.pop(0)
        return self.inner.accept()

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ECONNABORTED])
@ensureDeferred
async def test_where_nothing_can_be_accepted_it_is_tried_again(made, serve, monkeypatch, error):
    path, listening = made
    monkeypatch.setattr(inherited, "_PAUSE", 0.01)
    serve(path, inherited=os.dup(listening.fileno()))
    port = serve.servers[0]._port
    assert isinstance(port, InheritedPort)
    reactor.removeReader(port)
    port._socket = Exhausted(port._socket.detach(), [OSError(error, "no")] * 2)
    reactor.addReader(port)
    assert (await deferToThread(status, path)).health == "green"
    assert port._socket.errors == []


@ensureDeferred
async def test_it_stops_also_while_it_pauses(made, serve, monkeypatch):
    path, listening = made
    monkeypatch.setattr(inherited, "_PAUSE", 1000.0)
    serve(path, inherited=os.dup(listening.fileno()))
    port = serve.servers[0]._port
    reactor.removeReader(port)
    port._socket = Exhausted(port._socket.detach(), [OSError(errno.EMFILE, "no")])
    reactor.addReader(port)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        while port._resuming is None:
            await task.deferLater(reactor, 0.005)
        await serve.servers.pop().stop()
    assert port._resuming is None
