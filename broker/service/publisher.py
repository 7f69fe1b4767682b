"""Writing to the store: decision records first, what is for people after, all of it pipelined.

Nothing here decides. On a real host the nodes are made by dom0's helper, and the broker may only
write those it was given: a node that is missing or closed to it is tried again when an event
shows it, and now and then besides. Where the broker is privileged it makes the nodes itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.service.dirty import SECURITY_KEYS
from broker.text.escape import escape
from broker.xenstore import paths
from broker.xenstore.errors import ConnectionLostError, NotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.core.channels import Standing
    from broker.core.policy import Policy
    from broker.service.mirror import Device, Domain
    from broker.service.state import State
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transaction import Transaction

MAX_SHOWN: Final = 400
"""Characters of a reason shown in `/vm`; the whole is in the record."""


class Publisher:
    """Writes through one connection; made anew for each."""

    def __init__(self, connection: StoreConnection) -> None:
        self._store = connection
        self._prepared: set[str] = set()
        self._opened = False
        self.privileged = False

    async def begin(self) -> None:
        """Find out whether this connection may make nodes, and make those above all others.

        Raises:
            ConnectionLostError: the connection ended.
        """
        try:
            await self._store.mkdir(paths.ROOT)
            await self._store.set_perms(paths.ROOT, await self._store.get_perms(paths.ROOT))
        except ConnectionLostError:
            raise
        except StoreError:
            self.privileged = False
        else:
            self.privileged = True

    async def records(self, items: Sequence[tuple[Device, bytes]]) -> list[StoreError | None]:
        """Publish records; for each, None or why the store did not take it.

        Raises:
            ConnectionLostError: the connection ended; whether they were taken is unknown.
        """
        backends = {device.backend for device, _ in items if device.backend is not None}
        for backend in sorted(backends):
            await self._prepare(paths.DECISIONS, backend)
            await self._prepare(paths.REPORTS, backend)
        return await self._store.write_many([(device.path, text) for device, text in items])

    async def filters(self, items: Sequence[tuple[str, bytes]]) -> list[StoreError | None]:
        """Publish vifs' filter records, by their paths; answers as `records`.

        Raises:
            ConnectionLostError: the connection ended.
        """
        for path, _ in items:
            parsed = paths.parse_channel(paths.FILTERS, path)
            if parsed is not None:
                await self._prepare(paths.FILTERS, parsed[0].backend)
        return await self._store.write_many(items)

    async def profiles(self, items: Sequence[tuple[str, bytes]]) -> list[StoreError | None]:
        """Publish nodes that every agent may read; answers as `records`.

        Raises:
            ConnectionLostError: the connection ended.
        """
        if self.privileged and items and not self._opened:
            self._opened = True
            await self._store.mkdir(paths.PROFILES)
            await self._store.set_perms(paths.PROFILES, ("r0",))
        return await self._store.write_many(items)

    async def held(self, nodes: Sequence[str]) -> list[bytes | StoreError]:
        """What these nodes hold now.

        Raises:
            ConnectionLostError: the connection ended.
        """
        return await self._store.read_many(nodes)

    async def _prepare(self, top: str, backend: int) -> None:
        """Make one backend domain's directory: records for it to read, reports to write.

        Nodes made below inherit its permissions. What exists already is left as it is.
        """
        path = f"{top}/{backend}"
        if not self.privileged or path in self._prepared:
            return
        self._prepared.add(path)
        others = () if backend == 0 else (f"{'b' if top == paths.REPORTS else 'r'}{backend}",)
        try:
            (listing,) = await self._store.directory_many([path])
            if not isinstance(listing, list):
                await self._store.mkdir(path)
                await self._store.set_perms(path, ("n0", *others))
        except ConnectionLostError:
            raise
        except StoreError:
            self._prepared.discard(path)

    async def remove(self, channels: Sequence[paths.Channel]) -> None:
        """Remove the records of channels that are gone, if they are ours to remove.

        Raises:
            ConnectionLostError: the connection ended.
        """
        if self.privileged and channels:
            records = [paths.decision_path(channel) for channel in channels]
            records += [paths.filter_path(it) for it in channels if it.device_class == "vif"]
            await self._store.rm_many(records)

    async def forget(self, domids: Sequence[int], uuids: Sequence[str]) -> None:
        """Remove what there still is by the names of domains that are gone, if it is ours.

        Their directories, empty by now, and what was reported of them: domids count up, and each
        would leave some. Nothing of a device's that goes alone: another may have its name already.

        Raises:
            ConnectionLostError: the connection ended.
        """
        if self.privileged:
            for uuid in uuids:
                await self._forget_shown(uuid)
        if not (self.privileged and domids):
            return
        above = [paths.DECISIONS, paths.FILTERS, paths.REPORTS]
        for _ in ("backend", "class"):
            listings = await self._store.directory_many(above)
            above = [
                f"{path}/{name}"
                for path, names in zip(above, listings, strict=True)
                if isinstance(names, list)
                for name in names
            ]
        await self._store.rm_many([f"{path}/{domid}" for path in above for domid in domids])

    async def _forget_shown(self, uuid: str) -> None:
        """Remove `/vm/<uuid>` if only what is shown of the domain is in it.

        libxl removes it before the domain's end is known, and until then it is put back.
        """
        top = f"{paths.VM}/{uuid}"

        async def body(transaction: Transaction) -> None:
            try:
                names = await transaction.directory(top)
            except NotFoundError:
                return
            if set(names) <= {"security"}:
                await transaction.rm(top)

        await self._store.transaction(body)

    async def write(self, path: str, value: bytes) -> bool:
        """Write one node of the broker's own; whether the store took it.

        Raises:
            ConnectionLostError: the connection ended.
        """
        (answer,) = await self._store.write_many([(path, value)])
        return answer is None

    async def show(
        self,
        domains: Iterable[Domain],
        devices: Iterable[Device],
        wanted: Wanted,
    ) -> list[tuple[str, str]]:
        """Bring what people see in `/vm` up to date.

        Answers what others had written: each path, and what it held, escaped.

        Raises:
            ConnectionLostError: the connection ended.
        """
        shown: list[tuple[str, bytes, Domain | Device]] = []
        foreign: list[tuple[str, str]] = []
        for domain in domains:
            for key, value in wanted.security(domain).items():
                held = domain.security.get(key)
                path = f"{paths.security_dir(domain.uuid or '')}/{key}"
                if (held or b"") == value:
                    # As good as written: by the broker before it was started anew, if not now.
                    domain.written[key] = value
                    continue
                shown.append((path, value, domain))
                if held and held != domain.written.get(key):
                    foreign.append((path, escape(held, 100)))
        for device in devices:
            value = wanted.verdict(device)
            if device.display_path and value and device.shown != value:
                shown.append((device.display_path, value, device))
        answers = await self._store.write_many([(path, value) for path, value, _ in shown])
        for (path, value, target), answer in zip(shown, answers, strict=True):
            # What the store did not take is tried again when an event shows the node.
            if answer is None:
                target.set_shown(path, value)
        return foreign


class Wanted:
    """What people should see."""

    def __init__(self, policy: Policy | None, standings: dict[int, Standing], state: State) -> None:
        self._policy = policy
        self._standings = standings
        self._state = state

    def security(self, domain: Domain) -> dict[str, bytes]:
        """The nodes below `/vm/<uuid>/security` for one domain; empty stands for none."""
        standing = self._standings.get(domain.domid)
        if standing is None or standing.shadow or domain.uuid is None:
            return {}
        policy = self._policy
        label = standing.label
        if policy is None or label is None:
            values = ("", "", "")
        else:
            values = (label, policy.name, str(policy.ssidref(label)))
        texts = (*values, str(standing))
        return {key: _shown(text) for key, text in zip(SECURITY_KEYS, texts, strict=True)}

    def verdict(self, device: Device) -> bytes:
        """The node below `/vm/<uuid>/security/channel` for one device."""
        standing = self._standings.get(device.domid)
        if standing is not None and standing.shadow:
            return b""
        entry = self._state.ledger.get(device.path)
        if entry is None:
            return _shown(f"deny {device.problem}") if device.problem else b""
        return _shown(f"{entry.decision.verdict} {entry.decision.reason}").rstrip()


def _shown(text: str) -> bytes:
    """Text for a node that people look at; what guests wrote is escaped in it already."""
    plain = "".join([char if char.isprintable() else "?" for char in text[:MAX_SHOWN]])
    return plain.encode("ascii", "backslashreplace")
