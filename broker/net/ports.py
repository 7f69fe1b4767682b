"""Labelled ports: what a gate calls, in labels and interface names. One for each agent.

    ports = LabelledPorts(client, links, bridges={"xenbr0"})
    ports.start(PolicyRules(policy), [OpenPort(…) for each port that is open now])
    ports.admit(OpenPort("vif3.0", "red", "xenbr0", ("00:16:3e:…",)))   # before it is bridged
    ports.expel("vif3.0")                                               # before it is unbridged
    ports.set_rules(PolicyRules(other))                                 # policy changed

Without rules nothing passes. All functions raise `NetError` when it is not in force; then the
gate stays (or is) closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from broker.net.classes import NONE, Classes, ClassesError, avoiding, classify
from broker.net.filters.held import fitting
from broker.net.label_ids import label_id
from broker.net.model import NetError, Port, PortFilter, Target, ip_address, mac_address
from broker.net.report import Report, ReportedPort

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.net.links import LinkTable
    from broker.net.policy_rules import Rules


class Kernel(Protocol):
    """`PortEnforcer` in this process, or `HelperClient` in front of one."""

    def numbers_in_kernel(self) -> frozenset[int]:
        """Class numbers that ports have in the kernel now."""

    def start(self, target: Target) -> None:
        """Hold exactly this."""

    def put(self, port: Port) -> None:
        """Give a port its class."""

    def remove(self, index: int) -> None:
        """Close a port."""

    def update(self, target: Target, during: frozenset[tuple[int, int]] | None = None) -> None:
        """Go to another target."""


class OpenPort(msgspec.Struct, frozen=True):
    """An interface that is, or is about to be, open: its name, label, bridge (None: routed).

    `macs` and `ips` are the guest's, as the toolstack has them; `filter` has its profiles, if any.
    """

    name: str
    label: str
    bridge: str | None
    macs: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    filter: PortFilter | None = None


_NO_RULES: Final = "there is no policy yet: nothing may pass"


class LabelledPorts:
    """Keeps the kernel's ports and pairs in step with labels and policy."""

    def __init__(self, kernel: Kernel, links: LinkTable, bridges: Iterable[str]) -> None:
        self._kernel = kernel
        self._links = links
        self._bridges = frozenset(bridges)
        self._rules: Rules | None = None
        self._classes: Classes = NONE
        self._ports: dict[str, tuple[OpenPort, int]] = {}
        self._uplinks: dict[str, Port] = {}
        self._names: dict[int, str] = {}
        self._profiles: Mapping[str, bytes] = {}

    @property
    def classes(self) -> Classes:
        """The classes in force."""
        return self._classes

    def label_of(self, index: int) -> str | None:
        """The label (or `uplink:NAME`) of the port with this interface index."""
        for port, at in self._ports.values():
            if at == index:
                return port.label
        return next((name for name, up in self._uplinks.items() if up.index == index), None)

    def report(self) -> Report:
        """Who is who, for people: what `brokerctl net show` adds to what the kernel says."""
        ports = [_reported(port, index) for port, index in self._ports.values()]
        ports += [
            ReportedPort(up.name, up.index, name, up.bridge) for name, up in self._uplinks.items()
        ]
        return Report(
            ports=tuple(ports),
            classes={n: tuple(sorted(group)) for n, group in self._classes.members.items()},
            labels=dict(self._names),
            bootstrap="" if self._rules is None else self._rules.bootstrap,
        )

    def _know(self, rules: Rules) -> None:
        """Names stay known when a policy goes: what was counted under them is still there."""
        self._names |= {label_id(name): name for name in rules.names}

    def start(
        self,
        rules: Rules | None,
        open_ports: Iterable[OpenPort],
        profiles: Mapping[str, bytes] | None = None,
    ) -> list[str]:
        """Take over: exactly these ports stay open, as far as `rules` have their labels.

        Class numbers that are in the kernel from an earlier life are not given out. Answers the
        names of ports that are not open after all: gone, of an unknown label, or of profiles that
        do not fit.
        """
        self._classes = avoiding(self._kernel.numbers_in_kernel())
        self._rules = rules
        if rules is not None:
            self._know(rules)
            self._classes = _classify(rules, self._classes)
        found, lost = {}, []
        self._profiles = profiles or {}
        fits = fitting(self._profiles)
        for port in open_ports:
            link = self._links.named(port.name)
            labelled = port.label in self._classes.number
            if link is None or not labelled or not fits(port.filter):
                lost.append(port.name)
            else:
                found[port.name] = port, link.index
        self._ports = found
        self._find_uplinks()
        self._kernel.start(self._target())
        return lost

    def set_rules(self, rules: Rules) -> list[str]:
        """Another policy: one transaction. Answers the ports whose label it does not have.

        Those pass nothing from now on, and are no longer ports.
        """
        classes = _classify(rules, self._classes)
        self._know(rules)
        self._rules, self._classes = rules, classes
        lost = [name for name, (port, _) in self._ports.items() if port.label not in classes.number]
        for name in lost:
            del self._ports[name]
        self._find_uplinks()
        self._kernel.update(self._target(), classes.during)
        return lost

    def admit(self, port: OpenPort) -> int:
        """Put the port's elements in place (or change its label); answers its interface index.

        From then on the interface with this index is the port, whatever its name becomes.
        """
        if self._rules is None:
            raise NetError(f"{port.name}: {_NO_RULES}")
        if port.label not in self._classes.number:
            raise NetError(f"{port.name}: label {port.label} is not in the policy")
        if port.bridge is not None and port.bridge not in self._bridges:
            raise NetError(f"{port.name}: {port.bridge} is not governed; name it in `bridges`")
        link = self._links.named(port.name)
        if link is None:
            raise NetError(f"{port.name} is not there")
        known = self._ports.get(port.name)
        if known is not None and known[1] != link.index:
            self.expel(port.name)  # an earlier interface of this name
        self._ports.pop(port.name, None)  # if it fails, the port is closed, whatever it was
        self._kernel.put(self._port(port, link.index))
        self._ports[port.name] = port, link.index
        return link.index

    @property
    def profiles(self) -> Mapping[str, bytes]:
        """The texts of the filter profiles in force."""
        return self._profiles

    def set_filters(
        self, profiles: Mapping[str, bytes], filters: Mapping[str, PortFilter | None]
    ) -> None:
        """Other profiles, and for these ports other filters: one transaction, or nothing."""
        before = self._profiles, dict(self._ports)
        self._profiles = profiles
        for name, asked in filters.items():
            if name in self._ports:
                port, index = self._ports[name]
                self._ports[name] = msgspec.structs.replace(port, filter=asked), index
        try:
            self._kernel.update(self._target())
        except NetError:
            self._profiles, self._ports = before
            raise

    def expel(self, name: str) -> None:
        """Close the port: nothing passes it from now on. A port that is not one is closed."""
        known = self._ports.get(name)
        if known is not None:
            self._kernel.remove(known[1])
            del self._ports[name]

    def refresh_uplinks(self) -> None:
        """Call when links changed: an uplink that came (back) gets its class, one gone loses it."""
        before = dict(self._uplinks)
        self._find_uplinks()
        for name, port in before.items():
            if self._uplinks.get(name) != port:
                self._kernel.remove(port.index)
        for name, port in self._uplinks.items():
            if before.get(name) != port:
                self._kernel.put(port)

    def _find_uplinks(self) -> None:
        self._uplinks = {}
        if self._rules is None:
            return
        for uplink in self._rules.uplinks:
            link = self._links.named(uplink.port)
            if link is None or uplink.name not in self._classes.number:
                continue
            if uplink.bridge is not None and uplink.bridge not in self._bridges:
                continue
            open_port = OpenPort(uplink.port, uplink.name, uplink.bridge)
            port = self._port(open_port, link.index)
            self._uplinks[uplink.name] = msgspec.structs.replace(port, uplink=True)

    def _port(self, port: OpenPort, index: int) -> Port:
        bootstrap = self._rules.bootstrap if self._rules is not None else ""
        return Port(
            name=port.name,
            index=index,
            number=self._classes.number[port.label],
            label=label_id(port.label),
            host=self._classes.may_pass(port.label, bootstrap),
            bridge=port.bridge,
            macs=tuple(map(mac_address, port.macs)),
            ips=tuple(map(ip_address, port.ips)),
            filter=port.filter,
        )

    def _target(self) -> Target:
        ports = [self._port(port, index) for port, index in self._ports.values()]
        ports += self._uplinks.values()
        by_index = {port.index: port for port in ports}
        return Target(self._bridges, by_index, self._classes.pairs, self._profiles)


def _reported(port: OpenPort, index: int) -> ReportedPort:
    asked = port.filter or PortFilter(())
    return ReportedPort(port.name, index, port.label, port.bridge, asked.profiles, asked.variables)


def _classify(rules: Rules, previous: Classes) -> Classes:
    try:
        return classify(rules.names, rules.frames, previous, rules.alike)
    except ClassesError as error:
        raise NetError(str(error)) from error
