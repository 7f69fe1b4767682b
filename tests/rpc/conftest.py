from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import pytest_twisted
from rpc_fake_admin import FakeAdmin
from twisted.internet import reactor

from broker.rpc.http import Limits
from broker.rpc.server import LocalServer


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
