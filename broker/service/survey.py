"""Reading the store into the mirror: whole domains, single devices, single nodes, pipelined.

Every function notes what is news in a `Changes`. A node that the broker may not read is not
taken for one that is missing: what was known stays, and a guest's own directory that it hid is
marked as hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from broker.service.dirty import DEVICE_KEYS, SECURITY_KEYS, Item, Kind
from broker.service.drops import read_drops
from broker.service.mirror import Device, Domain, Mirror, parse_vm
from broker.service.second_look import copies_of, make_sure
from broker.xenstore import paths
from broker.xenstore.errors import NotFoundError, StoreError
from broker.xenstore.together import together

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from broker.service.second_look import Copies
    from broker.xenstore.client import StoreConnection

CHUNK: Final = 64
"""Domains read together: enough to keep the pipeline full, few enough to stay responsive."""
WORKERS: Final = 3
"""Chunks read at once."""


class Changes:
    """What one turn's reading found to be news."""

    def __init__(self) -> None:
        self.devices: dict[Device, None] = {}
        self.domains: dict[Domain, None] = {}
        self.reports: dict[Device, None] = {}
        self.vanished: list[paths.Channel] = []
        self.gone: list[int] = []
        self.lives = False


class Survey:
    """Reads through one connection into one mirror."""

    def __init__(self, connection: StoreConnection, mirror: Mirror) -> None:
        self._store = connection
        self._mirror = mirror

    async def list_domains(self) -> list[int]:
        """The domids that have a home, ascending; none if that cannot be listed.

        Raises:
            StoreError: the connection is lost.
        """
        (listing,) = await self._store.directory_many([paths.LOCAL_DOMAIN])
        names = listing if isinstance(listing, list) else []
        return sorted({it for name in names if (it := paths.parse_domid(name)) is not None})

    async def read_domains(self, domids: Sequence[int], changes: Changes) -> None:
        """Read domains whole; those that have no home any more are noted as gone.

        Raises:
            StoreError: the connection is lost.
        """
        chunks = iter([domids[start : start + CHUNK] for start in range(0, len(domids), CHUNK)])

        async def work() -> None:
            for chunk in chunks:
                await self._read_chunk(chunk, changes)

        # While the answers to one chunk are looked at, the store works on the others.
        working = [Deferred.fromCoroutine(work()) for _ in range(WORKERS)]
        await together(*working)

    async def _read_chunk(self, domids: Sequence[int], changes: Changes) -> None:
        store = self._store
        homes = [paths.domain_dir(domid) for domid in domids]
        existing = store.read_many(homes)
        naming = store.read_many([f"{home}/vm" for home in homes])
        listing = store.directory_many([f"{paths.LIBXL}/{domid}/device" for domid in domids])
        exists, vms, kinds = await together(existing, naming, listing)
        named: list[Domain] = []
        domains: list[Domain] = []  # whose devices could be listed
        branches: list[tuple[Domain, str]] = []
        for domid, home, vm, classes in zip(domids, exists, vms, kinds, strict=True):
            if isinstance(home, NotFoundError) and domid != 0:
                changes.gone.append(domid)
                continue
            domain = self._domain(domid, vm, changes)
            named.append(domain)
            domains.append(domain)
            if isinstance(classes, list):
                branches += [(domain, name) for name in classes]
            elif not isinstance(classes, NotFoundError):
                domains.pop()
            domain.listed = domains[-1:] == [domain]
        await self._read_devices_of(branches, domains, changes)
        await self._read_security(named, changes)

    def _domain(self, domid: int, vm: bytes | StoreError, changes: Changes) -> Domain:
        """The domain of that domid, a new one if its uuid is not the one known before."""
        known = self._mirror.domains.get(domid)
        if known is not None and isinstance(vm, StoreError) and not isinstance(vm, NotFoundError):
            return known
        uuid, problem = parse_vm(vm if isinstance(vm, bytes) else None)
        if known is not None and known.uuid == uuid:
            known.problem = problem
            if known.dying:
                known.dying = False
            return known
        if known is not None:
            changes.vanished += [it.channel for it in known.devices.values() if it.channel]
            self._mirror.drop(domid)
        domain = Domain(domid)
        domain.uuid, domain.problem = uuid, problem
        self._mirror.add(domain)
        changes.lives = True
        changes.domains[domain] = None
        return domain

    async def _read_devices_of(
        self, branches: list[tuple[Domain, str]], domains: list[Domain], changes: Changes
    ) -> None:
        listings = await self._store.directory_many(
            [f"{paths.LIBXL}/{domain.domid}/device/{name}" for domain, name in branches]
        )
        found: dict[Domain, set[tuple[str, str]]] = {domain: set() for domain in domains}
        for (domain, name), devids in zip(branches, listings, strict=True):
            if isinstance(devids, list):
                found[domain].update((name, it) for it in devids if paths.is_device(name, it))
            elif not isinstance(devids, NotFoundError):
                found[domain].update(key for key in domain.devices if key[0] == name)
        devices: list[Device] = []
        for domain, keys in found.items():
            self._keep_only(domain, keys, changes)
            devices += [self._device(domain, *key) for key in sorted(keys)]
        await self.read_devices(devices, changes)

    def _device(self, domain: Domain, device_class: str, device: str) -> Device:
        known = domain.devices.get((device_class, device))
        if known is None:
            known = Device(domain.domid, device_class, device)
            domain.devices[device_class, device] = known
            if domain.uuid is not None:
                security = paths.security_dir(domain.uuid)
                known.display_path = f"{security}/channel/{device_class}/{device}"
        return known

    def _keep_only(self, domain: Domain, keys: set[tuple[str, str]], changes: Changes) -> None:
        for key in [it for it in domain.devices if it not in keys]:
            self._vanish(domain.devices[key], changes)

    def _vanish(self, device: Device, changes: Changes) -> None:
        if device.channel is not None:
            changes.vanished.append(device.channel)
        changes.devices.pop(device, None)
        self._mirror.drop_device(device)

    async def read_devices(self, devices: Sequence[Device], changes: Changes) -> None:
        """Read devices whole: the toolstack's keys, the guest's, the agent's, ours.

        Raises:
            StoreError: the connection is lost.
        """
        homes = [paths.libxl_device_dir(it.domid, it.device_class, it.device) for it in devices]
        listings = await self._store.directory_many(homes)
        wanted: list[str] = []
        spans: list[tuple[Device, list[str]]] = []
        for device, home, names in zip(devices, homes, listings, strict=True):
            if isinstance(names, NotFoundError):
                self._vanish(device, changes)
            elif isinstance(names, list):
                keys = [name for name in names if name in DEVICE_KEYS]
                wanted += [f"{home}/{key}" for key in keys]
                spans.append((device, keys))
        values = await self._store.read_many(wanted)
        position = 0
        for device, keys in spans:
            answers = values[position : position + len(keys)]
            position += len(keys)
            read = {k: v for k, v in zip(keys, answers, strict=True) if isinstance(v, bytes)}
            self._set_keys(device, read, changes)
        await self._read_around([device for device, _ in spans], changes)

    def _set_keys(self, device: Device, keys: dict[str, bytes], changes: Changes) -> None:
        if device.keys == keys:
            return
        former, channel = device.backend, device.channel
        if device.set_keys(keys):
            self._mirror.index(device, former)
            if channel is not None:
                changes.vanished.append(channel)
        changes.devices[device] = None

    async def _read_around(self, devices: Sequence[Device], changes: Changes) -> None:
        """The guest's copy, the agent's report, the published record, the verdict shown."""
        wanted: list[str] = []
        for device in devices:
            home = paths.frontend_dir(device.domid, device.device_class, device.device)
            wanted += [f"{home}/backend", f"{home}/backend-id"]
            if device.channel is not None:
                report = device.report_path
                wanted += [device.nonce_path, f"{report}/enforced", device.path]
            if device.display_path:
                wanted.append(device.display_path)
        answers = iter(await self._store.read_many(wanted))
        suspects: dict[Device, Copies] = {}
        for device in devices:
            self._frontend(device, (next(answers), next(answers)), changes, suspects)
            if device.channel is not None:
                self._nonce(device, next(answers), changes)
                self._enforced(device, next(answers), changes)
                self._record(device, next(answers), changes)
            if device.display_path:
                self._shown(device, next(answers), changes)
        await make_sure(self._store, suspects)

    def _frontend(
        self,
        device: Device,
        answers: tuple[bytes | StoreError, bytes | StoreError],
        changes: Changes,
        suspects: dict[Device, Copies],
    ) -> None:
        before = device.copies
        device.set_copies(copies_of(*answers))
        if device.copies != before:
            changes.devices[device] = None
            if device.frontend_violation()[1]:
                suspects[device] = before

    def _nonce(self, device: Device, answer: bytes | StoreError, changes: Changes) -> None:
        value = _value(answer, device.untrusted_nonce)
        if value != device.untrusted_nonce:
            device.untrusted_nonce = value
            changes.devices[device] = None

    def _enforced(self, device: Device, answer: bytes | StoreError, changes: Changes) -> None:
        value = _value(answer, device.untrusted_enforced)
        if value != device.untrusted_enforced:
            device.untrusted_enforced = value
            if value is not None:
                changes.reports[device] = None

    def _record(self, device: Device, answer: bytes | StoreError, changes: Changes) -> None:
        value = _value(answer, device.published)
        if value != device.published:
            device.published = value
            changes.devices[device] = None

    def _shown(self, device: Device, answer: bytes | StoreError, changes: Changes) -> None:
        value = _value(answer, device.shown)
        if value != device.shown:
            device.shown = value
            domain = self._mirror.domains.get(device.domid)
            if domain is not None:
                changes.domains[domain] = None

    async def _read_security(self, domains: Collection[Domain], changes: Changes) -> None:
        """The name, and what is published of the label, for domains that have a uuid.

        Domain 0 need not have one; its name is in its home.
        """
        named = [domain for domain in domains if domain.uuid is not None and domain.domid != 0]
        wanted: list[str] = []
        for domain in domains:
            if domain.domid == 0:
                (host,) = await self._store.read_many([f"{paths.domain_dir(0)}/name"])
                domain.set_name(host if isinstance(host, bytes) else None)
        for domain in named:
            security = paths.security_dir(domain.uuid or "")
            wanted.append(f"{paths.VM}/{domain.uuid}/name")
            wanted += [f"{security}/{key}" for key in SECURITY_KEYS]
        answers = iter(await self._store.read_many(wanted))
        for domain in named:
            name = next(answers)
            before = None if domain.name is None else domain.name.encode("utf-8")
            if domain.set_name(_value(name, before)):
                changes.lives = True
            for key in SECURITY_KEYS:
                value = _value(next(answers), domain.security.get(key))
                if domain.security.get(key) != value:
                    domain.security[key] = value
                    changes.domains[domain] = None

    async def read_items(self, items: Iterable[Item], changes: Changes) -> None:
        """Read again what events pointed at; `WORLD` is the caller's to deal with.

        Raises:
            StoreError: the connection is lost.
        """
        targets = _Targets()
        drops: list[int] = []
        for item in items:
            if item.kind is Kind.DROPS:
                drops.append(item.domid)
            else:
                self._spread(item, targets)
        if targets.leaves:
            await self._read_leaves(targets.leaves, changes)
        if targets.domids:
            await self.read_domains(list(targets.domids), changes)
        live = [device for device in targets.devices if not device.gone]
        if live:
            await self.read_devices(live, changes)
        if targets.domains:
            await self._read_security(targets.domains, changes)
        if drops:
            await read_drops(self._store, self._mirror, drops)

    def _spread(self, item: Item, targets: _Targets) -> None:
        """What an item comes down to, by what the mirror knows."""
        mirror, leaves = self._mirror, targets.leaves
        domain = mirror.domains.get(item.domid)
        if item.channel is not None:
            device = mirror.device_of(item.channel)
            if device is not None:
                leaves.append((item.kind, device))
        elif item.kind is Kind.DOMAIN or (item.kind is Kind.DEVICE and domain is None):
            targets.domids[item.domid] = None
        elif item.kind is Kind.DEVICE and domain is not None:
            targets.devices[self._device(domain, item.device_class, item.device)] = None
        elif item.kind is Kind.FRONTEND and domain is not None:
            leaves += [(Kind.FRONTEND, it) for it in _matching(domain, item)]
        elif item.kind in (Kind.REPORTS, Kind.RECORDS):
            kinds = (Kind.NONCE, Kind.ENFORCED) if item.kind is Kind.REPORTS else (Kind.RECORD,)
            leaves += [(kind, it) for it in mirror.backends.get(item.domid, ()) for kind in kinds]
        elif item.kind in (Kind.VM, Kind.SHOWN):
            for alike in mirror.of_uuid(item.uuid):
                leaves += [(Kind.SHOWN, it) for it in _matching(alike, item)]
                if item.kind is Kind.VM:
                    targets.domains[alike] = None

    async def _read_leaves(self, leaves: list[tuple[Kind, Device]], changes: Changes) -> None:
        wanted: list[str] = []
        for kind, device in leaves:
            wanted += _leaf_paths(kind, device)
        answers = iter(await self._store.read_many(wanted))
        suspects: dict[Device, Copies] = {}
        for kind, device in leaves:
            if kind is Kind.FRONTEND:
                self._frontend(device, (next(answers), next(answers)), changes, suspects)
            elif kind is Kind.RECORD:
                self._record(device, next(answers), changes)
            elif kind is Kind.SHOWN:
                self._shown(device, next(answers), changes)
            elif kind is Kind.NONCE:
                self._nonce(device, next(answers), changes)
            else:
                self._enforced(device, next(answers), changes)
        await make_sure(self._store, suspects)


class _Targets:
    """What the items of one turn come down to."""

    def __init__(self) -> None:
        self.leaves: list[tuple[Kind, Device]] = []
        self.domids: dict[int, None] = {}
        self.devices: dict[Device, None] = {}
        self.domains: dict[Domain, None] = {}


def _matching(domain: Domain, item: Item) -> list[Device]:
    """The devices that an item means: one, or all where it names none."""
    if not item.device_class:
        return list(domain.devices.values())
    device = domain.devices.get((item.device_class, item.device))
    return [] if device is None else [device]


def _leaf_paths(kind: Kind, device: Device) -> tuple[str, ...]:
    if kind is Kind.FRONTEND:
        home = paths.frontend_dir(device.domid, device.device_class, device.device)
        return f"{home}/backend", f"{home}/backend-id"
    if kind is Kind.RECORD:
        return (device.path,)
    if kind is Kind.SHOWN:
        return (device.display_path,)
    if kind is Kind.NONCE:
        return (device.nonce_path,)
    return (f"{device.report_path}/enforced",)


def _value(answer: bytes | StoreError, before: bytes | None) -> bytes | None:
    """What a node holds now; one that may not be read, or not now, holds what it did."""
    if isinstance(answer, bytes):
        return answer
    return None if isinstance(answer, NotFoundError) else before
