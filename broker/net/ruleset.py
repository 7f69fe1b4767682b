"""What is in the sets for a target, and the commands from one content to another. Pure.

A `Content` is what the kernel's sets must hold, exactly; commands are differences of contents,
revocations first (`encoding` has a content as the kernel itself stores it). The sets and chains of
filter profiles come and go with the profiles in use.
"""

from __future__ import annotations

import functools
from itertools import chain
from typing import TYPE_CHECKING, Final, cast

import msgspec

from broker.net.filters.compile import group_named
from broker.net.filters.programs import NO_FILTERS, Filters
from broker.net.filters.states import definition, is_state
from broker.net.model import MAX_PORTS, Port, Target, check_pairs, interface_name
from broker.net.tables import (
    ARP,
    BRIDGE,
    FAMILIES,
    INET,
    MARK_BASE,
    SETS,
    SetSpec,
    skeleton,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.net.filters.usage import Vif

Combination = tuple[tuple[int, int], ...]
Value = int | str | tuple[int, int] | tuple[int, str] | tuple[int, Combination]
"""A key: an index, a bridge's name, a pair of classes, an index with a MAC or with the values of
variables, each from its lowest to its highest."""


class Until(msgspec.Struct, frozen=True):
    """A variable's value was learned, and ends at this time (`time.monotonic`)."""

    at: float


Data = int | str | Until | None
Elements = dict[Value, Data]
"""Keys, and what they map to: a number as it stands in the mark or the priority, or a verdict."""
Content = dict[tuple[str, str], Elements]
"""By table and set."""
Addresses = dict[int, float]
"""IPv4 addresses that were learned for a port, and when each lease ends."""


def port_content(
    port: Port,
    uplinks: Iterable[Port] = (),
    vif: Vif | None = None,
    learned: Addresses | None = None,
) -> Content:
    """The elements of one port; `uplinks` are those of its bridge, which must not send as it.

    `vif` is what its filter came to, None if it has none.
    """
    index: Elements = {port.index: None}
    number: Elements = {port.index: MARK_BASE | port.number}
    label: Elements = {port.index: port.label}
    table = INET if port.bridge is None else BRIDGE
    content: Content = {
        (table, "uplinks" if port.uplink and table == BRIDGE else "ports"): index,
        (table, "sender"): number,
        (table, "receiver"): number,
        (table, "sender_label"): label,
        (table, "receiver_label"): label,
    }
    if port.host:
        content[table, "host"] = index
    if table == BRIDGE:
        content |= _filter_content(port, vif, learned or {})
    if table == INET:
        content[ARP, "ports"] = index
        return content
    macs: Elements = {(uplink.index, mac): None for uplink in uplinks for mac in port.macs}
    if macs:
        content[BRIDGE, "local_macs"] = macs
    return content


def _filter_content(port: Port, vif: Vif | None, learned: Addresses) -> Content:
    """Verdicts for both directions: without them nothing passes; and variables' values."""
    content: Content = {
        (BRIDGE, "to_guest"): {port.index: "accept" if vif is None else vif.verdicts["to-guest"]}
    }
    if not port.uplink:
        verdict = "accept" if vif is None else vif.verdicts["from-guest"]
        content[BRIDGE, "from_guest"] = {port.index: verdict}
    if vif is not None:
        for group, keys in vif.elements(learned).items():
            content[BRIDGE, group.name] = {
                (port.index, key): None if end is None else Until(end) for key, end in keys.items()
            }
    return content


def content_of(
    target: Target,
    vif_of: Callable[[Port], Vif | None] | None = None,
    leases: Mapping[int, Addresses] | None = None,
) -> Content:
    """Everything the sets must hold. Pairs go to `xpb_inet` only if a port is routed.

    `vif_of` tells what a port's filter came to; needed if a port has any.

    Raises:
        InvalidError: a bridge's name or a pair is not one.
    """
    bridges: Elements = {interface_name(name): None for name in target.bridges}
    content: Content = {(BRIDGE, "bridges"): bridges, (INET, "bridges"): dict(bridges)}
    beside: dict[str, list[Port]] = {}
    for port in target.ports.values():
        if port.bridge is not None:
            beside.setdefault(port.bridge, []).append(port)
    uplinks = {name: [p for p in ports if p.uplink] for name, ports in beside.items()}
    for port in target.ports.values():
        vif = None if vif_of is None else vif_of(port)
        beside_it, learned = uplinks.get(port.bridge or "", ()), (leases or {}).get(port.index)
        for place, elements in port_content(port, beside_it, vif, learned).items():
            content.setdefault(place, {}).update(elements)
    check_pairs(target.pairs)
    content[BRIDGE, "pairs"] = dict.fromkeys(target.pairs)
    if routed(target):
        content[INET, "pairs"] = dict.fromkeys(target.pairs)
    return content


def routed(target: Target) -> bool:
    """Whether any port is a routed one."""
    return any(port.bridge is None for port in target.ports.values())


def difference(old: Content, new: Content, now: float = 0.0) -> list[str]:
    """Commands from `old` to `new`: what goes first, then what comes."""
    gone, come = commands(changes(old, new), now)
    return gone + come


def commands(listed: Iterable[Change], now: float) -> tuple[list[str], list[str]]:
    """What goes, and what comes; `now` is by the clock of leases' ends."""
    gone: list[str] = []
    come: list[str] = []
    for change in listed:
        table, spec, lost, won = change.table, change.spec, change.lost, change.won
        if change.emptied:
            gone.append(f"flush set {FAMILIES[table]} {table} {spec.name}")
        going: Elements = dict.fromkeys(change.ending)
        if going:
            gone.append(_elements("add", table, spec, going, now))
        if lost:
            gone.append(_elements("delete", table, spec, dict.fromkeys(lost), now))
        if won:
            come.append(_elements("add", table, spec, won, now))
    return gone, come


class Change(msgspec.Struct, frozen=True):
    """What goes from one set, and what comes into it; `emptied`: before that all of it goes."""

    table: str
    spec: SetSpec
    lost: Elements
    won: Elements
    emptied: bool = False

    @property
    def ending(self) -> list[Value]:
        """What may have gone by itself: adding it makes its removal harmless."""
        return [key for key, data in self.lost.items() if isinstance(data, Until)]


def changes(old: Content, new: Content) -> list[Change]:
    """Set by set, where they differ."""
    found = []
    for table, spec in specs({*old, *new}):
        before = old.get((table, spec.name), {})
        after = new.get((table, spec.name), {})
        if before is after or before == after:
            continue
        if spec.key == "pair":
            found.append(_change_of_pairs(table, spec, before, after))
            continue
        lost = {key: it for key, it in before.items() if key not in after or after[key] != it}
        won = {key: it for key, it in after.items() if key not in before or before[key] != it}
        found.append(Change(table, spec, lost, won))
    return found


def _change_of_pairs(table: str, spec: SetSpec, before: Elements, after: Elements) -> Change:
    lost = before.keys() - after.keys()
    if len(lost) > len(after):
        # A revocation of thousands takes a part of the time if what stays is written anew.
        return Change(table, spec, {}, after, emptied=True)
    return Change(table, spec, dict.fromkeys(lost), dict.fromkeys(after.keys() - before.keys()))


def specs(places: Iterable[tuple[str, str]]) -> list[tuple[str, SetSpec]]:
    """The table and the description of each of these sets, in a lasting order."""
    wanted = set(places)
    fixed = [
        (table, spec)
        for table, specs_here in SETS.items()
        for spec in specs_here
        if (table, spec.name) in wanted
    ]
    known = {(table, spec.name) for table, spec in fixed}
    return fixed + [(table, group_spec(name)) for table, name in sorted(wanted - known)]


@functools.lru_cache(maxsize=256)
def group_spec(name: str) -> SetSpec:
    """The description of a set of variables' values, by its name."""
    return SetSpec(name, group_named(name).typed, "group")


def whole(
    new: Content,
    *,
    knows_bridge: bool,
    filters: Filters = NO_FILTERS,
    there: Iterable[str] = (),
    now: float = 0.0,
) -> list[str]:
    """Commands that make the tables if need be, and make them hold `new` and nothing else.

    One transaction of them is right whatever was there before: also nothing. `there` are the names
    of the chains and sets of filters that are there: those that `filters` has not are deleted.
    """
    commands = skeleton(knows_bridge=knows_bridge)
    for table, fixed in SETS.items():
        for spec in fixed:
            kind = "map" if spec.data else "set"
            commands.append(f"flush {kind} {FAMILIES[table]} {table} {spec.name}")
    known = filters.names()
    stale = sorted(name for name in there if name not in known)
    commands += make_filters(NO_FILTERS, filters)
    commands += [f"flush chain {_BRIDGE} {name}" for name in stale if is_chain(name)]
    commands += [
        f"flush set {_BRIDGE} {name}"
        for name in sorted(known)
        # Connections outlive whoever wrote the rules.
        if not is_chain(name) and not is_state(name)
    ]
    commands += fill_filters(NO_FILTERS, filters)
    commands += delete_filters(stale)
    for table, spec in specs(new):
        elements = new[table, spec.name]
        if elements:
            commands.append(_elements("add", table, spec, elements, now))
    return commands


_BRIDGE: Final = f"{FAMILIES[BRIDGE]} {BRIDGE}"


def is_chain(name: str) -> bool:
    """Whether a name of the filters' is a chain's, and not a set's."""
    return name.startswith(("c/", "f/", "k/"))


def is_filters(name: str) -> bool:
    """Whether a chain or set of this name is the filters'."""
    return is_chain(name) or name.startswith(("m/", "n/", "q/", "r/", "s/", "v/"))


def make_filters(old: Filters, new: Filters) -> list[str]:
    """Commands for sets and chains that are to be there before anything refers to them."""
    if new is old:
        return []
    there = old.names()
    commands = []
    for group in sorted(new.groups - old.groups, key=lambda it: it.name):
        flags = "interval" if group.spans else "timeout"
        commands.append(f"add set {_BRIDGE} {group.name} {{ {group.typed}; flags {flags}; }}")
    meter = f"type iface_index; size {MAX_PORTS}; flags dynamic, timeout; timeout 1h;"
    commands += [f"add set {_BRIDGE} {it} {{ {meter} }}" for it in sorted(new.meters - old.meters)]
    commands += [
        f"add set {_BRIDGE} {it} {{ {definition(it)} }}" for it in sorted(new.states - old.states)
    ]
    return commands + [f"add chain {_BRIDGE} {it}" for it in new.chains if it not in there]


def fill_filters(old: Filters, new: Filters) -> list[str]:
    """Commands that give chains their rules, where those are others; chains to go are emptied."""
    if new is old:
        return []
    before, after = old.chains, new.chains
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    commands = [f"flush chain {_BRIDGE} {name}" for name in changed]
    for name in changed:
        for line in after.get(name, ()):
            counted = f' comment "{line.rule}"' if line.rule else ""
            commands.append(f"add rule {_BRIDGE} {name} {line.text}{counted}")
    return commands


def delete_filters(names: Iterable[str]) -> list[str]:
    """Commands for chains and sets that nothing refers to any more."""
    listed = sorted(names, key=lambda name: (not is_chain(name), name))
    return [f"delete {'chain' if is_chain(it) else 'set'} {_BRIDGE} {it}" for it in listed]


def _elements(
    verb: str,
    table: str,
    spec: SetSpec,
    elements: Mapping[Value, Data],
    now: float,
) -> str:
    if spec.key == "pair":
        listed = _pairs_text(cast("Mapping[tuple[int, int], None]", elements))
    else:
        listed = ", ".join(
            _key_text(key) + ("" if data is None else _data_text(spec, data, now))
            for key, data in elements.items()
        )
    return f"{verb} element {FAMILIES[table]} {table} {spec.name} {{ {listed} }}"


def _key_text(key: Value) -> str:
    if isinstance(key, int):
        return str(key)
    if isinstance(key, str):
        return f'"{key}"'
    first, second = key
    if isinstance(second, tuple):
        return " . ".join([str(first), *(_span_text(low, high) for low, high in second)])
    return f"{first} . {second}"


def _span_text(low: int, high: int) -> str:
    return f"{low:#x}" if low == high else f"{low:#x}-{high:#x}"


def _pairs_text(pairs: Mapping[tuple[int, int], None]) -> str:
    """Ten thousand of them at a time: each number is formatted once."""
    numbers = set(chain.from_iterable(pairs))
    marks = {n: f"{MARK_BASE | n:#x} . " for n in numbers}
    priorities = {n: _classid(MARK_BASE | n) for n in numbers}
    return ", ".join([marks[one] + priorities[other] for one, other in pairs])


def _data_text(spec: SetSpec, data: int | str | Until, now: float) -> str:
    if isinstance(data, str):
        return f" : {data}"
    if isinstance(data, Until):
        return f" timeout {max(1, int((data.at - now) * 1000))}ms"
    return f" : {data:#x}" if spec.data == "mark" else f" : {_classid(data)}"


def _classid(number: int) -> str:
    """A priority as nft writes it."""
    return f"{number >> 16:x}:{number & 0xFFFF:x}"
