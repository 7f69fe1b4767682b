"""dom0 takes the devices of a backend domain away that the broker holds apart, and no others."""

from __future__ import annotations

import pytest
import pytest_twisted
from bed import Bed
from records import KEY, OTHER_KEY, UUID, record
from twisted.internet import reactor

from broker.agent.untrusted_backends import UntrustedBackends
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import NotFoundError
from broker.xenstore.transport import connect

DRIVER, GUEST = 2, 3
DRIVER_UUID = UUID.replace("56b8", "0000")
DECISION = f"/broker/v1/decision/{DRIVER}/vif/{GUEST}/0"
PLACES = (
    f"/local/domain/{GUEST}/device/vif/0",
    f"/local/domain/{DRIVER}/backend/vif/{GUEST}/0",
    f"/libxl/{GUEST}/device/vif/0",
)
REASON = f"quarantined: backend domain {DRIVER}, not confirmed within 10 s"


class Host(Bed):
    """A driver domain that serves a guest's vif, and what the broker published of it."""

    def __init__(self, daemon):
        super().__init__(daemon)
        self.store.write(f"/local/domain/{DRIVER}/vm", f"/vm/{DRIVER_UUID}")
        self.status("refused quarantined: not confirmed within 10 s")
        self.attach("vif/0", fe=GUEST, be=DRIVER, uuid=UUID)
        self.store.write(f"{PLACES[0]}/state", "1")

    def status(self, text):
        self.store.write(f"/vm/{DRIVER_UUID}/security/status", text)

    def decide(self, verdict="deny", **changes):
        fields = {"frontend": GUEST, "backend": DRIVER, "reason": REASON, **changes}
        self.store.write(DECISION, record(verdict, **fields))

    def present(self):
        return [path for path in PLACES if self.exists(path)]

    def exists(self, path):
        try:
            self.store.read(path)
        except NotFoundError:
            return False
        return True


@pytest.fixture
def host(store_daemon):
    host = Host(store_daemon)
    yield host
    host.close()


async def look(host):
    connection = StoreConnection(lambda *_: None, reactor)
    await connect(reactor, host.daemon.address, connection)
    try:
        await UntrustedBackends(lambda: connection, KEY.public_key(), reactor).look()
    finally:
        connection.close()
        await connection.lost


@pytest_twisted.ensureDeferred
async def test_a_backend_that_is_held_apart_loses_its_devices_at_both_ends(host):
    host.decide()
    await look(host)
    assert host.present() == []
    await look(host)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "grant"},
        {"verdict": "pending"},
        {"reason": "no allow rule matches"},
        {"key": OTHER_KEY},
        {"uuid": DRIVER_UUID},
        {"device": "1"},
        {"backend": 0},
    ],
    ids=("grant", "pending", "reason", "key", "uuid", "device", "backend"),
)
@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_away_but_on_a_signed_denial_of_that_life_for_the_backend(
    host, changes
):
    host.decide(**changes)
    await look(host)
    assert len(host.present()) == len(PLACES)


@pytest_twisted.ensureDeferred
async def test_nothing_is_looked_for_while_the_backend_is_not_held_apart(host):
    host.decide()
    host.status("labelled")
    await look(host)
    assert len(host.present()) == len(PLACES)


@pytest_twisted.ensureDeferred
async def test_a_device_that_another_backend_serves_now_stays(host):
    host.decide()
    copy = PLACES[2]
    host.store.write(f"{copy}/backend", f"/local/domain/0/backend/vif/{GUEST}/0")
    await look(host)
    assert len(host.present()) == len(PLACES)
