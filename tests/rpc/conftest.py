from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted
from cryptography.x509.oid import ExtendedKeyUsageOID
from rpc_fake_admin import FakeAdmin
from twisted.internet import reactor

from broker.pki.authority import Authority
from broker.pki.certificates import _issue
from broker.pki.names import Names
from broker.rpc.address import Credentials, parse_address
from broker.rpc.certificates import TlsFiles
from broker.rpc.limits import Limits
from broker.rpc.server import LocalServer, TlsServer


@pytest.fixture
def short_dir():
    """A directory whose sockets' paths are short enough for the kernel (108 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def admin():
    return FakeAdmin()


@pytest_twisted.async_yield_fixture
async def serve(short_dir, admin):
    """Starts a server on a real socket and answers its path; `serve(uids=…)` says who may call."""
    servers = []

    def start(path=short_dir / "run" / "s", **options):
        server = LocalServer(admin, path, reactor, reactor, **options)
        server.start()
        servers.append(server)
        return path

    start.servers = servers
    start.limits = Limits
    yield start
    for server in servers:
        await server.stop()


class People:
    """An authority in a directory, and what its certificates open."""

    def __init__(self, directory):
        self.directory = directory
        self.authority = Authority(directory)
        self.now = datetime.now(UTC)
        self.authority.init(("localhost", "127.0.0.1"), self.now)
        self.files = TlsFiles(
            certificate=directory / "broker.crt",
            key=directory / "broker.key",
            ca=directory / "ca.crt",
            revoked=directory / "revoked",
        )

    def credentials(self, name, **changes):
        """What `name` shows, as it is in the directory."""
        own = {"cert": self.directory / f"{name}.crt", "key": self.directory / f"{name}.key"}
        return Credentials(**{**own, "ca": self.directory / "ca.crt", **changes})

    def issue(self, name, role="operator", **options):
        self.authority.issue(Names(name, role), options.pop("now", self.now), **options)
        return self.credentials(name)

    def sign(self, name, sans, *, now=None, life=timedelta(days=1), purpose=None):
        """A certificate with any names that the authority signs."""
        purpose = purpose or ExtendedKeyUsageOID.CLIENT_AUTH
        now = now or self.now
        pair = _issue(self.authority._authority(), name, sans, purpose, (now, now + life))
        self.authority._write_pair(name, pair)
        return self.credentials(name)


@pytest.fixture
def people(short_dir):
    return People(short_dir / "pki")


@pytest.fixture
def make_people():
    """Makes another authority, in another directory."""
    return People


@pytest_twisted.async_yield_fixture
async def serve_tls(admin, people):
    """Starts a TLS server at an endpoint and answers its address for given credentials."""
    servers = []

    def start(listen="tcp:0:interface=127.0.0.1", **options):
        server = TlsServer(admin, [listen], people.files, reactor, **options)
        server.start()
        servers.append(server)

        def address(credentials):
            if listen.startswith("unix:"):
                return parse_address(f"tls-{listen}", credentials)
            port = server.ports[0].getHost().port
            return parse_address(f"tls:127.0.0.1:{port}", credentials)

        address.server = server
        return address

    yield start
    for server in servers:
        await server.stop()
