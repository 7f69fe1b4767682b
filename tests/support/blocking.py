"""A blocking store client for tests: plain, one request at a time, with a deadline.

It shares nothing with the product's client but the codec's numbers, so each can check the other.
"""

from __future__ import annotations

import socket
import struct
from collections import deque

from broker.xenstore import wire
from broker.xenstore.errors import ConnectionLostError, StoreError, error_for

DEADLINE = 30.0
"""Seconds a test waits for any one thing before it fails."""


class BlockingClient:
    """One connection to a store's unix socket; refusals are raised as `StoreError`."""

    def __init__(self, path):
        self.events = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(str(path))
        self._last_id = 0

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, operation, *strings, tx=0, raw=b""):
        """The payload of the answer to one request: NUL-terminated `strings`, then `raw`."""
        self._last_id += 1
        payload = b"".join(_bytes(it) + b"\0" for it in strings) + raw
        return self.call_payload(operation, payload or b"\0", tx)

    def call_payload(self, operation, payload, tx=0):
        request_id = self._last_id
        self.send(struct.pack("<IIII", operation, request_id, tx, len(payload)) + payload)
        while True:
            answered, answer_id, _, answer = self.receive()
            if answered == wire.WATCH_EVENT:
                self._keep(answer)
            elif answered == wire.ERROR:
                raise error_for(answer.rstrip(b"\0").decode(), repr(payload[:80]))
            else:
                assert (answered, answer_id) == (operation, request_id)
                return answer

    def send(self, data):
        self._socket.sendall(data)

    def receive(self):
        """One frame."""
        header = self._exactly(16)
        operation, request_id, tx, length = struct.unpack("<IIII", header)
        return operation, request_id, tx, self._exactly(length)

    def next_event(self, deadline=DEADLINE):
        """The next watch event as (path, token); TimeoutError if none comes."""
        if not self.events:
            self._socket.settimeout(deadline)
            try:
                operation, _, _, payload = self.receive()
            finally:
                self._socket.settimeout(DEADLINE)
            assert operation == wire.WATCH_EVENT, operation
            self._keep(payload)
        return self.events.popleft()

    def drain_events(self):
        """Every event caused by what was answered so far; a round trip comes after them."""
        self.call(wire.GET_DOMAIN_PATH, "0")
        events = list(self.events)
        self.events.clear()
        return events

    def read(self, path, tx=0):
        return self.call(wire.READ, path, tx=tx)

    def write(self, path, value=b"", tx=0):
        self.call(wire.WRITE, path, raw=_bytes(value), tx=tx)

    def mkdir(self, path, tx=0):
        self.call(wire.MKDIR, path, tx=tx)

    def rm(self, path, tx=0):
        self.call(wire.RM, path, tx=tx)

    def directory(self, path, tx=0):
        return [it.decode() for it in wire.split_strings(self.call(wire.DIRECTORY, path, tx=tx))]

    def get_perms(self, path, tx=0):
        answer = self.call(wire.GET_PERMS, path, tx=tx)
        return [it.decode() for it in wire.split_strings(answer)]

    def set_perms(self, path, *permissions, tx=0):
        self.call(wire.SET_PERMS, path, *permissions, tx=tx)

    def watch(self, path, token):
        """Register, and swallow nothing: the first event tells of the registration."""
        self.call(wire.WATCH, path, token)

    def unwatch(self, path, token):
        self.call(wire.UNWATCH, path, token)

    def start(self):
        return int(self.call(wire.TRANSACTION_START).rstrip(b"\0"))

    def end(self, tx, *, commit=True):
        self.call(wire.TRANSACTION_END, "T" if commit else "F", tx=tx)

    def introduce(self, domid, frame=1, port=1):
        self.call(wire.INTRODUCE, str(domid), str(frame), str(port))

    def release(self, domid):
        self.call(wire.RELEASE, str(domid))

    def is_introduced(self, domid):
        return self.call(wire.IS_DOMAIN_INTRODUCED, str(domid)) == b"T\0"

    def _keep(self, payload):
        path, token = wire.split_strings(payload)[:2]
        self.events.append((path.decode(), token.decode()))

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionLostError
            data += more
        return data


def outcome(function, *arguments, **options):
    """What the call returned, or the wire's error name, or "closed" for the connection's end."""
    try:
        return function(*arguments, **options)
    except (ConnectionLostError, ConnectionResetError):
        return "closed"
    except StoreError as error:
        return error.errno_name


def _bytes(value):
    return value if isinstance(value, bytes) else str(value).encode()
