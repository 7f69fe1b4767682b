"""Which filter profiles each vif has: the library in force, and the records that tell of it.

What is shipped is read from files at the start; what administrators stored takes the place of what
is shipped under the same name. A vif whose filters cannot be told is denied, with the reason.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from twisted.logger import Logger

from broker.core.definition import GROUP, Attached
from broker.core.filter_record import (
    FilterRecord,
    ProfilesHead,
    checked_text,
    head_number,
    pack_profiles,
    parse_filter,
    sign_filter,
    sign_head,
)
from broker.core.record import RecordError
from broker.filters.attach import Claims, Wanted, wanted
from broker.filters.bind import BindError
from broker.service import events
from broker.service.filter_profiles import Profiles, includes, misfit, profiles_of
from broker.service.filter_state import Place
from broker.service.statedir import RefusedError
from broker.text.problems import ProblemsError
from broker.xenstore import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from broker.core.channels import Decision
    from broker.core.policy import Policy
    from broker.service.audit import Audit
    from broker.service.filter_state import Binding, FilterState
    from broker.service.judge import Judge
    from broker.service.mirror import Device, Mirror
    from broker.service.statedir import StateDir

_NONE = Wanted((), {}, {}, ())
VIF = "vif"


class FilterText(msgspec.Struct, frozen=True):
    """A vif's filter record: where, its exact text, and whether it has to be written down first.

    `bare`: it names no profile.
    """

    path: str
    text: bytes
    fresh: bool
    bare: bool


class Filters:
    """The filters of one broker."""

    log = Logger()

    def __init__(
        self,
        audit: Audit,
        judge: Judge,
        mirror: Mirror,
        key: Ed25519PrivateKey,
    ) -> None:
        self.state: FilterState = audit.state.filters
        self.shipped: Mapping[str, bytes] = {}
        self.profiles = profiles_of({})
        self.chunks: tuple[bytes, ...] = ()
        self.keep: Callable[[str, bytes], None] = _nowhere
        self._audit = audit
        self._judge = judge
        self._mirror = mirror
        self._key = key
        self._claims: dict[tuple[int | None, bytes], Claims] = {}
        self._known: dict[str, tuple[object, Wanted]] = {}

    def restore(self, shipped: Mapping[str, bytes], statedir: StateDir) -> None:
        """Put in force what is shipped, and what the state says in its place.

        Raises:
            RefusedError: a stored profile is missing or not what it was, or does not fit with
                what is shipped now.
        """
        texts = dict(shipped)
        for name, digest in self.state.profiles.items():
            path = statedir.file_of("filter", digest)
            try:
                texts[name] = path.read_bytes()
            except OSError as error:
                raise RefusedError(f"filter profile {name} cannot be read: {error}") from None
        try:
            profiles = profiles_of(texts)
        except ProblemsError as error:
            raise RefusedError(f"the filter profiles do not fit together: {error}") from None
        for name, digest in self.state.profiles.items():
            if profiles.library.profiles[name].digest != digest:
                raise RefusedError(f"filter profile {name} is not what was stored; restore it")
        self.shipped = shipped
        self.profiles = profiles
        self.keep = partial(statedir.keep, "filter")

    def put(self, profiles: Profiles) -> None:
        """These are in force now; every vif has to be judged anew."""
        self.profiles = profiles

    # what a vif should have

    def attached(self, device: Device) -> list[Attached]:
        """What policy and administrators attached to a vif."""
        policy = self._judge.policy
        label = self._judge.standing(device.domid).label
        found: list[Attached] = []
        if policy is not None and label is not None:
            found += policy.filters_of(label)
        domain = self._mirror.domains.get(device.domid)
        if domain is None or not self.state.attached:
            return found
        for bound, key in (("uuid", domain.uuid), ("name", domain.name)):
            for devid in ("", device.device):
                place = Place("uuid" if bound == "uuid" else "name", key or "", devid)
                for profile, binding in self.state.attached.get(place, {}).items():
                    found.append(Attached(profile, binding.given, str(place)))
        return found

    def wanted(self, device: Device) -> Wanted:
        """The profiles of a vif, and its variables.

        Raises:
            BindError: they do not fit together.
        """
        attached = self.attached(device)
        if not attached:
            self._known.pop(device.path, None)
            return _NONE
        mac, ip = device.keys.get("mac"), device.keys.get("ip")
        key = (self.profiles, attached, mac, ip)
        known = self._known.get(device.path)
        if known is not None and known[0] == key:
            return known[1]
        found = wanted(self.profiles.library, attached, mac, ip)
        self._known[device.path] = (key, found)
        return found

    def refusal(self, device: Device, *, claiming: bool = True) -> str:
        """Why a vif may not be opened for want of its filters; empty if it may.

        Where it may, its addresses are its own from now on, unless nothing is `claiming` them:
        who merely looks takes nothing from anybody.
        """
        try:
            found = self.wanted(device)
            if found is not _NONE:  # which always fits
                checked_text(_record(device, found))
        except (BindError, RecordError) as error:
            return f"its filters cannot be told: {error}"
        if not found.environment:
            self.release(device)
            return ""
        claims = self._claims.setdefault(_network(device), Claims())
        while owner := claims.taken_by(device.path, found.environment):
            parsed = paths.parse_channel(paths.DECISIONS, owner)
            holder = None if parsed is None else self._mirror.device_of(parsed[0])
            if holder is not None and not holder.gone and _network(holder) == _network(device):
                return claims.taken(device.path, found.environment, str(holder))
            claims.release(owner)
        if claiming:
            claims.hold(device.path, found.environment)
        return ""

    def release(self, device: Device) -> None:
        """A vif is not granted: its addresses are free for others."""
        claims = self._claims.get(_network(device))
        if claims is not None:
            claims.release(device.path)

    # what is told

    @property
    def in_use(self) -> bool:
        """Whether filters are told of at all: then every vif's are, also where it has none.

        Once profiles were told, agents wait for every vif's record.
        """
        policy = self._judge.policy
        return bool(
            self.state.head
            or self.state.attached
            or self.state.records
            or (policy is not None and policy.definition.filters)
        )

    def record(self, device: Device, decision: Decision, seq: int) -> FilterText | None:
        """The filter record that goes with a grant; None if none is told.

        Raises:
            BindError, RecordError: it cannot be made.
        """
        if device.channel is None or not self.in_use:
            return None
        found = self.wanted(device)
        path = paths.filter_path(device.channel)
        before, bare = self.state.records.get(path), not found.profiles
        record = msgspec.structs.replace(
            _record(device, found),
            seq=seq,
            uuid=decision.uuid,
            nonce=decision.nonce,
            head=head_number(self.state.head) if self.state.head else 0,
        )
        if before is not None:
            told = parse_filter(before)
            # Newer texts make no record anew: an update is one line, whatever the number of vifs.
            if msgspec.structs.replace(told, seq=seq, head=record.head) == record:
                return FilterText(path, before, fresh=False, bare=bare)
        return FilterText(path, sign_filter(record, self._key), fresh=True, bare=bare)

    def names_in_use(self) -> set[str]:
        """Every profile that policy, an administrator or a published record names."""
        return {name for name, _ in (*self._uses(), *self._told())}

    def users(self, name: str) -> list[str]:
        """What names a profile, itself or by what includes it, in words.

        Where nothing does any more, vifs whose agents are still told of it.
        """
        library = self.profiles.library
        found = [where for used, where in self._uses() if includes(library, used, name)]
        found += [
            f"profile {profile.name}"
            for profile in library.profiles.values()
            if name in profile.includes()
        ]
        if not found:
            found = [where for used, where in self._told() if includes(library, used, name)]
        return list(dict.fromkeys(found))

    def _uses(self) -> Iterator[tuple[str, str]]:
        policy = self._judge.policy
        if policy is not None:
            for selector, attached in policy.definition.filters.items():
                for it in attached:
                    yield it.profile, f"{_selected(selector)} ({it.where})"
        for place, bindings in self.state.attached.items():
            for profile in bindings:
                yield profile, str(place)

    def _told(self) -> Iterator[tuple[str, str]]:
        for path, text in self.state.records.items():
            for profile in parse_filter(text).profiles:
                yield profile, path

    def named(self, names: Iterable[str]) -> tuple[str, ...]:
        """Profiles as tickets name them: `NAME/` and a digest of what they and theirs say."""
        found = []
        for name in sorted(set(names)):
            closure = self.profiles.library.closure([name])
            text = "\n".join(f"{profile.name} {profile.digest}" for profile in closure)
            found.append(f"{name}/{hashlib.sha256(text.encode('ascii')).hexdigest()[:16]}")
        return tuple(found)

    def attached_by(self, label: str, uuid: str) -> set[str]:
        """The profiles that a domain's vifs would have for its label or its uuid."""
        policy = self._judge.policy
        names = {it.profile for it in policy.filters_of(label)} if policy is not None else set()
        for place, bindings in self.state.attached.items():
            if (place.bound, place.key) == ("uuid", uuid):
                names |= bindings.keys()
        return names

    def refresh_head(self) -> bool:
        """Number and write down the texts that agents need, if they are others than before.

        Raises:
            RecordError: they do not fit.
        """
        library = self.profiles.library
        names = [name for name in sorted(self.names_in_use()) if name in library.profiles]
        if not names and not self.state.head:
            return True
        closure = sorted({profile.name for profile in library.closure(names)})
        texts = {f"{name}.yaml": self.profiles.texts[name] for name in closure}
        digest, size, chunks = pack_profiles(texts)
        self.chunks = chunks
        if f" digest={digest} " in self.state.head.decode("ascii"):
            return True
        head = ProfilesHead(seq=self.state.seq + 1, digest=digest, bytes=size, chunks=len(chunks))
        text = sign_head(head, self._key).decode("ascii")
        return self._audit.commit([events.ProfilesTold(time.time(), text)])

    # what fits together

    def problems(
        self,
        profiles: Profiles,
        policy: Policy | None,
        attached: Mapping[Place, Mapping[str, Binding]],
    ) -> list[str]:
        """What would not fit under these profiles, this policy and these attachments."""
        found: list[str] = []
        if policy is not None:
            for entries in policy.definition.filters.values():
                for entry in entries:
                    found += misfit(profiles.library, entry)
        for place, bindings in attached.items():
            for profile, binding in bindings.items():
                found += misfit(profiles.library, Attached(profile, binding.given, str(place)))
        return found

    def misfits(self, profiles: Profiles) -> list[str]:
        """Live vifs that have filters now and would have none that fit under these profiles."""
        found = []
        for device in self._mirror.devices():
            if device.device_class != VIF or device.channel is None:
                continue
            attached = self.attached(device)
            mac, ip = device.keys.get("mac"), device.keys.get("ip")
            try:
                wanted(profiles.library, attached, mac, ip)
            except BindError as error:
                found.append(f"{device}: {error}")
        return found


def _nowhere(digest: str, _: bytes) -> None:
    raise OSError(f"there is no state directory to keep {digest} in")


def _record(device: Device, found: Wanted) -> FilterRecord:
    """The record, with a number, a uuid and a nonce that are as long as any can be."""
    return FilterRecord(
        seq=10**18,
        frontend=device.domid,
        backend=device.backend or 0,
        device_class=device.device_class,
        device=device.device,
        uuid=str(UUID(int=0)),
        nonce="0" * 32,
        head=10**18,
        profiles=found.profiles,
        variables=found.given,
    )


def _network(device: Device) -> tuple[int | None, bytes]:
    return device.backend, device.keys.get("bridge", b"")


def _selected(selector: str) -> str:
    return selector if selector.startswith(GROUP) else f"label {selector}"
