"""Abuses the RPC's TLS socket until it is stopped.

    python -m tools.bench.abuser SOCKET PKI

Strangers that connect and say nothing, say it slowly, talk plain HTTP or garbage, or have no
certificate; and somebody whose role may do nothing: calls without end, large bodies, bad JSON.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import sys
import time
from collections import deque
from pathlib import Path

HELD = 300
HEAD = b"POST /v1/label.set HTTP/1.1\r\nContent-Type: application/json\r\n"
CALL = HEAD + b"Content-Length: 2\r\n\r\n{}"
PAUSE = 0.002


def main() -> None:
    """Abuse; nothing that happens to a connection ends it."""
    path, pki = sys.argv[1], Path(sys.argv[2])
    known = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    known.check_hostname = False
    known.load_verify_locations(pki / "ca.crt")
    known.load_cert_chain(pki / "mallory.crt", pki / "mallory.key")
    unknown = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unknown.check_hostname = False
    unknown.verify_mode = ssl.CERT_NONE
    held: deque[socket.socket] = deque()
    kept: ssl.SSLSocket | None = None
    chance = random.Random(1)
    sys.stdout.write("abusing\n")
    sys.stdout.flush()
    while True:
        time.sleep(PAUSE)
        with contextlib.suppress(OSError):
            if len(held) >= HELD:
                held.popleft().close()
            what = chance.randrange(8)
            if what < 4:
                plain = _connect(path)
                held.append(plain)
                plain.send((b"", b"\x16\x03\x01", CALL, chance.randbytes(200))[what])
            elif what == 4:
                held[chance.randrange(len(held))].send(b"\x00")
            elif what == 5:
                held.append(unknown.wrap_socket(_connect(path)))
            else:
                if kept is None:
                    kept = known.wrap_socket(_connect(path))
                try:
                    kept.sendall((CALL, HEAD + b"Content-Length: 1000000000\r\n\r\nx")[what - 6])
                    if not kept.recv(4096):
                        kept = None
                except OSError:
                    kept = None


def _connect(path: str) -> socket.socket:
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plain.settimeout(1)
    plain.connect(path)
    return plain


if __name__ == "__main__":
    main()
