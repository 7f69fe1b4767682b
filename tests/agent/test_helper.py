"""dom0's helper: an unprivileged broker and a driver domain on their rings can do their work."""

from __future__ import annotations

import pytest
import pytest_twisted
from bed import Bed, start_agent, until
from records import UUID
from twisted.internet import reactor

from broker.agent.helper import HelperSession
from broker.agent.helper_nodes import HelperNodes
from broker.xenstore.errors import DeniedError, NotFoundError, StoreError

BROKER, DRIVER, GUEST, NEXT = 1, 2, 3, 4
VIF = "vif/0"
DECISION = f"/broker/v1/decision/{DRIVER}/vif/{GUEST}/0"
REPORT = f"/broker/v1/report/{DRIVER}/vif/{GUEST}/0"
FRONTEND = f"/local/domain/{GUEST}/device/vif/0"
BACKEND = f"/local/domain/{DRIVER}/backend/vif/{GUEST}/0"
TRUSTED = f"/libxl/{GUEST}/device/vif/0"


class Host(Bed):
    """domain 0, the broker's domain, a driver domain and a guest."""

    def __init__(self, daemon):
        super().__init__(daemon)
        self.store.write("/vm", "")
        self.store.write("/libxl", "")
        self.guests = {domid: daemon.guest(domid) for domid in (BROKER, DRIVER, GUEST)}
        self.clients = {domid: guest.client() for domid, guest in self.guests.items()}
        self.broker, self.driver, self.guest = (self.clients[it] for it in (BROKER, DRIVER, GUEST))
        for domid in self.guests:
            # As libxl: the domain's home is domain 0's, readable by the domain.
            self.store.set_perms(f"/local/domain/{domid}", "n0", f"r{domid}")

    def close(self):
        for client in self.clients.values():
            client.close()
        super().close()

    def create(self, uuid=UUID):
        """The guest's own nodes and a vif in the driver domain, with libxl's permissions."""
        for path in (f"/vm/{uuid}", f"/vm/{uuid}/name", f"/local/domain/{GUEST}/name"):
            self.store.write(path, "web")
            self.store.set_perms(path, "n0", f"r{GUEST}")
        self.attach(VIF, fe=GUEST, be=DRIVER, uuid=uuid)
        self.store.set_perms(f"/local/domain/{GUEST}/vm", "n0", f"r{GUEST}")
        for path in (BACKEND, *(f"{BACKEND}/{name}" for name in self.values(BACKEND))):
            self.store.set_perms(path, f"n{DRIVER}", f"r{GUEST}")
        self.store.write(f"{FRONTEND}/state", "1")
        for path in (FRONTEND, f"{FRONTEND}/state"):
            self.store.set_perms(path, f"n{GUEST}", f"r{DRIVER}")

    def broker_reads(self, path):
        try:
            return self.broker.read(path)
        except StoreError:
            return None


@pytest_twisted.async_yield_fixture
async def host(store_daemon):
    made = Host(store_daemon)
    yield made
    made.close()


@pytest_twisted.async_yield_fixture
async def helper(host):
    running = HelperSession(host.daemon.address, reactor, broker=BROKER)
    running.startService()
    yield running
    await running.stopService()


async def served(host):
    """The helper is done with the guest's device: its tree comes last."""
    await until(lambda: host.broker_reads(f"{BACKEND}/mac"), "the backend open to the broker")


@pytest_twisted.ensureDeferred
async def test_the_nodes_have_the_rights_of_the_contract(host, helper):
    host.create()
    await served(host)
    perms = host.store.get_perms
    assert perms(DECISION) == ["n0", f"b{BROKER}", f"r{DRIVER}"]
    for path in (REPORT, f"{REPORT}/nonce", f"{REPORT}/enforced"):
        assert perms(path) == ["n0", f"b{BROKER}", f"b{DRIVER}"]
    for name in (
        "acm_label/labelname",
        "acm_label/policyname",
        "ssidref",
        "status",
        "channel/vif/0",
    ):
        assert perms(f"/vm/{UUID}/security/{name}") == ["n0", f"b{BROKER}", f"r{GUEST}"]
    assert perms("/broker/v1/heartbeat") == ["r0", f"b{BROKER}"]
    assert perms("/broker/v1/state") == ["n0", f"b{BROKER}"]


@pytest_twisted.ensureDeferred
async def test_what_libxl_granted_is_kept_and_a_reader_added(host, helper):
    host.create()
    await served(host)
    perms = host.store.get_perms
    assert perms(FRONTEND) == [f"n{GUEST}", f"r{DRIVER}", f"r{BROKER}"]
    assert perms(BACKEND) == [f"n{DRIVER}", f"r{GUEST}", f"r{BROKER}"]
    assert perms(f"/vm/{UUID}/name") == ["n0", f"r{GUEST}", f"r{BROKER}"]


@pytest_twisted.ensureDeferred
async def test_the_broker_reads_what_it_decides_on_and_writes_what_it_decides(host, helper):
    host.create()
    await served(host)
    broker = host.broker
    assert str(GUEST) in broker.directory("/local/domain")
    assert broker.directory(f"/libxl/{GUEST}/device") == ["vif"]
    assert broker.read(f"{TRUSTED}/backend") == BACKEND.encode()
    assert broker.read(f"{FRONTEND}/state") == b"1"
    assert broker.read(f"/local/domain/{GUEST}/vm") == f"/vm/{UUID}".encode()
    assert broker.read(f"/vm/{UUID}/name") == b"web"
    for path in (
        DECISION,
        "/broker/v1/heartbeat",
        "/broker/v1/state",
        f"/vm/{UUID}/security/status",
    ):
        broker.write(path, "x")
        assert host.store.read(path) == b"x"
        assert host.store.get_perms(path)[0] in {"n0", "r0"}


@pytest_twisted.ensureDeferred
async def test_nobody_else_writes_them(host, helper):
    host.create()
    await served(host)
    for client in (host.guest, host.driver):
        for path in (DECISION, "/broker/v1/heartbeat", "/broker/v1/policy/digest"):
            with pytest.raises(DeniedError):
                client.write(path, "grant")
        with pytest.raises(DeniedError):
            client.write(f"/vm/{UUID}/security/acm_label/labelname", "root")
    with pytest.raises(DeniedError):
        host.guest.write(f"{REPORT}/nonce", "0" * 32)
    with pytest.raises(DeniedError):
        host.guest.read(DECISION)
    assert host.driver.read(DECISION) == b""
    with pytest.raises(DeniedError):
        host.broker.write(f"{TRUSTED}/params", "x")


@pytest_twisted.ensureDeferred
async def test_the_broker_sees_domains_come_and_devices_change(host, helper):
    host.create()
    await served(host)
    for path, token in (("@introduceDomain", "i"), ("@releaseDomain", "r"), (FRONTEND, "f")):
        host.broker.watch(path, token)
    host.broker.drain_events()
    host.guest.write(f"{FRONTEND}/state", "3")
    assert host.broker.next_event() == (f"{FRONTEND}/state", "f")
    guest = host.daemon.guest(9)
    assert host.broker.next_event() == ("@introduceDomain", "i")
    guest.die()
    assert host.broker.next_event() == ("@releaseDomain", "r")


@pytest_twisted.ensureDeferred
async def test_what_drivers_write_later_is_readable_too(host, helper):
    host.create()
    await served(host)
    host.driver.write(f"{BACKEND}/feature-sg", "1")
    host.guest.write(f"{FRONTEND}/tx-ring-ref", "8")
    assert host.broker.read(f"{BACKEND}/feature-sg") == b"1"
    assert host.broker.read(f"{FRONTEND}/tx-ring-ref") == b"8"


@pytest_twisted.ensureDeferred
async def test_the_nodes_of_a_vanished_device_go_and_come_again(host, helper):
    host.create()
    await served(host)
    host.broker.write(DECISION, "grant of the first device")
    host.detach(VIF, fe=GUEST, be=DRIVER)
    await until(lambda: host.read(DECISION) is None and host.read(REPORT) is None)
    await until(lambda: host.read(f"/broker/v1/decision/{DRIVER}") is None)
    host.create()
    await until(lambda: host.read(DECISION) == b"")


@pytest_twisted.ensureDeferred
async def test_where_a_privileged_broker_removed_its_record_first_nothing_empty_is_left(
    host, helper
):
    host.create()
    await served(host)
    host.store.rm(DECISION.rpartition("/")[0])
    host.detach(VIF, fe=GUEST, be=DRIVER)
    await until(lambda: host.read(f"/broker/v1/decision/{DRIVER}") is None)
    await until(lambda: host.read(f"/broker/v1/report/{DRIVER}") is None)


@pytest_twisted.ensureDeferred
async def test_a_domain_that_ends_while_it_is_served_leaves_nothing_in_vm(host, monkeypatch):
    make = HelperNodes.make

    async def make_late(nodes, wanted):
        if any(path.startswith("/vm/") for path in wanted):
            host.store.rm(f"/vm/{UUID}")
        await make(nodes, wanted)

    monkeypatch.setattr(HelperNodes, "make", make_late)
    running = HelperSession(host.daemon.address, reactor, broker=BROKER)
    running.startService()
    host.create()
    await served(host)
    await until(lambda: UUID not in host.store.directory("/vm"))
    await running.stopService()


@pytest_twisted.ensureDeferred
async def test_a_primary_console_has_no_nodes_of_ours(host, helper):
    copy = f"/libxl/{GUEST}/device/console"
    for device in ("0", "1"):
        path = f"/local/domain/0/backend/console/{GUEST}/{device}"
        host.store.write(f"{copy}/{device}/backend", path)
    host.create()
    await served(host)
    decision = f"/broker/v1/decision/0/console/{GUEST}"
    await until(lambda: host.read(f"{decision}/1") == b"")
    assert host.read(f"{decision}/0") is None


@pytest_twisted.ensureDeferred
async def test_nodes_of_devices_that_vanished_while_it_was_away_go(host):
    host.store.write(DECISION, "old")
    host.store.write(f"{REPORT}/nonce", "old")
    helper = HelperSession(host.daemon.address, reactor, broker=BROKER)
    helper.startService()
    await until(lambda: host.read(DECISION) is None and host.read(REPORT) is None)
    await helper.stopService()


@pytest_twisted.ensureDeferred
async def test_values_survive_its_restart(host, helper):
    host.create()
    await served(host)
    host.broker.write(DECISION, "grant")
    await helper.stopService()
    host.store.set_perms(BACKEND, f"n{DRIVER}", f"r{GUEST}")
    helper.startService()
    await until(lambda: f"r{BROKER}" in host.store.get_perms(BACKEND))
    assert host.read(DECISION) == b"grant"


@pytest_twisted.ensureDeferred
async def test_labels_wiped_by_libxl_are_made_room_for_again(host, helper):
    host.create()
    await served(host)
    host.store.rm(f"/vm/{UUID}")
    host.store.write(f"/vm/{UUID}/name", "web")
    status = f"/vm/{UUID}/security/status"
    # A node is made first and given its rights then.
    await until(
        lambda: host.read(status) == b"" and host.store.get_perms(status)[1:2] == [f"b{BROKER}"]
    )


@pytest_twisted.ensureDeferred
async def test_it_makes_no_domain_of_a_uuid_that_is_none(host, helper):
    host.create(uuid="web")
    await served(host)
    assert host.read("/vm/web/security") is None


@pytest_twisted.ensureDeferred
async def test_a_store_that_comes_back_empty_is_served_anew(host, helper):
    host.create()
    await served(host)
    for client in host.clients.values():
        client.close()
    host.clients.clear()
    host.daemon.restart_empty()
    host.reconnect()
    await until(lambda: host.read("/broker/v1/heartbeat") == b"")


@pytest_twisted.ensureDeferred
async def test_a_guest_that_hides_its_frontend_hides_no_decision(host, helper):
    host.create()
    await served(host)
    host.guest.set_perms(FRONTEND, f"n{GUEST}")
    with pytest.raises(DeniedError):
        host.broker.read(FRONTEND)
    assert host.broker.read(f"{TRUSTED}/backend") == BACKEND.encode()
    # The next time libxl has to do with that domain, the broker is let in again.
    host.store.write(f"{TRUSTED}/online", "1")
    await until(lambda: host.broker_reads(FRONTEND) is not None)


@pytest_twisted.ensureDeferred
async def test_a_driver_domains_agent_works_with_nothing_but_its_ring(host, helper, tmp_path):
    agent = start_agent(host.guests[DRIVER].address, tmp_path, domid=DRIVER)
    host.create()
    await host.nonce(VIF, fe=GUEST, be=DRIVER)
    host.start_beating()
    host.decide(VIF, fe=GUEST, be=DRIVER)
    await host.comes_to(VIF, "open", fe=GUEST, be=DRIVER)
    assert host.gate(VIF, fe=GUEST, be=DRIVER)
    assert host.store.get_perms(f"{REPORT}/nonce")[0] == "n0"
    host.decide(VIF, "deny", fe=GUEST, be=DRIVER)
    await host.comes_to(VIF, "suspended", fe=GUEST, be=DRIVER)
    await agent.stop()


@pytest_twisted.ensureDeferred
async def test_a_refused_domain_is_told_once(host):
    refused = []
    helper = HelperSession(
        host.daemon.address,
        reactor,
        broker=BROKER,
        refused=lambda domid, why: refused.append((domid, why)),
    )
    helper.startService()
    host.create()
    await served(host)
    host.broker.write(f"/vm/{UUID}/security/status", "labelled")
    host.broker.write(f"/vm/{UUID}/security/status", "refused wall")
    await until(lambda: refused)
    host.store.write(f"{TRUSTED}/online", "1")
    host.broker.write(f"/vm/{UUID}/security/status", "refused wall")
    host.create()
    host.detach(VIF, fe=GUEST, be=DRIVER)
    await until(lambda: host.read(DECISION) is None)
    assert refused == [(GUEST, "refused wall")]
    await helper.stopService()


@pytest_twisted.ensureDeferred
async def test_a_broker_that_is_not_there_yet_is_waited_for(store_daemon):
    bed = Bed(store_daemon)
    bed.store.write("/vm", "")
    bed.store.write("/libxl", "")
    helper = HelperSession(store_daemon.address, reactor, broker=BROKER)
    helper.startService()
    await until(lambda: bed.read("/broker") is not None)
    guest = store_daemon.guest(BROKER)
    with guest.client() as client:

        def writes():
            try:
                client.write("/broker/v1/heartbeat", "1")
            except (DeniedError, NotFoundError):
                return False
            return True

        await until(writes)
    await helper.stopService()
    bed.close()


@pytest_twisted.ensureDeferred
async def test_nothing_is_reported_as_enforced_before_its_nonce(host, tmp_path):
    for name in ("nonce", "enforced"):
        host.store.write(f"{REPORT}/{name}", "")
    host.store.set_perms(f"{REPORT}/enforced", "n0", f"b{DRIVER}")
    host.create()
    agent = start_agent(host.guests[DRIVER].address, tmp_path, domid=DRIVER)
    await until(lambda: host.read(f"{BACKEND}/xpb-life"))
    host.store.set_perms(f"{REPORT}/nonce", "n0", f"b{DRIVER}")
    await host.nonce(VIF, fe=GUEST, be=DRIVER)
    await host.comes_to(VIF, "closed", fe=GUEST, be=DRIVER)
    await agent.stop()


@pytest.mark.parametrize("name", ["drops", "filters"])
@pytest_twisted.ensureDeferred
async def test_what_a_backend_counts_is_its_own_to_report_and_goes_with_its_last_channel(
    name, host, helper
):
    path = f"/broker/v1/report/{DRIVER}/{name}"
    host.create()
    await served(host)
    host.driver.write(path, "at=1 omitted=0")
    assert host.broker.read(path) == b"at=1 omitted=0"
    for client in (host.broker, host.guest):
        with pytest.raises(DeniedError):
            client.write(path, "forged")
    with pytest.raises(DeniedError):
        host.driver.write(f"/broker/v1/report/0/{name}", "forged")
    host.attach("vif/1", fe=GUEST, be=DRIVER)
    await until(lambda: host.read(f"{DECISION[:-1]}1") is not None, "nodes for another vif")
    host.detach(VIF, fe=GUEST, be=DRIVER)
    await until(lambda: host.read(DECISION) is None, "the first's nodes gone")
    assert host.read(path) == b"at=1 omitted=0"
    host.detach("vif/1", fe=GUEST, be=DRIVER)
    await until(lambda: host.read(f"/broker/v1/report/{DRIVER}") is None, "all of them gone")


@pytest_twisted.ensureDeferred
async def test_the_broker_is_found_by_its_uuid_and_followed_to_its_next_life(host):
    """Whatever a former life may read makes room, so that a node never fills up."""
    mini, told = "11111111-2222-4333-8444-555555555555", []
    host.create()
    helper = HelperSession(
        host.daemon.address, reactor, broker=0, broker_uuid=mini, found=told.append
    )
    helper.startService()
    perms = host.store.get_perms
    await until(lambda: host.read("/broker/v1/state") == b"")
    assert perms("/broker/v1/state") == ["n0"]
    host.store.write(f"/local/domain/{BROKER}/vm", f"/vm/{mini}")
    host.daemon.guest(NEXT)  # an introduction, whosever it is
    await served(host)
    assert told == [BROKER]
    host.store.rm(f"/local/domain/{BROKER}")
    host.store.write(f"/local/domain/{NEXT}/vm", f"/vm/{mini}")
    host.daemon.guest(NEXT + 1)
    await until(lambda: f"r{NEXT}" in perms(BACKEND))
    assert told == [BROKER, NEXT]
    assert perms("/broker/v1/state") == ["n0", f"b{NEXT}"]
    assert perms(BACKEND) == [f"n{DRIVER}", f"r{GUEST}", f"r{NEXT}"]
    await helper.stopService()
