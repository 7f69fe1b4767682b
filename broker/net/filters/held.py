"""What ports are held to beside their labels: programs of their profiles, addresses, leases. Pure.

`now` is by the clock that leases' ends are by (`time.monotonic`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from broker.filters.library import build_library
from broker.filters.load import load_profile
from broker.net.filters.bound import Bindings, shown
from broker.net.filters.compile import FilterError
from broker.net.filters.programs import Filters, Programs
from broker.net.model import NetError
from broker.net.ruleset import Addresses, Content, content_of, port_content
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.filters.model import Library
    from broker.net.filters.usage import Vif
    from broker.net.model import Port, PortFilter, Target

SLACK: Final = 1.0
"""Seconds by which the kernel's clock of leases may be ahead of ours."""


_read = functools.lru_cache(maxsize=512)(load_profile)
"""An update changes one profile of many."""


def library_of(profiles: Mapping[str, bytes]) -> Library:
    """The profiles whose texts these are, by where they come from.

    Raises:
        FilterError: one cannot be read, or they do not go together; says what is wrong.
    """
    try:
        return build_library(_read(text, source) for source, text in profiles.items())
    except ProblemsError as error:
        raise FilterError(f"filter profiles: {error}") from error


def fitting(profiles: Mapping[str, bytes]) -> Callable[[PortFilter | None], bool]:
    """Tells whether a port's filter can be put into the kernel with these profiles."""
    try:
        programs = Programs(library_of(profiles))
    except FilterError:
        return lambda asked: asked is None

    def fits(asked: PortFilter | None) -> bool:
        try:
            return asked is None or bool(programs.vif(asked).verdicts)
        except FilterError:
            return False

    return fits


class HeldFilters:
    """The filters of the ports of one target; answers what they put into the kernel's sets."""

    def __init__(self, profiles: Mapping[str, bytes]) -> None:
        self._programs = Programs(library_of(profiles))
        self._bindings = Bindings()
        self._leases: dict[int, Addresses] = {}

    def take(
        self, target: Target, leases: Mapping[int, Addresses], before: Target | None = None
    ) -> HeldFilters:
        """Those of another target; of `leases`, what its ports still learn is kept.

        `before` is the target in force: what is not of it must not have another's address.

        Raises:
            FilterError: a port's profiles or variables cannot be put into the kernel.
            NetError: an address would be bound to two ports.
        """
        made = HeldFilters(target.profiles)
        others: list[Port] = []
        for port in target.ports.values():
            old = None if before is None else before.ports.get(port.index)
            if before is None or (old and (old.filter, old.bridge) == (port.filter, port.bridge)):
                made.bind(port)
            else:
                others.append(port)
        for port in others:
            made.check_bound(port, target)
            made.bind(port)
        made._leases = {
            index: {it: end for it, end in addresses.items() if made._may_learn(index, it, target)}
            for index, addresses in leases.items()
            if index in target.ports and made.learned_by(target.ports[index])
        }
        return made

    def _may_learn(self, index: int, address: int, target: Target) -> bool:
        """Whether no other port of the bridge has the address by its configuration."""
        bridge = target.ports[index].bridge or ""
        return self._bindings.holder(bridge, address) in {None, index}

    def vif(self, port: Port) -> Vif | None:
        """What the port's profiles came to; None if it has none.

        Raises:
            FilterError: they, or its variables, cannot be put into the kernel.
        """
        return None if port.filter is None else self._programs.vif(port.filter)

    def filters(self) -> Filters:
        """Chains and sets of all that were asked for."""
        return self._programs.filters()

    def content(self, target: Target) -> Content:
        """Everything that the kernel's sets must hold."""
        return content_of(target, self.vif, self._leases)

    def content_of(self, port: Port, target: Target) -> Content:
        """A plain port's elements beside the present uplinks."""
        uplinks = [p for p in target.ports.values() if p.uplink and p.bridge == port.bridge]
        return port_content(port, uplinks, self.vif(port), self._leases.get(port.index))

    def noting(self, target: Target, *indexes: int) -> list[int]:
        """Of these ports, or of all, those whose connections are noted."""
        ports = map(target.ports.__getitem__, indexes) if indexes else target.ports.values()
        return [port.index for port in ports if (vif := self.vif(port)) and vif.notes]

    # who has which address

    def check_bound(self, port: Port, target: Target) -> None:
        """Refuse an address that another port of the bridge has.

        Raises:
            NetError: one is bound to another; says to which.
        """
        vif = self.vif(port)
        if vif is None:
            return
        conflict = self._bindings.conflict(port.index, port.bridge or "", vif.environment)
        if conflict is not None:
            holder, address = conflict
            raise NetError(
                f"{port.name}: {address} is bound to {target.ports[holder].name}; "
                "one address has one port at a time"
            )

    def bind(self, port: Port) -> None:
        """The port has the addresses of its variables, and no others."""
        vif = self.vif(port)
        if vif is None:
            self._bindings.release(port.index)
        else:
            self._bindings.bind(port.index, port.bridge or "", vif.environment)

    def release(self, index: int) -> None:
        """The port is gone, and what was bound to it is free."""
        self._bindings.release(index)
        self._leases.pop(index, None)

    # addresses that DHCP gave

    @property
    def leases(self) -> Mapping[int, Addresses]:
        """The addresses learned so far by port, and when each lease ends."""
        return self._leases

    def learned_by(self, port: Port) -> frozenset[str]:
        """The names of the sets that hold what the port learns; none if it does not."""
        vif = self.vif(port)
        if vif is None or not vif.learned:
            return frozenset()
        return frozenset(
            group.name for group in vif.groups if group.parts and group.parts[0][0] in vif.learned
        )

    def has_address(self, port: Port, address: int) -> bool:
        """Whether an IPv4 address is the port's by its configuration."""
        return self._bindings.holder(port.bridge or "", address) == port.index

    def lease(self, index: int, addresses: Addresses) -> None:
        """These addresses are what the port has learned."""
        self._leases[index] = addresses

    def overruled(self, port: Port, target: Target) -> list[tuple[int, int]]:
        """Ports of the bridge to which an address was leased that is to be this port's, and it.

        Raises:
            FilterError: as `vif`.
        """
        vif = self.vif(port)
        bound = () if vif is None else vif.environment.get("IP", ())
        spans = bound if isinstance(bound, tuple) else ()
        return [
            (index, address)
            for index, addresses in (self._leases.items() if spans else ())
            if index != port.index and target.ports[index].bridge == port.bridge
            for address in addresses
            if any(span.low <= address <= span.high for span in spans)
        ]

    def holders(self, port: Port, address: int, target: Target) -> list[Port]:
        """Other ports of the bridge to which this address was leased.

        Raises:
            NetError: it is bound to one by its configuration.
        """
        holder = self._bindings.holder(port.bridge or "", address)
        if holder is not None and holder != port.index:
            raise NetError(
                f"{shown('IP', address)} was leased to {port.name}, but is bound to "
                f"{target.ports[holder].name}"
            )
        others = [target.ports[it] for it, theirs in self._leases.items() if address in theirs]
        return [it for it in others if it.index != port.index and it.bridge == port.bridge]

    def expire(self, now: float) -> bool:
        """Forget leases that ended; whether there were any. The kernel lets them go by itself."""
        kept = {
            index: {address: end for address, end in held.items() if end > now - SLACK}
            for index, held in self._leases.items()
        }
        some = kept != self._leases
        self._leases = kept
        return some
