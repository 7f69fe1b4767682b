"""A guest's end of the xenstore ring, as its kernel would hold it, offered as a unix socket.

`Ring` is the shared page and the event channel. `RingBridge` does what Linux's xenbus driver does
for `/dev/xen/xenbus`: many users of one ring, request ids and watch tokens kept apart, and what a
user leaves behind (watches, transactions) cleared when it closes. So any program can be a domain.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import socket
import struct
import threading

from broker.xenstore import wire

RING_BYTES = 1024
PORT_VIRQ = 1
PORT_BASE = 1000
# struct xenstore_domain_interface, as indexes of 32-bit words.
_REQ_CONS, _REQ_PROD, _RSP_CONS, _RSP_PROD = 512, 513, 514, 515


class Ring:
    """The page `ring.N`, the fifo `kick.N` (from the daemon) and the fifo `evtchn` (to it)."""

    def __init__(self, directory, domid):
        self.domid = domid
        path = directory / f"ring.{domid}"
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        # Native words are stored at once; struct's "<I" would be stored byte by byte.
        self._words = memoryview(self._page).cast("I")
        kick = directory / f"kick.{domid}"
        if not kick.exists():
            os.mkfifo(kick)
        self.kick = os.open(kick, os.O_RDWR | os.O_NONBLOCK)
        self._evtchn = os.open(directory / "evtchn", os.O_RDWR)

    def close(self):
        self._words.release()
        self._page.close()
        os.close(self.kick)
        os.close(self._evtchn)

    def notify(self):
        os.write(self._evtchn, struct.pack("I", PORT_BASE + self.domid))

    def put(self, data):
        """Place what fits of `data` in the request ring; how many bytes that was."""
        words = self._words
        produced, consumed = words[_REQ_PROD], words[_REQ_CONS]
        room = RING_BYTES - ((produced - consumed) & 0xFFFFFFFF)
        chunk = bytes(data[:room])
        start = produced % RING_BYTES
        first = chunk[: RING_BYTES - start]
        self._page[start : start + len(first)] = first
        self._page[: len(chunk) - len(first)] = chunk[len(first) :]
        words[_REQ_PROD] = (produced + len(chunk)) & 0xFFFFFFFF
        if chunk:
            self.notify()
        return len(chunk)

    def take(self):
        """Everything in the response ring."""
        words = self._words
        produced, consumed = words[_RSP_PROD], words[_RSP_CONS]
        size = (produced - consumed) & 0xFFFFFFFF
        start = RING_BYTES + consumed % RING_BYTES
        end = min(start + size, 2 * RING_BYTES)
        data = self._page[start:end]
        data += self._page[RING_BYTES : RING_BYTES + size - len(data)]
        words[_RSP_CONS] = produced
        if data:
            self.notify()
        return data

    def clear_kicks(self):
        with contextlib.suppress(BlockingIOError):
            os.read(self.kick, 65536)


class _User:
    """One program that holds the bridge's socket open."""

    def __init__(self, number, connection):
        self.number = number
        self.connection = connection
        self.decoder = wire.Decoder(wire.MAX_PAYLOAD)
        self.out = bytearray()
        self.watches = set()
        self.transactions = set()


class RingBridge(threading.Thread):
    """Serves the ring of one domain on the unix socket at `path` until `stop()`."""

    def __init__(self, ring, path):
        super().__init__(name=f"ring of domain {ring.domid}", daemon=True)
        self._ring = ring
        self._users = {}
        self._under_way = {}
        self._last_id = 0
        self._last_user = 0
        self._to_ring = bytearray()
        self._from_ring = wire.Decoder()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._listener.setblocking(False)
        self._wake, self._waker = socket.socketpair()
        self._path = path
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._selector.register(ring.kick, selectors.EVENT_READ, ring.clear_kicks)

    def stop(self):
        """End every connection, as when the domain is gone; the ring is closed too."""
        self._waker.send(b"x")
        self.join()

    def run(self):
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    self._close()
                    return
                if isinstance(key.data, _User):
                    self._serve(key.data)
                else:
                    key.data()
            self._pump()

    def _close(self):
        for user in list(self._users.values()):
            user.connection.close()
        for it in (self._listener, self._wake, self._waker, self._selector, self._ring):
            it.close()
        self._path.unlink(missing_ok=True)

    def _accept(self):
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._last_user += 1
        user = self._users[self._last_user] = _User(self._last_user, connection)
        self._selector.register(connection, selectors.EVENT_READ, user)

    def _serve(self, user):
        try:
            data = user.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave(user)
            return
        try:
            for message in user.decoder.receive_data(data):
                self._forward(user, *message)
        except wire.FrameError:
            self._leave(user)

    def _forward(self, user, operation, request_id, tx, payload):
        if operation in (wire.WATCH, wire.UNWATCH):
            path, _, token = payload.partition(b"\0")
            payload = b"%s\0%d:%s" % (path, user.number, token)
        self._request(operation, tx, payload, (user, request_id))

    def _request(self, operation, tx, payload, origin):
        self._last_id += 1
        self._under_way[self._last_id] = (origin, operation, tx, payload)
        self._to_ring += wire.encode(operation, self._last_id, tx, payload)

    def _leave(self, user):
        self._selector.unregister(user.connection)
        user.connection.close()
        del self._users[user.number]
        self._clear(user)

    def _pump(self):
        while True:
            sent = self._ring.put(self._to_ring) if self._to_ring else 0
            del self._to_ring[:sent]
            received = self._ring.take()
            for message in self._from_ring.receive_data(received):
                self._deliver(*message)
            if not sent and not received:
                break
        for user in list(self._users.values()):
            self._flush(user)

    def _flush(self, user):
        try:
            while user.out:
                del user.out[: user.connection.send(user.out)]
        except BlockingIOError:
            pass
        except OSError:
            self._leave(user)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if user.out else 0)
        self._selector.modify(user.connection, wanted, user)

    def _deliver(self, operation, request_id, tx, payload):
        if operation == wire.WATCH_EVENT:
            self._deliver_event(payload)
            return
        origin, asked, asked_tx, request = self._under_way.pop(request_id)
        if origin is None:
            return
        user, original_id = origin
        if operation == wire.WATCH:
            user.watches.add(request)
        elif operation == wire.UNWATCH:
            user.watches.discard(request)
        elif operation == wire.TRANSACTION_START:
            user.transactions.add(int(payload.rstrip(b"\0")))
        elif asked == wire.TRANSACTION_END:
            user.transactions.discard(asked_tx)
        if user.number in self._users:
            user.out += wire.encode(operation, original_id, tx, payload)
        else:
            self._clear(user)

    def _deliver_event(self, payload):
        path, _, token = payload.partition(b"\0")
        number, _, token = token.partition(b":")
        user = self._users.get(int(number))
        if user is not None:
            user.out += wire.encode(wire.WATCH_EVENT, 0, 0, path + b"\0" + token)

    def _clear(self, user):
        """Drop what a user left behind; an answer under way may bring more."""
        for payload in user.watches:
            self._request(wire.UNWATCH, 0, payload, None)
        for tx in user.transactions:
            self._request(wire.TRANSACTION_END, tx, b"F\0", None)
        user.watches.clear()
        user.transactions.clear()
