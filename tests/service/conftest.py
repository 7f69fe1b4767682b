from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import BrokerBox, Host
from twisted.internet.threads import deferToThread

from broker.cli import main as brokerctl


@pytest.fixture
def host(store_daemon):
    """dom0's toolstack on each store in turn."""
    host = Host(store_daemon)
    yield host
    host.close()


@pytest_twisted.async_yield_fixture
async def box(store_daemon):
    """A place to run brokers on each store in turn."""
    box = BrokerBox(store_daemon.address)
    yield box
    await box.close()


@pytest.fixture
def ctl(box, capsys):
    """Runs brokerctl against the broker of the box: exit code, standard output and error."""

    async def start(*words):
        words = [str(word) for word in ("--socket", box.directory / "rpc.sock", *words)]
        code = await deferToThread(brokerctl.main, words)
        out, err = capsys.readouterr()
        return code, out, err

    return start
