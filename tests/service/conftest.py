from __future__ import annotations

import pytest
import pytest_twisted
from broker_host import BrokerBox, Host


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
