"""A device's nodes are those of real libxl: one by one, in its order, with its permissions."""

from __future__ import annotations

import re

import pytest
from support.dumps import DUMPS

from broker.xenstore import wire
from broker.xenstore.devices import (
    Device,
    attach_requests,
    disk_name,
    disk_number,
    from_copy,
    vbd,
    vif,
)

OPERATIONS = {
    wire.WRITE: "WRITE",
    wire.MKDIR: "MKDIR",
    wire.RM: "RM",
    wire.SET_PERMS: "SET_PERMS",
}
TRACED = re.compile(r"\d+ \S+ dom0 e4f70 (WRITE|MKDIR|RM|SET_PERMS|WATCH) (\S+) ?(.*?)\s*")
STOCK = {"vif": "/etc/xen/scripts/vif-bridge", "vbd": "/etc/xen/scripts/block"}
REAL = {
    "vbd/51712": vbd(51712, "/srv/disk1.img", protocol="x86_64-abi"),
    "vif/0": vif(0, "00:16:3e:00:00:01"),
}


def traced(device):
    """What xl did to a device of domain 1, from its first node until it waits for the backend."""
    ends = (f"/libxl/1/device/{device}", f"/local/domain/1/device/{device}")
    ends += (f"/local/domain/0/backend/{device.replace('/', '/1/')}",)
    found = []
    for line in (DUMPS / "create-connect-destroy.ops.txt").read_text().splitlines():
        match = TRACED.fullmatch(line)
        if match is None or not f"{match[2]}/".startswith(tuple(f"{end}/" for end in ends)):
            continue
        if match[1] == "WATCH":
            return found
        found.append(match.groups())
    raise AssertionError(device)


def ours(device):
    """What is written here, in the trace's words: RM after MKDIR is RM of what may be missing."""
    found = []
    for operation, payload in attach_requests(1, device):
        path, _, rest = payload.partition(b"\0")
        name = OPERATIONS[operation]
        value = rest.rstrip(b"\0").replace(b"\0", b" ") if name != "WRITE" else rest
        if name == "RM" and found[-1] == ("MKDIR", path.decode(), ""):
            found.pop()
        found.append((name, path.decode(), value.decode()))
    return found


@pytest.mark.parametrize("name", REAL)
def test_a_device_is_written_as_the_trace_of_real_libxl_has_it(name):
    device = REAL[name]
    stock = Device(
        kind=device.kind,
        devid=device.devid,
        details=device.details | {"script": STOCK[device.kind]},
        protocol=device.protocol,
    )
    real = traced(name)
    assert len(real) > 30
    assert ours(stock) == real


@pytest.mark.parametrize("name", REAL)
def test_a_device_is_the_same_again_from_the_toolstacks_copy(name):
    device = REAL[name]
    copy = {"frontend": "x", "backend": "y", **device.backend_keys(1)}
    mixed = dict(sorted(copy.items()))
    again = from_copy(device.kind, device.devid, 0, mixed, device.protocol)
    assert ours(again) == ours(device)


def test_a_driver_domains_device_is_the_driver_domains():
    perms = [it for it in ours(vif(0, "00:16:3e:00:00:01", backend=2)) if it[0] == "SET_PERMS"]
    assert ("SET_PERMS", "/local/domain/2/backend/vif/1/0", "n2 r1") in perms
    assert ("SET_PERMS", "/local/domain/1/device/vif/0", "n1 r2") in perms
    assert ("SET_PERMS", "/local/domain/1/device/vif/0/mtu", "n2 r1") in perms


def test_addresses_stand_where_libxl_puts_them():
    keys = list(vif(1, "00:16:3e:00:00:01", ip="10.0.0.1").backend_keys(3))
    assert keys == [
        *("frontend-id", "online", "state", "script", "mac", "ip", "bridge", "handle", "type"),
        "hotplug-status",
    ]


@pytest.mark.parametrize(
    ("devid", "name"),
    [
        (51712, "xvda"),
        (51713, "xvda1"),
        (51728, "xvdb"),
        (51952, "xvdp"),
        ((1 << 28) + (16 << 8), "xvdq"),
        ((1 << 28) + (26 << 8) + 3, "xvdaa3"),
        (768, "768"),
    ],
)
def test_a_disks_name_is_that_of_its_number(devid, name):
    assert disk_name(devid) == name


def test_disks_are_numbered_one_after_another():
    assert [disk_name(disk_number(disk)) for disk in (0, 1, 15, 16, 25)] == [
        *("xvda", "xvdb", "xvdp", "xvdq", "xvdz"),
    ]
