"""What administrators ask of filter profiles: the functions of `filter.*`.

A change is checked as a whole first, against everything that uses it, on live vifs and off them;
then it is written down, and then it takes effect.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from broker.core.definition import Attached
from broker.core.roles import ADDRESS
from broker.filters.attach import ADDRESSES, wanted
from broker.filters.bind import BindError, variables_of
from broker.filters.load import load_profile
from broker.net.filters.holdable import unholdable
from broker.rpc.errors import RpcError
from broker.rpc.methods import filters as methods
from broker.service import events
from broker.service.filter_looks import FilterLooks
from broker.service.filter_profiles import Profiles, profiles_of
from broker.service.filter_state import Binding, Place
from broker.service.filters import VIF
from broker.service.targets import selector_of
from broker.text.escape import escape
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.rpc.admin import Caller
    from broker.rpc.methods import Nothing
    from broker.service.mirror import Device


class FilterCalls(FilterLooks):
    """The part of the broker's administration that is about filter profiles."""

    # profiles

    async def filter_list(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilterProfile, ...]:
        """The profiles by name."""
        del caller, arguments
        filters = self._engine.filters
        library = filters.profiles.library
        return tuple(
            methods.FilterProfile(
                name=name,
                description=profile.description,
                digest=profile.digest,
                shipped=name not in filters.state.profiles,
                variables=tuple(
                    f"{it.name}: {it.type}"
                    for _, it in sorted(variables_of(library, [name]).items())
                ),
                users=tuple(filters.users(name)),
            )
            for name, profile in sorted(library.profiles.items())
        )

    async def filter_dump(
        self, caller: Caller, arguments: methods.FilterSelector
    ) -> methods.FilterText:
        """A profile's exact text."""
        del caller
        filters = self._engine.filters
        return methods.FilterText(
            name=arguments.profile,
            digest=self._digest_of(arguments.profile),
            shipped=arguments.profile not in filters.state.profiles,
            text=filters.profiles.texts[arguments.profile].decode("utf-8"),
        )

    async def filter_create(
        self, caller: Caller, arguments: methods.FilterCreate
    ) -> methods.FilterChange:
        """Store a new profile."""
        data = arguments.text.encode("utf-8")
        name = _named(data, arguments.source)
        if name in self._engine.filters.profiles.texts:
            raise RpcError(
                "conflict", f"there is a profile {name} already: brokerctl filter update"
            )
        self._replace(name, data, None, caller)
        return self._change(name, None, changed=True)

    async def filter_update(
        self, caller: Caller, arguments: methods.FilterUpdate
    ) -> methods.FilterChange:
        """Put another text in a profile's place."""
        data = arguments.text.encode("utf-8")
        name = _named(data, arguments.source)
        before = self._digest_of(name)
        if arguments.replaces not in (None, before):
            raise RpcError("conflict", f"profile {name} is {before} now, not {arguments.replaces}")
        after = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if after != before:
            self._replace(name, data, before, caller, dry_run=arguments.dry_run)
        return methods.FilterChange(
            name=name,
            digest=after,
            replaced=before,
            changed=after != before,
            vifs=self._vifs_with(name),
        )

    async def filter_destroy(
        self, caller: Caller, arguments: methods.FilterDestroy
    ) -> methods.FilterChange:
        """Forget a stored profile."""
        filters, name = self._engine.filters, arguments.profile
        before = self._digest_of(name)
        if arguments.replaces not in (None, before):
            raise RpcError("conflict", f"profile {name} is {before} now, not {arguments.replaces}")
        if name not in filters.state.profiles:
            raise RpcError("conflict", f"profile {name} is shipped with the program: it stays")
        users = filters.users(name)
        if users:
            raise RpcError("conflict", f"profile {name} is in use: {', '.join(users[:8])}")
        texts = dict(filters.profiles.texts)
        del texts[name]
        if name in filters.shipped:
            texts[name] = filters.shipped[name]
        profiles = self._fitting(texts)
        self._commit(events.FilterDestroyed(time.time(), name, before, caller.subject, caller.role))
        filters.put(profiles)
        return self._change(name, before, changed=True)

    # attachments

    async def filter_attach(
        self, caller: Caller, arguments: methods.FilterAttach
    ) -> methods.FilterAttached:
        """Put a profile on vifs."""
        filters, name = self._engine.filters, arguments.profile
        self._digest_of(name)
        place = self._place(arguments.domain, arguments.device)
        given = {key: tuple(values) for key, values in sorted(arguments.given.items())}
        if not ADDRESSES.isdisjoint(given):
            # They are added to what the toolstack says: a guest may be somebody else with them.
            target = self._targets.of_bound(place.bound, place.key)
            self._authority.require(caller, ADDRESS, target)
        binding = Binding(given, caller.subject, time.time())
        before = filters.state.attached.get(place, {}).get(name)
        if before is not None and before.given == given:
            return self._attachment(place, name, before, changed=False)
        problems = filters.problems(filters.profiles, None, {place: {name: binding}})
        problems += self._attach_problems(place, name, given)
        if problems:
            raise RpcError("bad_input", f"{name} does not fit {place}", tuple(problems))
        self._commit(
            events.FilterAttached(
                binding.t,
                place.bound,
                place.key,
                place.device,
                name,
                given,
                caller.subject,
                caller.role,
            )
        )
        self._engine.filters_changed()
        return self._attachment(place, name, binding, changed=True)

    async def filter_detach(
        self, caller: Caller, arguments: methods.FilterDetach
    ) -> methods.FilterAttached:
        """Take a profile off again."""
        state, name = self._engine.filters.state, arguments.profile
        place = self._place(arguments.domain, arguments.device)
        if name not in state.attached.get(place, {}):
            raise RpcError(
                "not_found",
                f"profile {name} is not attached to {place}; see brokerctl filter attached (what "
                "the policy attaches is changed there)",
            )
        self._commit(
            events.FilterDetached(
                time.time(),
                place.bound,
                place.key,
                place.device,
                name,
                caller.subject,
                caller.role,
            )
        )
        self._engine.filters_changed()
        return self._attachment(place, name, None, changed=True)

    async def filter_attached(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilterAttachment, ...]:
        """What administrators attached and the caller may see."""
        del arguments
        seen = self._authority.sees(caller, "filter.attached")
        return tuple(
            _shown(place, name, binding)
            for place, bindings in sorted(self._engine.filters.state.attached.items())
            for name, binding in bindings.items()
            if seen(self._targets.of_bound(place.bound, place.key))
        )

    # how

    def _digest_of(self, name: str) -> str:
        profile = self._engine.filters.profiles.library.profiles.get(name)
        if profile is None:
            raise RpcError(
                "not_found", f"there is no filter profile {name}; see brokerctl filter list"
            )
        return profile.digest

    def _replace(
        self, name: str, data: bytes, before: str | None, caller: Caller, *, dry_run: bool = False
    ) -> None:
        """Check a text with everything that uses it, keep it, write that down, use it."""
        filters = self._engine.filters
        profiles = self._fitting({**filters.profiles.texts, name: data})
        if dry_run:
            return
        digest = profiles.library.profiles[name].digest
        try:
            filters.keep(digest, data)
        except OSError as error:
            raise RpcError("unavailable", f"the profile cannot be kept: {error}") from None
        self._commit(
            events.FilterStored(time.time(), name, digest, before, caller.subject, caller.role)
        )
        filters.put(profiles)
        self._engine.filters_changed()

    def _fitting(self, texts: Mapping[str, bytes]) -> Profiles:
        """These profiles, if everything that uses them fits."""
        filters = self._engine.filters
        try:
            profiles = profiles_of(texts)
        except ProblemsError as error:
            said = tuple(map(str, error.problems))
            raise RpcError(
                "bad_input", f"{len(said)} problems; nothing was changed", said
            ) from None
        policy = self._engine.judge.policy
        problems = filters.problems(profiles, policy, filters.state.attached)
        # What did not fit before does not hinder its own cure.
        before = filters.profiles
        known = {*map(str, unholdable(before.library)), *filters.misfits(before)}
        new = [*map(str, unholdable(profiles.library)), *filters.misfits(profiles)]
        problems += [it for it in new if it not in known]
        if problems:
            said = tuple(problems[:50])
            raise RpcError("bad_input", "what uses it would not fit; nothing was changed", said)
        return profiles

    def _attach_problems(
        self, place: Place, name: str, given: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Live vifs that would be closed by an attachment."""
        filters, problems = self._engine.filters, []
        entry = Attached(name, {key: tuple(values) for key, values in given.items()}, str(place))
        for device in self._vifs_at(place):
            kept = [
                it
                for it in filters.attached(device)
                if (it.profile, it.where) != (entry.profile, entry.where)
            ]
            mac, ip = device.keys.get("mac"), device.keys.get("ip")
            try:
                wanted(filters.profiles.library, [*kept, entry], mac, ip)
            except BindError as error:
                problems.append(f"{device}: {error}")
        return problems

    def _commit(self, line: events.Event) -> None:
        if not self._engine.audit.commit([line]):
            raise RpcError(
                "unavailable", f"the audit log cannot be written: {self._engine.audit.broken}"
            )

    def _place(self, domain: str, device: str | None) -> Place:
        bound, key = self.labels.key(selector_of(domain))
        return Place(bound, key, device or "")

    def _vifs_at(self, place: Place) -> list[Device]:
        return [
            device
            for domain in self._engine.mirror.domains.values()
            if (domain.uuid if place.bound == "uuid" else domain.name) == place.key
            for (device_class, devid), device in domain.devices.items()
            if device_class == VIF and place.device in ("", devid) and device.channel is not None
        ]

    def _vifs_with(self, name: str) -> int:
        filters, count = self._engine.filters, 0
        for device in self._engine.mirror.devices():
            if device.device_class == VIF:
                try:
                    attached = filters.attached(device)
                    closure = filters.profiles.library.closure([it.profile for it in attached])
                except KeyError:
                    continue
                count += any(profile.name == name for profile in closure)
        return count

    def _change(self, name: str, replaced: str | None, *, changed: bool) -> methods.FilterChange:
        profile = self._engine.filters.profiles.library.profiles.get(name)
        return methods.FilterChange(
            name=name,
            digest=None if profile is None else profile.digest,
            replaced=replaced,
            changed=changed,
            vifs=self._vifs_with(name),
        )

    def _attachment(
        self, place: Place, name: str, binding: Binding | None, *, changed: bool
    ) -> methods.FilterAttached:
        return methods.FilterAttached(
            now=None if binding is None else _shown(place, name, binding),
            changed=changed,
            vifs=len(self._vifs_at(place)),
        )


def _named(data: bytes, source: str) -> str:
    """The name in a profile's text."""
    try:
        return load_profile(data, escape(source)).name
    except ProblemsError as error:
        said = tuple(map(str, error.problems))
        raise RpcError("bad_input", f"{len(said)} problems; nothing was changed", said) from None


def _shown(place: Place, name: str, binding: Binding) -> methods.FilterAttachment:
    return methods.FilterAttachment(
        bound_by=place.bound,
        key=place.key,
        device=place.device or None,
        name=name,
        given=binding.given,
        set_by=binding.subject,
        set_at=binding.t,
    )
