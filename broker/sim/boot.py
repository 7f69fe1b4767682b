"""Boots one simulated domain on a running store, as `xl create` would write it, and ends.

    python -m broker.sim.boot --store unix:/PATH --domid 1 web1 vif vbd:/dev/vg/red-1

For trying things out on the embedded store: no guest runs, only its nodes are there.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from typing import TYPE_CHECKING, Final

from twisted.internet import task
from twisted.internet.defer import Deferred

from broker.sim.toolstack import Toolstack, vbd, vif
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import StoreError
from broker.xenstore.transport import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.sim.toolstack import Device
    from broker.xenstore.transport import Reactor

_FIRST_DISK: Final = 51712
_DISKS_APART: Final = 16


def uuid_of(name: str) -> str:
    """The uuid that a simulated domain of this name has, each time it is booted."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"xen-policy-broker:{name}"))


def devices_of(words: Sequence[str], domid: int) -> list[Device]:
    """The devices that `vif` and `vbd:PARAMS` stand for.

    Raises:
        ValueError: a word is neither.
    """
    devices: list[Device] = []
    for word in words:
        kind, _, params = word.partition(":")
        number = sum(1 for device in devices if device.kind == kind)
        if word == "vif":
            devices.append(vif(number, f"00:16:3e:00:{domid & 255:02x}:{number:02x}"))
        elif kind == "vbd" and params:
            devices.append(vbd(_FIRST_DISK + _DISKS_APART * number, params))
        else:
            raise ValueError(f"not a device: {word!a}; vif and vbd:PARAMS are")
    return devices


async def boot(reactor: Reactor, store: str, domid: int, name: str, devices: list[Device]) -> None:
    """Write the domain's nodes.

    Raises:
        OSError: the store cannot be reached.
        StoreError: it refuses.
        ValueError: `store` is no store's address.
    """
    connection = StoreConnection(lambda _path, _token: None, reactor)
    await connect(reactor, store, connection)
    await Toolstack(connection).create(domid, uuid_of(name), name, devices)
    connection.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Boot one domain; exit 2 for bad input."""
    parser = argparse.ArgumentParser(prog="broker.sim.boot", description="Boot a simulated domain.")
    parser.add_argument("--store", required=True, metavar="unix:PATH")
    parser.add_argument("--domid", required=True, type=int)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("devices", nargs="*", metavar="vif|vbd:PARAMS")
    options = parser.parse_args(arguments)
    try:
        devices = devices_of(options.devices, options.domid)
    except ValueError as error:
        parser.error(str(error))

    async def run(reactor: Reactor) -> None:
        try:
            await boot(reactor, options.store, options.domid, options.name, devices)
        except (StoreError, OSError, ValueError) as error:
            sys.exit(f"{options.store}: {error}")

    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
