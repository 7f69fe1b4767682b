"""The floor: the least that any broker has to do, in plain Python on a raw socket.

    python -m tools.bench.responder SOCKET LOGFILE

For each watched request node that changes: read it, append one line and fdatasync it, sign a
record of a decision's length, write it to the decision node. It mirrors nothing, checks nothing
and decides nothing. Requests that arrive together are answered together, as brokerd does it.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

READ, WATCH, WRITE, EVENT = 2, 4, 11, 15
REQUESTS = b"/bench/request"
DECISIONS = b"/bench/decision"
FILLER = b"x" * 600
"""As long as the fields of a real record."""


def frame(operation: int, request_id: int, payload: bytes) -> bytes:
    """One request on the wire."""
    return struct.pack("<IIII", operation, request_id, 0, len(payload)) + payload


class Wire:
    """Frames from a blocking socket, as many as have arrived."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self._buffer = b""

    def receive(self) -> list[tuple[int, bytes]]:
        """At least one complete frame: operation and payload."""
        frames: list[tuple[int, bytes]] = []
        while not frames:
            data = self.socket.recv(1 << 18)
            if not data:
                sys.exit(0)
            self._buffer += data
            at = 0
            while len(self._buffer) - at >= 16:
                operation, _, _, length = struct.unpack_from("<IIII", self._buffer, at)
                if len(self._buffer) - at - 16 < length:
                    break
                frames.append((operation, self._buffer[at + 16 : at + 16 + length]))
                at += 16 + length
            self._buffer = self._buffer[at:]
        return frames


def answer(wire: Wire, log: int, key: Ed25519PrivateKey, paths: list[bytes]) -> list[bytes]:
    """Serve `paths`; returns the request paths whose events came meanwhile."""
    later: list[bytes] = []
    wire.socket.sendall(b"".join([frame(READ, 1, path + b"\0") for path in paths]))
    values: list[bytes] = []
    while len(values) < len(paths):
        for operation, payload in wire.receive():
            if operation == EVENT:
                later.append(payload.split(b"\0")[0])
            else:
                values.append(payload)
    os.write(
        log,
        b"".join(
            [b'{"request":"%s","value":"%s"}\n' % it for it in zip(paths, values, strict=True)]
        ),
    )
    os.fdatasync(log)
    out: list[bytes] = []
    for path, value in zip(paths, values, strict=True):
        record = b"grant nonce=" + value + b" " + FILLER
        signature = base64.urlsafe_b64encode(key.sign(record))
        decision = DECISIONS + path[len(REQUESTS) :]
        out.append(frame(WRITE, 2, decision + b"\0" + record + b" sig=" + signature))
    wire.socket.sendall(b"".join(out))
    written = 0
    while written < len(out):
        for operation, payload in wire.receive():
            if operation == EVENT:
                later.append(payload.split(b"\0")[0])
            else:
                written += 1
    return later


def main() -> None:
    """Serve until the store closes the connection or the process is ended."""
    socket_path, log_path = sys.argv[1:]
    key = Ed25519PrivateKey.generate()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    wire = Wire(socket_path)
    wire.socket.sendall(frame(WATCH, 0, REQUESTS + b"\0r\0"))
    pending: list[bytes] = []
    while True:
        if not pending:
            events = [payload for operation, payload in wire.receive() if operation == EVENT]
            pending = [payload.split(b"\0")[0] for payload in events]
        paths = [path for path in dict.fromkeys(pending) if path != REQUESTS][:64]
        pending = [path for path in pending if path not in paths and path != REQUESTS]
        if paths:
            pending += answer(wire, log, key, paths)


if __name__ == "__main__":
    main()
