"""Where a broker is, and how one shows who one is: for brokerctl's end of a connection."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import time
from pathlib import Path  # noqa: TC003 - read at run time, for the struct
from typing import Final

import msgspec

from broker.pki.defaults import BROKER_HOST

DEFAULT_PORT: Final = 7443
_TURN: Final = 0.02
"""Seconds between two tries to get into the broker's queue."""

_TLS: Final = re.compile(
    r"tls:(?:\[([0-9A-Fa-f:.%]{2,60})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?"
)


class AddressError(ValueError):
    """An address, or a certificate that goes with it, will not do; the message says why."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files: the caller's certificate and key, and who vouches for the broker.

    `server_name` is the name the broker's certificate has to have, where that is not the host.
    """

    cert: Path
    key: Path
    ca: Path
    server_name: str | None = None


class Address(msgspec.Struct, frozen=True):
    """A local socket (`credentials` None), or TLS over TCP or over a unix socket."""

    text: str
    path: str | None
    host: str = ""
    port: int = 0
    credentials: Credentials | None = None


def local(path: str) -> Address:
    """The broker's own socket, where the kernel says who calls."""
    return Address(path, path)


def parse_address(text: str, credentials: Credentials | None) -> Address:
    """Read `unix:PATH`, `tls:HOST[:PORT]` or `tls-unix:PATH`.

    Raises:
        AddressError: it is none of them, or TLS without credentials.
    """
    if text.startswith("unix:/"):
        return local(text.removeprefix("unix:"))
    match = _TLS.fullmatch(text)
    if not (match or text.startswith("tls-unix:/")):
        raise AddressError(
            f"{text[:200]!a} is no broker's address: tls:HOST:PORT, tls-unix:/PATH or unix:/PATH"
        )
    if credentials is None:
        raise AddressError(f"{text}: TLS needs --cert, --key and --ca (brokerctl pki issue)")
    if match is None:
        return Address(text, text.removeprefix("tls-unix:"), credentials=credentials)
    port = int(match[3] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise AddressError(f"{text}: no such port")
    return Address(text, None, match[1] or match[2], port, credentials)


def open_connection(address: Address, timeout: float) -> http.client.HTTPConnection:
    """An HTTP connection to the broker there, not yet connected; `timeout` in seconds.

    Raises:
        AddressError: a certificate, key or CA does not read.
    """
    context = None if address.credentials is None else _context(address.credentials)
    return _Connection(address, timeout, context)


class _Connection(http.client.HTTPConnection):
    """HTTP over what the address says."""

    def __init__(self, address: Address, timeout: float, context: ssl.SSLContext | None) -> None:
        super().__init__(address.host or "localhost", address.port, timeout=timeout)
        self._address = address
        self._context = context

    def connect(self) -> None:
        """Connect, and with TLS see that it is the broker; that it lets one in only it can say."""
        address = self._address
        if address.path is None:
            plain = socket.create_connection((address.host, address.port), self.timeout)
        else:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(self.timeout)
        with contextlib.ExitStack() as closing:
            closing.callback(plain.close)
            if address.path is not None:
                _connect_unix(plain, address.path, self.timeout)
            self.sock = plain
            if self._context is not None and address.credentials is not None:
                name = address.credentials.server_name or address.host or BROKER_HOST
                self.sock = self._context.wrap_socket(plain, server_hostname=name)
            closing.pop_all()


def _connect_unix(plain: socket.socket, path: str, timeout: float | None) -> None:
    """Connect; while the broker has more callers than it can take at once, wait for one's turn."""
    end = time.monotonic() + (timeout or 0)
    while True:
        try:
            plain.connect(path)
        except BlockingIOError:  # a full queue; TCP would wait by itself
            if time.monotonic() > end:
                raise
            time.sleep(_TURN)
        else:
            return


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        what = credentials.ca
        context.load_verify_locations(what)
        what = credentials.cert
        what.read_bytes()
        what = credentials.key
        context.load_cert_chain(credentials.cert, what)
    except OSError as error:  # an SSLError is one, too
        raise AddressError(f"{what}: {error.strerror or error}") from None
    return context
