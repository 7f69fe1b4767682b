"""Abuse on real sockets: the broker goes on serving others, and takes no more than its limits."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import sys
import time

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from broker.rpc import methods
from broker.rpc.client import Client, UnreachableError
from broker.rpc.limits import Limits, Places

DEADLINE = 20.0
ATTEMPTS = 10_000
MOST = 256
HEAD = b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\n"


class Crowd(Places):
    """Places that remember how many were taken at most."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def enter(self, connection, *, local):
        entered = super().enter(connection, local=local)
        self.most = max(self.most, self.held)
        return entered


def status(where):
    return Client(where).call("status", methods.Nothing())


def open_many(connect):
    """Connect so often; keep what is not hung up on. Answers how many were, and the rest."""
    kept, refused = [], 0
    for _ in range(ATTEMPTS):
        one = connect()
        kept.append(one)
        if len(kept) > MOST:
            # There are more than the server may hold: at least one of these is hung up on.
            gone = select.select(kept, [], [], DEADLINE)[0]
            assert gone, f"{len(kept)} connections are held"
            for it in gone:
                with contextlib.suppress(ConnectionResetError):
                    assert it.recv(1) == b""
                it.close()
                refused += 1
            kept = [it for it in kept if it.fileno() >= 0]
    return refused, kept


@ensureDeferred
async def test_of_ten_thousand_connections_at_most_256_are_held(serve):
    places = Crowd()
    path = str(serve(places=places, limits=Limits(request_time=600)))

    def connect():
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)
        return one

    refused, kept = await deferToThread(open_many, connect)
    assert refused >= ATTEMPTS - MOST
    assert places.most == MOST
    for one in kept:
        one.close()
    assert (await deferToThread(status, path)).health == "green"


FLOOD = """
import socket, sys
kept = []
for number in range(int(sys.argv[2])):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    kept.append(one)
    if len(kept) > int(sys.argv[3]):
        kept.pop(0).close()
print("flooded", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def flooding():
    """Starts a process that connects to a socket, again and again, and then stays."""
    started = []

    def start(path):
        command = [sys.executable, "-c", FLOOD, path, str(ATTEMPTS), str(MOST)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe))
        return started[-1]

    yield start
    for one in started:
        one.communicate(timeout=DEADLINE)


@ensureDeferred
async def test_ten_thousand_strangers_over_tls_keep_no_certificate_out(
    serve_tls, people, short_dir, flooding
):
    places, path = Crowd(), f"{short_dir}/tls.sock"
    address = serve_tls(f"unix:{path}", places=places, limits=Limits(request_time=600))
    own = address(people.issue("alice"))
    flood = flooding(path)
    ended = deferToThread(flood.stdout.readline)
    served = 0
    while not ended.called:
        # A flood may push out who has not yet shown his certificate; he comes again.
        with contextlib.suppress(UnreachableError):
            served += (await deferToThread(status, own)).health == "green"
    assert await ended == b"flooded\n"
    # Whoever stays and says nothing pushes nobody out.
    for _ in range(5):
        assert (await deferToThread(status, own)).health == "green"
    assert served
    assert places.most <= MOST


def send_until_refused(connection, chunks):
    """Send until the other end has had enough; answers how much was sent, and what it said."""
    sent = 0
    connection.settimeout(DEADLINE)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
        for chunk in chunks:
            connection.sendall(chunk)
            sent += len(chunk)
    answer = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while data := connection.recv(65536):
            answer += data
    return sent, answer


def gigabyte(head, part):
    yield head
    for _ in range((1 << 30) // len(part)):
        yield part


BIG = b"x" * 65536
CHUNK = b"10000\r\n" + BIG + b"\r\n"


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (HEAD + b"Content-Length: 1073741824\r\n\r\n", BIG),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK),
        (HEAD + b"X: " + BIG, BIG),
    ],
    ids=["announced", "chunked", "header"],
)
@ensureDeferred
async def test_a_gigabyte_is_not_taken(head, part, serve):
    path = str(serve())

    def send():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            return send_until_refused(connection, gigabyte(head, part))

    sent, answer = await deferToThread(send)
    assert sent < 16 << 20
    assert not answer or answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
    assert (await deferToThread(status, path)).health == "green"


@ensureDeferred
async def test_a_gigabyte_over_tls_is_not_taken(serve_tls, people):
    own = serve_tls()(people.issue("alice"))

    def send():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(people.files.ca)
        context.load_cert_chain(own.credentials.cert, own.credentials.key)
        plain = socket.create_connection((own.host, own.port))
        with context.wrap_socket(plain, server_hostname=own.host) as connection:
            return send_until_refused(
                connection, gigabyte(HEAD + b"Content-Length: 1073741824\r\n\r\n", BIG)
            )

    sent, _ = await deferToThread(send)
    assert sent < 16 << 20
    assert await deferToThread(status, own)


@ensureDeferred
async def test_a_hundred_slow_lorises_are_cut_off_and_delay_nobody(serve):
    path = str(serve(limits=Limits(request_time=1)))
    request = HEAD + b"Content-Length: 2\r\n\r\n{}"

    def crawl():
        slow = []
        for _ in range(100):
            one = socket.socket(socket.AF_UNIX)
            one.connect(path)
            slow.append(one)
        longest = 0.0
        start = time.monotonic()
        for byte in request:
            for one in slow:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    one.send(bytes([byte]))
            before = time.monotonic()
            status(path)
            longest = max(longest, time.monotonic() - before)
            time.sleep(0.05)
            if time.monotonic() - start > 2:
                break
        answers = []
        for one in slow:
            one.settimeout(DEADLINE)
            with contextlib.suppress(ConnectionResetError):
                answers.append(one.recv(100))
            one.close()
        return longest, answers

    longest, answers = await deferToThread(crawl)
    assert longest < DEADLINE / 2
    assert set(answers) <= {b""}


@ensureDeferred
async def test_a_handshake_that_crawls_is_cut_off(serve_tls, people):
    own = serve_tls(limits=Limits(request_time=1))(people.issue("alice"))

    def crawl():
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_hostname=own.host).do_handshake()
        start = time.monotonic()
        with socket.create_connection((own.host, own.port)) as plain:
            plain.settimeout(0.05)
            for byte in outgoing.read():
                with contextlib.suppress(TimeoutError):
                    plain.send(bytes([byte]))
                    if plain.recv(1) == b"":
                        break
        return time.monotonic() - start

    with contextlib.suppress(ConnectionError):
        assert await deferToThread(crawl) < DEADLINE / 2
    assert await deferToThread(status, own)
