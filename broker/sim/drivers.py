"""netback, blkback, netfront and blkfront as far as xenstore shows them.

Each driver is a pure function from what both directories hold to what it writes next; `Drivers`
runs the drivers of one domain over its own connection, level-triggered, as the kernel's
xenbus does. The order of states and keys is that of Linux 6.1 on real Xen 4.17.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from broker.xenstore.errors import StoreError
from broker.xenstore.paths import LOCAL_DOMAIN, backend_dir, frontend_dir, parse_backend_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transaction import Transaction

Keys = dict[str, bytes]
Writes = list[tuple[str, bytes]]

_BACKEND_READS: Final = ("state", "hotplug-status", "physical-device", "mode")
_NETBACK_OFFERS: Final = (("feature-sg", b"1"), ("feature-rx-copy", b"1"), ("state", b"2"))
_BLKBACK_OFFERS: Final = (("max-ring-page-order", b"4"), ("state", b"2"))
_NETFRONT_RINGS: Final = (
    *(("tx-ring-ref", b"520"), ("rx-ring-ref", b"521"), ("event-channel", b"8")),
    *(("request-rx-copy", b"1"), ("state", b"4")),
)
_BLKFRONT_RINGS: Final = (("ring-ref", b"522"), ("event-channel", b"10"), ("state", b"3"))
_GONE: Final = (None, b"5", b"6")


def netback(front: Mapping[str, bytes], back: Mapping[str, bytes]) -> Writes:
    """What netback writes to its directory next; nothing where it waits."""
    hotplugged = back.get("hotplug-status") == b"connected"
    return _backend(front, back, _NETBACK_OFFERS, (), gate_is_open=hotplugged)


def blkback(front: Mapping[str, bytes], back: Mapping[str, bytes]) -> Writes:
    """What blkback writes to its directory next; it waits for `physical-device`."""
    read_only = b"4" if back.get("mode") == b"r" else b"0"
    properties = (("sectors", b"8192"), ("info", read_only), ("sector-size", b"512"))
    has_disk = "physical-device" in back
    return _backend(front, back, _BLKBACK_OFFERS, properties, gate_is_open=has_disk)


def _backend(
    front: Mapping[str, bytes],
    back: Mapping[str, bytes],
    offers: tuple[tuple[str, bytes], ...],
    properties: tuple[tuple[str, bytes], ...],
    *,
    gate_is_open: bool,
) -> Writes:
    state = back.get("state")
    if state in (b"1", b"2", b"4") and front.get("state") in _GONE:
        return [("state", b"6")]
    if state == b"1":
        return list(offers)
    if state == b"2" and front.get("state") in (b"3", b"4") and gate_is_open:
        return [*properties, ("state", b"4")]
    return []


def netfront(front: Mapping[str, bytes], back: Mapping[str, bytes]) -> Writes:
    """What netfront writes next: it goes from 1 to 4 directly."""
    if back.get("state") in (b"5", b"6") and front.get("state") == b"4":
        return [("state", b"6")]
    if back.get("state") == b"2" and front.get("state") == b"1":
        return list(_NETFRONT_RINGS)
    return []


def blkfront(front: Mapping[str, bytes], back: Mapping[str, bytes]) -> Writes:
    """What blkfront writes next: 3 with its ring, 4 once the backend is connected."""
    if back.get("state") in (b"5", b"6") and front.get("state") in (b"3", b"4"):
        return [("state", b"6")]
    if back.get("state") == b"2" and front.get("state") == b"1":
        return list(_BLKFRONT_RINGS)
    if back.get("state") == b"4" and front.get("state") == b"3":
        return [("state", b"4")]
    return []


_BACKENDS: Final = {"vif": netback, "vbd": blkback}
_FRONTENDS: Final = {"vif": netfront, "vbd": blkfront}


class Drivers:
    """The drivers of one domain: its backends, and its frontends towards domid 0."""

    _log = Logger()

    def __init__(self, domid: int, connection: StoreConnection) -> None:
        self._domid = domid
        self._connection = connection
        self._busy: set[tuple[int, str, int, str]] = set()
        self._again: set[tuple[int, str, int, str]] = set()

    async def start(self) -> None:
        """Watch what this domain's drivers watch."""
        await self._connection.watch(LOCAL_DOMAIN, f"drivers-{self._domid}")

    def on_event(self, path: str, _token: str) -> None:
        """Look again at the device whose directory changed."""
        parts = path.split("/")
        device = None
        if len(parts) >= 8 and parts[4] == "backend":
            device = parse_backend_dir("/".join(parts[:8]))
        elif len(parts) >= 7 and parts[4] == "device":
            _, kind, devid = parts[4:7]
            device = parse_backend_dir(backend_dir(0, kind, int(parts[3]), devid))
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
        paths = [f"{front_dir}/state", *(f"{back_dir}/{key}" for key in _BACKEND_READS)]
        values = await self._connection.read_many(paths)
        keys = ("front", *_BACKEND_READS)
        found = {
            key: value
            for key, value in zip(keys, values, strict=True)
            if not isinstance(value, StoreError)
        }
        front = {"state": found.pop("front")} if "front" in found else {}
        drivers, directory = (
            (_BACKENDS, back_dir) if self._domid == backend else (_FRONTENDS, front_dir)
        )
        driver = drivers.get(kind)
        writes = driver(front, found) if driver else []
        if not writes:
            return False

        async def write(tx: Transaction) -> None:
            await tx.read(f"{directory}/state")  # a vanished device is not made again
            for key, value in writes:
                await tx.write(f"{directory}/{key}", value)

        await self._connection.transaction(write)
        return True
