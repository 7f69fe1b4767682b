"""The drivers of a simulated domain: both ends of its devices, as the descriptions have them.

`Drivers` runs one domain's drivers over its own connection, level-triggered, as the kernel's
xenbus does; what they write is `Driver`'s (protocol_driver.py), after the protocol description.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from broker.protocol.conditions import SIDES
from broker.sim.protocol_driver import Driver
from broker.xenstore.errors import StoreError
from broker.xenstore.paths import LOCAL_DOMAIN, backend_dir, frontend_dir, parse_backend_dir
from broker.xenstore.together import together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.protocol.spec import Spec
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transaction import Transaction


class Drivers:
    """The drivers of one domain: its backends, and its frontends towards domid 0.

    `specs` are the descriptions, by name; a device of a kind that none has is left alone.
    """

    _log = Logger()

    def __init__(self, domid: int, connection: StoreConnection, specs: Mapping[str, Spec]) -> None:
        self._domid = domid
        self._drivers = {
            (side, str(kind)): Driver(spec, side)
            for spec in specs.values()
            for side, form in zip(SIDES, (spec.form.frontend, spec.form.backend), strict=True)
            if form.transitions is not None
            for kind in form.kinds
        }
        # Drivers look when a state changes or the gate opens, whatever else is written.
        gates = [it.form.gate.opened_by for it in specs.values() if it.form.gate is not None]
        self._minded = {"state", *(str(key).partition("/")[2] for opens in gates for key in opens)}
        self._connection = connection
        self._busy: set[tuple[int, str, int, str]] = set()
        self._again: set[tuple[int, str, int, str]] = set()

    async def start(self) -> None:
        """Watch what this domain's drivers watch."""
        await self._connection.watch(LOCAL_DOMAIN, f"drivers-{self._domid}")

    def on_event(self, path: str, _token: str) -> None:
        """Look again at the device whose directory changed."""
        parts = path.split("/")
        device, below = None, ""
        if len(parts) >= 8 and parts[4] == "backend":
            device, below = parse_backend_dir("/".join(parts[:8])), "/".join(parts[8:])
        elif len(parts) >= 7 and parts[4] == "device":
            _, kind, devid = parts[4:7]
            device = parse_backend_dir(backend_dir(0, kind, int(parts[3]), devid))
            below = "/".join(parts[7:])
        if below and below not in self._minded:
            return
        if device is None or self._domid not in (device[0], device[2]):
            return
        if device in self._busy:
            self._again.add(device)
            return
        self._busy.add(device)
        ensureDeferred(self._step(device))

    async def _step(self, device: tuple[int, str, int, str]) -> None:
        backend, kind, frontend, devid = device
        try:
            while True:
                self._again.discard(device)
                moved = await self._move(backend, kind, frontend, devid)
                if not moved and device not in self._again:
                    return
        except StoreError as error:
            self._log.debug("device {device} vanished: {error}", device=device, error=error)
        finally:
            self._busy.discard(device)

    async def _move(self, backend: int, kind: str, frontend: int, devid: str) -> bool:
        front_dir = frontend_dir(frontend, kind, devid)
        back_dir = backend_dir(backend, kind, frontend, devid)
        side, directory = (SIDES[1], back_dir) if self._domid == backend else (SIDES[0], front_dir)
        driver = self._drivers.get((side, kind))
        if driver is None:
            return False
        trees = [self._connection.read_tree(it) for it in (front_dir, back_dir)]
        front, back = await together(*trees)
        writes = driver.next(_below(front_dir, front), _below(back_dir, back))
        if not writes:
            return False

        async def write(tx: Transaction) -> None:
            await tx.read(f"{directory}/state")  # a vanished device is not made again
            for key, value in writes:
                await tx.write(f"{directory}/{key}", value)

        await self._connection.transaction(write)
        return True


def _below(top: str, tree: Mapping[str, bytes]) -> dict[str, bytes]:
    """A directory's keys by their names, `queue-0/tx-ring-ref` among them."""
    return {path[len(top) + 1 :]: value for path, value in tree.items() if path != top}
