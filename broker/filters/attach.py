"""What one vif's filters come to, and which vif an address is bound to.

Profiles come from the policy and from administrators, addresses from the toolstack's copy of the
device, from parameters, or are learned.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.bind import BindError, bind, parse_bound, variables_of
from broker.filters.values import Rate, show
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from broker.core.definition import Attached
    from broker.filters.model import Environment, Library, Variable
    from broker.filters.values import Span

MAX_PROFILES: Final = 16
_KINDS: Final = {"MAC": "mac", "IP": "ipv4", "IPV6": "ipv6", "LINK_LOCAL": "ipv6"}
"""Variables whose values are one vif's alone, on one bridge; by what they are."""
ADDRESSES: Final = frozenset(_KINDS)
"""Their names: who gives one says who a guest may be."""
_TOLD: Final = ("MAC", "IP", "IPV6")
"""Of which the toolstack tells some, and parameters add more."""


class Wanted(msgspec.Struct, frozen=True):
    """What is told to the agent: profiles, and the variables they use, in their canonical text.

    `environment` is what they bind to, `learned` what the agent learns.
    """

    profiles: tuple[str, ...]
    given: Mapping[str, tuple[str, ...]]
    environment: Environment
    learned: tuple[str, ...]


def wanted(
    library: Library, attached: Sequence[Attached], mac: bytes | None, ip: bytes | None
) -> Wanted:
    """The filters of a vif; `mac` and `ip` are the toolstack's nodes of it.

    Raises:
        BindError: a profile is not there, a variable has no value, a wrong one, or two.
    """
    names = tuple(dict.fromkeys(it.profile for it in attached))
    if not names:
        return Wanted((), {}, {}, ())
    if len(names) > MAX_PROFILES:
        raise BindError(f"{len(names)} filter profiles on one vif; at most {MAX_PROFILES} can be")
    declared = variables_of(library, names)
    given = _parameters(library, attached)
    for name, told in _told(declared, mac, ip).items():
        values = tuple(dict.fromkeys((*told, *given.get(name, ()))))
        if values:
            given[name] = values
    if "LINK_LOCAL" in declared and "LINK_LOCAL" not in given and "MAC" in given:
        given["LINK_LOCAL"] = tuple(map(_link_local, given["MAC"]))
    used = {name: values for name, values in given.items() if name in declared}
    canonical = {name: _canonical(declared[name], values) for name, values in used.items()}
    environment, learned = bind(library, names, canonical)
    return Wanted(names, dict(sorted(canonical.items())), environment, learned)


def _parameters(library: Library, attached: Iterable[Attached]) -> dict[str, tuple[str, ...]]:
    """What the attachments give, together; each its own profiles' variables alone."""
    given: dict[str, tuple[str, ...]] = {}
    by: dict[str, Attached] = {}
    for entry in attached:
        own = variables_of(library, [entry.profile])
        for name, values in entry.given.items():
            if name not in own:
                raise BindError(
                    f"{entry.where}: profile {entry.profile} has no variable {escape(name, 40)}"
                )
            if name in _TOLD:
                given[name] = tuple(dict.fromkeys((*given.get(name, ()), *values)))
            elif given.setdefault(name, tuple(values)) != tuple(values):
                raise BindError(
                    f"variable {name} is given differently at {by[name].where} and {entry.where}"
                )
            by.setdefault(name, entry)
    return given


def _told(
    declared: Mapping[str, Variable], mac: bytes | None, ip: bytes | None
) -> dict[str, tuple[str, ...]]:
    """What the toolstack says, where a profile asks."""
    told: dict[str, list[str]] = {"MAC": [], "IP": [], "IPV6": []}
    if "MAC" in declared and mac is not None:
        told["MAC"].append(mac.decode("ascii", "replace").lower())
    if "IP" in declared or "IPV6" in declared:
        for text in (ip or b"").decode("ascii", "replace").split():
            told["IPV6" if ":" in text else "IP"].append(text)
    return {name: tuple(values) for name, values in told.items() if name in declared}


def _canonical(variable: Variable, values: Iterable[str]) -> tuple[str, ...]:
    bound = parse_bound(variable, values)
    if isinstance(bound, Rate):
        return (str(bound),)
    return tuple(show(variable.type, value, {}) for value in bound)


def _link_local(mac: str) -> str:
    """The address that a host makes of its MAC (RFC 4291, modified EUI-64)."""
    try:
        octets = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6:
        raise BindError(f"not a MAC address: '{escape(mac, 60)}'")
    tail = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + tail))


class Claims:
    """Which vif has which address on one network: each is one vif's alone."""

    def __init__(self) -> None:
        self._single: dict[tuple[str, int], str] = {}
        self._ranges: dict[str, dict[str, list[Span]]] = {}
        self._held: dict[str, Environment] = {}

    def taken_by(self, owner: str, environment: Environment) -> str:
        """Who else has one of these addresses; empty if nobody has."""
        return next((other for other, _ in self._taken(owner, environment)), "")

    def taken(self, owner: str, environment: Environment, holder: str) -> str:
        """Which of these addresses is another's, whom people call `holder`; empty if none is."""
        for _, address in self._taken(owner, environment):
            return f"address {address} is bound to {holder} already"
        return ""

    def _taken(self, owner: str, environment: Environment) -> Iterator[tuple[str, str]]:
        for kind, span in _spans(environment):
            other = self._other(owner, kind, span)
            if other:
                yield other, show(kind, span, {})

    def _other(self, owner: str, kind: str, span: Span) -> str:
        if span.low == span.high:
            single = self._single.get((kind, span.low), owner)
            if single != owner:
                return single
        else:
            for (held, value), other in self._single.items():
                if held == kind and other != owner and span.holds(value):
                    return other
        for other, spans in self._ranges.get(kind, {}).items():
            if other != owner and any(it.low <= span.high and span.low <= it.high for it in spans):
                return other
        return ""

    def hold(self, owner: str, environment: Environment) -> None:
        """These are `owner`'s now, and nothing else is; they must not be taken."""
        if self._held.get(owner) == environment:
            return
        self.release(owner)
        self._held[owner] = environment
        for kind, span in _spans(environment):
            if span.low == span.high:
                self._single[kind, span.low] = owner
            else:
                self._ranges.setdefault(kind, {}).setdefault(owner, []).append(span)

    def release(self, owner: str) -> bool:
        """Nothing is `owner`'s any more; whether anything was."""
        held = self._held.pop(owner, None)
        for kind, span in _spans(held or {}):
            if span.low == span.high:
                self._single.pop((kind, span.low), None)
            else:
                self._ranges.get(kind, {}).pop(owner, None)
        return held is not None


def _spans(environment: Environment) -> Iterable[tuple[str, Span]]:
    for name, kind in _KINDS.items():
        bound = environment.get(name, ())
        if not isinstance(bound, Rate):
            for span in bound:
                yield kind, span
