"""The RPC on a real unix socket, with real peers."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import textwrap
from io import BytesIO

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from rpc_fake_admin import DIGEST, EVENT, FakeAdmin
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from broker.rpc import local, methods
from broker.rpc.catalogue import METHODS
from broker.rpc.client import Client, Lagged, UnreachableError, _events
from broker.rpc.errors import RpcError
from broker.rpc.limits import Limits, Places
from broker.rpc.local import SocketInUseError, peer_credentials, prepare_path
from broker.rpc.server import LocalServer

ARGUMENTS = {
    "label.set": {"domain": "web1", "label": "web_a"},
    "label.get": {"domain": "web1"},
    "label.rm": {"domain": "web1"},
    "label.export": {"domain": "web1", "hours": 2},
    "label.import": {"ticket": "label uuid=-"},
    "channel.list": {"verdict": "deny"},
    "channel.explain": {"class": "vif", "frontend": "3", "device": "0"},
    "channel.connect": {"domain": "web1", "class": "vif"},
    "channel.disconnect": {"class": "vif", "frontend": "3", "device": "0"},
    "channel.reset": {"class": "vif", "frontend": "3", "device": "0"},
    "decision.query": {"frontend": "web1", "backend": "0", "class": "vbd", "resource": "lun"},
    "policy.load": {"text": "policy: corp", "replaces": DIGEST},
    "filter.dump": {"profile": "clean-traffic"},
    "filter.create": {"text": "x"},
    "filter.update": {"text": "x"},
    "filter.destroy": {"profile": "clean-traffic"},
    "filter.attach": {"domain": "web1", "profile": "clean-traffic"},
    "filter.detach": {"domain": "web1", "profile": "clean-traffic"},
    "filter.show": {"domain": "web1"},
    "filter.test": {"domain": "web1", "frame": ""},
    **{
        f"policy.{name}": {"id": "5f0c9a12"} for name in ("review", "approve", "reject", "withdraw")
    },
}
CALLS = [method.name for method in METHODS if not method.stream]


@pytest.mark.parametrize("name", CALLS)
@ensureDeferred
async def test_a_call_over_the_socket_is_what_the_handler_was_asked_and_answered(
    name, serve, admin
):
    path = serve()
    method = METHODS[name]
    arguments = msgspec.convert(ARGUMENTS.get(name, {}), method.arguments)
    result = await deferToThread(Client(str(path)).call, name, arguments)
    [(called, caller, received)] = admin.calls
    assert (called, received) == (name, arguments)
    assert caller.subject == f"local:uid=0,pid={os.getpid()}"
    direct = await getattr(FakeAdmin(), method.handler)(caller, arguments)
    assert result == direct


@ensureDeferred
async def test_a_stream_over_the_socket_brings_the_events(serve, admin):
    path = serve()
    events = Client(str(path)).stream("channel.watch", methods.ChannelFilter(device_class="vbd"))
    first = deferToThread(next, events)
    await admin.subscribed
    [send] = admin.subscribers
    send(EVENT)
    assert await first == EVENT
    events.close()
    await admin.unsubscribed


@ensureDeferred
async def test_a_reader_that_stands_still_loses_events_and_holds_up_nobody(serve, admin):
    path = serve(limits=Limits(stream_events=5))
    watcher = socket.socket(socket.AF_UNIX)
    watcher.connect(str(path))
    watcher.sendall(
        b"POST /v1/channel.watch HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
    )
    await admin.subscribed
    [send] = admin.subscribers
    total = 5000
    for n in range(total):
        send(msgspec.structs.replace(EVENT, time=float(n)))
    assert (await deferToThread(Client(str(path)).call, "status", methods.Nothing())).version
    received = b""

    def read_to_the_lagged_event():
        nonlocal received
        while b"event: lagged" not in received:
            received += watcher.recv(65536)

    await deferToThread(read_to_the_lagged_event)
    # Chunks may cut an event, so count how each begins.
    assert 5 <= received.count(b'data: {"time"') < total
    watcher.close()
    await admin.unsubscribed


def test_the_client_reads_lagged_as_an_event():
    text = b': keep-alive\n\nevent: lagged\ndata: {"lost":3}\n\ndata: %b\n\n' % msgspec.json.encode(
        EVENT
    )
    assert list(_events(METHODS["channel.watch"], BytesIO(text))) == [Lagged(lost=3), EVENT]


@ensureDeferred
async def test_the_socket_and_its_directory_are_roots_alone(serve):
    path = serve()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


CHILD = textwrap.dedent("""
    import os, sys
    from broker.rpc.client import Client, UnreachableError
    from broker.rpc.errors import RpcError
    from broker.rpc.methods import Nothing
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
    try:
        print(Client(sys.argv[1]).call("status", Nothing()).health)
    except UnreachableError as error:
        print("unreachable", error)
    except RpcError as error:
        print(error.code, error)
""")


async def _as_uid(path, uid):
    out, err, code = await getProcessOutputAndValue(
        sys.executable, ["-c", CHILD, str(path), str(uid)], os.environ, reactor=reactor
    )
    assert (err, code) == (b"", 0)
    return out.decode().strip()


@pytest.mark.root
@ensureDeferred
async def test_a_process_of_another_uid_gets_nothing_by_the_kernels_word(serve, admin, short_dir):
    short_dir.chmod(0o755)
    path = serve(uids=frozenset({0, 4242}))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert await _as_uid(path, 65534) == (
        "denied uid 65534 may not administer the broker; run it as root (sudo)"
    )
    assert not admin.calls
    assert await _as_uid(path, 4242) == "green"
    assert admin.calls[0][1].subject.startswith("local:uid=4242,pid=")


@pytest.mark.root
@ensureDeferred
async def test_with_root_alone_another_uid_cannot_even_connect(serve, short_dir):
    short_dir.chmod(0o755)
    path = serve(short_dir / "s")
    assert "Permission denied" in await _as_uid(path, 65534)
    path.chmod(0o666)  # and if the mode were changed, the credentials still hold
    assert (await _as_uid(path, 65534)).startswith("denied uid 65534")


def test_the_peers_pid_is_the_process_that_connected():
    one, other = socket.socketpair()
    with one, other:
        assert peer_credentials(one) == (os.getpid(), os.getuid(), os.getgid())


@ensureDeferred
async def test_a_body_of_many_megabytes_is_refused_and_the_client_learns_why(serve, monkeypatch):
    path = serve()
    monkeypatch.setattr("broker.rpc.client.MAX_BODY_BYTES", 1 << 30)
    load = methods.PolicyLoad(text="x" * (8 << 20))
    with pytest.raises(RpcError) as caught:
        await deferToThread(Client(str(path)).call, "policy.load", load)
    assert caught.value.code == "too_large"


def test_the_client_does_not_send_what_would_be_refused():
    with pytest.raises(RpcError) as caught:
        Client("/nonexistent").call("policy.load", methods.PolicyLoad(text="x" * (1 << 20)))
    assert caught.value.code == "too_large"


@ensureDeferred
async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(serve, admin, short_dir):
    path = short_dir / "run" / "s"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    serve()
    with pytest.raises(SocketInUseError, match="another broker is running"):
        LocalServer(admin, path, reactor, reactor).start()
    status = await deferToThread(Client(str(path)).call, "status", methods.Nothing())
    assert status.health == "green"


def test_a_live_socket_with_a_full_queue_is_not_stale(short_dir):
    path = short_dir / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(SocketInUseError):
            prepare_path(path)
    assert path.exists()


@ensureDeferred
async def test_a_directory_that_is_there_keeps_its_mode(serve, short_dir):
    short_dir.chmod(0o711)
    serve(short_dir / "s")
    assert stat.S_IMODE(short_dir.stat().st_mode) == 0o711


def test_what_is_no_socket_is_left_alone(short_dir):
    path = short_dir / "s"
    path.write_text("precious")
    with pytest.raises(SocketInUseError, match="is no socket"):
        prepare_path(path)
    link = short_dir / "l"
    link.symlink_to(path)
    with pytest.raises(SocketInUseError, match="is no socket"):
        prepare_path(link)
    assert path.read_text() == "precious"


@ensureDeferred
async def test_a_stopped_server_is_unreachable_and_leaves_no_socket(serve):
    path = serve()
    [server] = serve.servers
    held = socket.socket(socket.AF_UNIX)
    held.connect(str(path))
    await deferToThread(Client(str(path)).call, "status", methods.Nothing())
    await server.stop()
    await server.stop()
    assert not path.exists()
    assert await deferToThread(held.recv, 1) == b""
    held.close()
    with pytest.raises(UnreachableError, match="cannot reach the broker"):
        Client(str(path)).call("status", methods.Nothing())


@ensureDeferred
async def test_a_watcher_learns_that_the_broker_stopped(serve, admin):
    path = serve()
    events = Client(str(path)).stream("channel.watch", methods.ChannelFilter())
    first = deferToThread(next, events)
    await admin.subscribed
    await serve.servers[0].stop()
    with pytest.raises(UnreachableError):
        await first
    await admin.unsubscribed


def _answering(path, answer):
    """A server that is no broker: answers these bytes once, and hangs up."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def run():
        with listening, listening.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(answer)

    return deferToThread(run)


def _http(status, body):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 smtp\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        _http(400, b""),
        _http(200, b"{}"),
        _http(200, b'{"result": {"health": "blue"}}'),
        _http(500, b'{"result": []}'),
    ],
)
@ensureDeferred
async def test_what_is_no_broker_counts_as_unreachable(answer, short_dir):
    path = short_dir / "s"
    server = _answering(path, answer)
    with pytest.raises(UnreachableError):
        await deferToThread(Client(str(path)).call, "status", methods.Nothing())
    await server


@ensureDeferred
async def test_an_error_code_of_a_later_broker_is_internal(short_dir):
    path = short_dir / "s"
    body = json.dumps({"error": {"code": "novel", "message": "m", "extra": 1}}).encode()
    server = _answering(path, _http(418, body))
    with pytest.raises(RpcError) as caught:
        await deferToThread(Client(str(path)).call, "status", methods.Nothing())
    assert caught.value.code == "internal"
    await server


def test_a_broker_that_says_nothing_is_unreachable_after_the_timeout(short_dir):
    path = short_dir / "s"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(UnreachableError, match=r"within 0\.05 s"):
            Client(str(path), timeout=0.05).call("status", methods.Nothing())


@ensureDeferred
async def test_connections_over_the_limit_are_refused_and_the_others_served(serve):
    path = serve(places=Places(total=2, reserved=0))
    client = Client(str(path))
    assert (await deferToThread(client.call, "status", methods.Nothing())).version
    held = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for one in held:
        one.connect(str(path))
    assert await deferToThread(held[2].recv, 1) == b""
    with pytest.raises(UnreachableError):
        await deferToThread(client.call, "status", methods.Nothing())
    held[0].sendall(
        b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert (await deferToThread(held[0].recv, 15)) == b"HTTP/1.1 200 OK"
    for one in held:
        one.close()


def test_only_root_is_listed_unless_told_otherwise():
    assert local.LocalPeers()._uids == {0}
