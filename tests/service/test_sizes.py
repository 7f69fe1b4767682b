"""How large domains are, as `domain list` tells it: from what libxl wrote, or not at all."""

from __future__ import annotations

import pytest
import pytest_twisted

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller

run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")
HOME = "/local/domain/3"


def sized(host, nodes):
    host.create(3)
    for path, value in nodes.items():
        host.client.write(f"{HOME}/{path}", value)


async def size(brokerd):
    listed = await brokerd.admin.domain_list(CALLER, methods.Nothing())
    [it] = [it for it in listed if it.domid == 3]
    return it.memory, it.vcpus


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ({}, (None, None)),
        ({"memory/target": b"98304", "memory/static-max": b"131072"}, (98304, None)),
        ({"memory/static-max": b"131072"}, (131072, None)),
        ({"memory/target": b"-1", "memory/static-max": b"x"}, (None, None)),
        ({"cpu/0/availability": b"online"}, (None, 1)),
        (
            {f"cpu/{it}/availability": b"online" if it < 3 else b"offline" for it in range(5)},
            (None, 3),
        ),
        ({"cpu/0/availability": b"online", "cpu/1": b""}, (None, None)),
        ({"cpu/none": b""}, (None, None)),
    ],
)
@run
async def test_memory_and_vcpus_are_told_as_libxl_wrote_them(nodes, told, host, box):
    sized(host, nodes)
    assert await size(await box.start()) == told


@run
async def test_without_a_store_domains_are_listed_and_their_sizes_are_not_known(host, box):
    sized(host, {"memory/target": b"98304"})
    brokerd = await box.start()
    connection = box.engine.connection
    connection.close()
    assert await size(brokerd) == (None, None)
    box.engine.connection = None
    assert await size(brokerd) == (None, None)
