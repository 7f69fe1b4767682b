"""What ends C xenstored 4.17 itself is never sent by the client, not even by way of Linux's device.

Seen with 4.17.7: a request whose path has no NUL is left unanswered where errno happens to be 0
(a WATCH that was accepted, and an RM, leave it so), and the daemon then ends by
`consider_message: Assertion conn->in == NULL`.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

import pytest
import pytest_twisted
from support.xenstoreds import start_store
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from broker.xenstore import wire
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import StoreError
from broker.xenstore.transport import XenbusTransport, connect

ODD = (
    "/",
    "//",
    "/a/",
    "",
    ".",
    "a b",
    "/a\0b",
    "/\x7f",
    "@introduceDomain",
    "@none",
    "/" + "x" * 3200,
)
NODES = [f"{'n' * (1 + number % 7)}{number}" for number in range(60)]


@pytest.fixture(name="daemon")
def a_c_xenstored():
    made = start_store("C")
    yield made
    made.stop()


class LinuxDevice(threading.Thread):
    """`/dev/xen/xenbus` as Linux 6.1 has it: one buffer for the requests of an open file.

    What was written is taken out of it later, by another thread: by then it may hold another
    request's bytes, and only the length is still the first one's.
    """

    def __init__(self, store_path):
        super().__init__(daemon=True)
        self.client, self._file = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.client.setblocking(False)
        self._store = socket.socket(socket.AF_UNIX)
        self._store.connect(str(store_path))

    def run(self):
        """Until the client closes its end."""
        selector = selectors.DefaultSelector()
        for it in (self._file, self._store):
            selector.register(it, selectors.EVENT_READ)
        with contextlib.suppress(OSError), selector, self._file, self._store:
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._store in ready:
                    self._file.sendall(self._store.recv(65536))
                if self._file in ready and not self._carry():
                    return

    def _carry(self):
        """Take over every request that is there before any is passed on; False at the end."""
        headers, buffer = [], bytearray(4096)
        with contextlib.suppress(BlockingIOError):
            while frame := self._file.recv(65536, socket.MSG_DONTWAIT):
                headers.append(frame[:16])
                buffer[: len(frame) - 16] = frame[16:]
            return False
        for header in headers:
            length = wire.HEADER.unpack(header)[3]
            self._store.sendall(header + buffer[:length])
        return True


@pytest_twisted.ensureDeferred
async def test_many_requests_at_once_through_linux_s_device_arrive_as_they_were_sent(daemon):
    guest = await deferToThread(daemon.guest, 7)
    device = LinuxDevice(guest.path)
    device.start()
    connection = StoreConnection(lambda *_: None, reactor)
    XenbusTransport(reactor, device.client.detach(), connection, "device").start()
    assert await connection.write_many([(it, it.encode()) for it in NODES]) == [None] * len(NODES)
    for it in NODES[:10]:
        await connection.watch(it, it)
    assert await connection.read_many(NODES) == [it.encode() for it in NODES]
    assert await connection.rm_many(NODES[:30]) == [None] * 30
    assert await connection.directory_many(NODES[30:]) == [[]] * 30
    connection.close()
    await connection.lost
    await deferToThread(device.join)
    assert daemon._process.poll() is None, daemon.log_text()


REQUESTS = (
    *(("read",), ("write", b"x"), ("mkdir",), ("rm",), ("directory",), ("get_perms",)),
    *(("watch", "t"), ("unwatch", "t"), ("directory_many",), ("read_tree",)),
    ("set_perms", ["n0", "r7"]),
)


@pytest.mark.parametrize("domid", [0, 7])
@pytest_twisted.ensureDeferred
async def test_no_argument_of_any_request_ends_it(daemon, domid):
    path = daemon.path if domid == 0 else (await deferToThread(daemon.guest, domid)).path
    connection = await connect(reactor, f"unix:{path}", StoreConnection(lambda *_: None, reactor))
    for odd in ODD:
        for name, *rest in REQUESTS:
            if domid and name == "set_perms" and odd.startswith("@"):
                continue  # for domain 0's agent alone (its configuration says so): see the docs
            await leave_errno_0(connection)
            with contextlib.suppress(StoreError):
                await getattr(connection, name)([odd] if name.endswith("many") else odd, *rest)
    assert await connection.get_domain_path(7) == "/local/domain/7"
    connection.close()
    await connection.lost
    assert daemon._process.poll() is None, daemon.log_text()


async def leave_errno_0(connection):
    await connection.watch("plain", "errno")
    await connection.unwatch("plain", "errno")
