"""The simulated toolstack leaves what real libxl leaves, and takes it away again."""

from contextlib import asynccontextmanager
from pathlib import Path

import pytest_twisted
from support.connect import connected
from support.dumps import dump
from twisted.internet import reactor, task

from broker.service.specs import load_specs
from broker.sim.drivers import Drivers
from broker.sim.toolstack import Toolstack, vbd, vif

SPECS = load_specs(Path(__file__).parents[2] / "protocol_specs")
UUID = "56b8d9d0-f417-45de-ab20-17715a9d5aab"
DISK = vbd(51712, "/srv/disk1.img")
NIC = vif(0, "00:16:3e:00:00:01")
SUBTREES = (
    *(
        "/local/domain/1/device/",
        "/local/domain/0/backend/vbd/1/",
        "/local/domain/0/backend/vif/1/",
    ),
    *("/local/domain/1/memory/", "/local/domain/1/cpu/"),
    *("/libxl/1/device/vbd/", "/libxl/1/device/vif/", f"/vm/{UUID}"),
)
DRIVERS_WRITE = ("feature-", "multi-queue-", "max-ring", "physical-device", "node")
NOT_SIMULATED = ("protocol", "event-channel", "start_time")


FRONT = "/local/domain/1/device"


@asynccontextmanager
async def driving(domid, address):
    """The drivers of a domain, on a connection of its own."""

    def on_event(path, token):
        drivers.on_event(path, token)

    async with connected(address, on_event) as connection:
        drivers = Drivers(domid, connection, SPECS)
        await drivers.start()
        yield


async def reaching(connection, paths, states):
    """Wait until each node has its one-letter state."""
    wanted = [state.encode() for state in states]
    deadline = reactor.seconds() + 10
    while (found := await connection.read_many(paths)) != wanted:
        assert reactor.seconds() < deadline, found
        await task.deferLater(reactor, 0.01)


async def created(connection):
    async def introduce(domid):
        """The guest itself is not part of this."""

    toolstack = Toolstack(connection, introduce)
    await toolstack.create(1, UUID, "a", [DISK, NIC])
    return toolstack


async def nodes_with_permissions(connection):
    tree = await connection.read_tree("/")
    permissions = await connection.get_perms_many(list(tree))
    return {path: (tree[path], perms) for path, perms in zip(tree, permissions, strict=True)}


@pytest_twisted.ensureDeferred
async def test_a_created_domain_has_the_nodes_and_permissions_of_real_xen(store_daemon):
    async with connected(store_daemon.address) as connection:
        store_daemon.guest(1)
        await created(connection)
        ours = await nodes_with_permissions(connection)
    real = {
        path: node
        for path, node in dump("1-domu-created-paused").items()
        if path.startswith(SUBTREES)
        and not path.rpartition("/")[2].startswith((*DRIVERS_WRITE, *NOT_SIMULATED))
        and "/image" not in path
        and "/suspend" not in path
        and not path.endswith("vbd/1/51712/hotplug-status")  # the hotplug script's
    }
    assert len(real) > 60
    state_moved_on = {path for path in real if path.endswith(("/state", "/hotplug-status"))}
    scripts = {path for path in real if path.endswith("/script")}  # ours are the broker's
    for path, (value, permissions) in real.items():
        assert ours[path][1] == permissions, path
        if path not in state_moved_on | scripts:
            assert ours[path][0] == value, path


@pytest_twisted.ensureDeferred
async def test_a_destroyed_domain_leaves_no_node_of_its_own(store_daemon):
    async with connected(store_daemon.address) as connection:
        store_daemon.guest(1)
        toolstack = await created(connection)
        await toolstack.attach(1, vif(1, "00:16:3e:00:00:02"))
        await toolstack.detach(1, vif(1, "00:16:3e:00:00:02"))
        await toolstack.destroy(1, UUID, [DISK, NIC])
        left = await connection.read_tree("/")
    leavings = ("/local/domain/1/", "/libxl/1", f"/vm/{UUID}", "/local/domain/0/backend/vif/1/0")
    assert not [path for path in left if path.startswith(leavings)]


@pytest_twisted.ensureDeferred
async def test_drivers_connect_only_once_their_gates_are_open(store_daemon):
    async with connected(store_daemon.address) as connection:
        guest = store_daemon.guest(1)
        async with driving(0, store_daemon.address), driving(1, guest.address):
            await created(connection)
            states = ("/vbd/1/51712/state", "/vif/1/0/state")
            backends = [f"/local/domain/0/backend{state}" for state in states]
            await reaching(connection, [f"{FRONT}/vbd/51712/state", f"{FRONT}/vif/0/state"], "34")
            assert await connection.read_many(backends) == [b"2", b"2"]
            await connection.write("/local/domain/0/backend/vbd/1/51712/physical-device", b"7:0")
            await connection.write("/local/domain/0/backend/vif/1/0/hotplug-status", b"connected")
            await reaching(connection, backends, "44")
            await reaching(connection, [f"{FRONT}/vbd/51712/state"], "4")
