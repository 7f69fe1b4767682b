"""What is in the sets for a target, and the commands from one content to another. Pure.

A `Content` is what the kernel's sets must hold, exactly; commands are differences of contents,
revocations first; `encoded` is a content as the kernel itself stores it, to compare with what is
read back.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Final, cast

from broker.net.model import Port, Target, check_pairs, interface_name
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
    from collections.abc import Iterable, Mapping

Value = int | str | tuple[int, int] | tuple[int, str]
"""A key: an index, a bridge's name, a pair of classes, an index with a MAC."""
Elements = dict[Value, int | None]
"""Keys, and the number that a map's key maps to, as it stands in the mark or the priority."""
Content = dict[tuple[str, str], Elements]
"""By table and set."""

_U32: Final = struct.Struct("=I")


def port_content(port: Port, uplinks: Iterable[Port] = ()) -> Content:
    """The elements of one port; `uplinks` are those of its bridge, which must not send as it."""
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
    if table == INET:
        content[ARP, "ports"] = index
        return content
    macs: Elements = {(uplink.index, mac): None for uplink in uplinks for mac in port.macs}
    if macs:
        content[BRIDGE, "local_macs"] = macs
    return content


def content_of(target: Target) -> Content:
    """Everything the sets must hold. Pairs go to `xpb_inet` only if a port is routed.

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
        for place, elements in port_content(port, uplinks.get(port.bridge or "", ())).items():
            content.setdefault(place, {}).update(elements)
    check_pairs(target.pairs)
    content[BRIDGE, "pairs"] = dict.fromkeys(target.pairs)
    if routed(target):
        content[INET, "pairs"] = dict.fromkeys(target.pairs)
    return content


def routed(target: Target) -> bool:
    """Whether any port is a routed one."""
    return any(port.bridge is None for port in target.ports.values())


def difference(old: Content, new: Content) -> list[str]:
    """Commands from `old` to `new`: what goes first, then what comes."""
    gone: list[str] = []
    come: list[str] = []
    for table, specs in SETS.items():
        for spec in specs:
            before = old.get((table, spec.name), {})
            after = new.get((table, spec.name), {})
            if before is after or before == after:
                continue
            lost = [key for key, data in before.items() if key not in after or after[key] != data]
            won = {
                key: data for key, data in after.items() if key not in before or before[key] != data
            }
            if spec.key == "pair" and len(lost) > len(after):
                # A revocation of thousands takes a tenth of the time if what stays is written anew.
                gone.append(f"flush set {FAMILIES[table]} {table} {spec.name}")
                lost, won = [], after
            if lost:
                gone.append(_elements("delete", table, spec, dict.fromkeys(lost)))
            if won:
                come.append(_elements("add", table, spec, won))
    return gone + come


def whole(new: Content, *, knows_bridge: bool) -> list[str]:
    """Commands that make the tables if need be, and make them hold `new` and nothing else.

    One transaction of them is right whatever was there before: also nothing.
    """
    commands = skeleton(knows_bridge=knows_bridge)
    for table, specs in SETS.items():
        for spec in specs:
            kind = "map" if spec.data else "set"
            commands.append(f"flush {kind} {FAMILIES[table]} {table} {spec.name}")
            elements = new.get((table, spec.name))
            if elements:
                commands.append(_elements("add", table, spec, elements))
    return commands


def _elements(verb: str, table: str, spec: SetSpec, elements: Mapping[Value, int | None]) -> str:
    if spec.key == "pair":
        listed = _pairs_text(cast("Mapping[tuple[int, int], None]", elements))
    else:
        listed = ", ".join(
            _key_text(key) + ("" if data is None else f" : {_data_text(spec, data)}")
            for key, data in elements.items()
        )
    return f"{verb} element {FAMILIES[table]} {table} {spec.name} {{ {listed} }}"


def _key_text(key: Value) -> str:
    if isinstance(key, int):
        return str(key)
    if isinstance(key, str):
        return f'"{key}"'
    return f"{key[0]} . {key[1]}"


def _pairs_text(pairs: Mapping[tuple[int, int], None]) -> str:
    """Ten thousand of them at a time: each number is formatted once."""
    numbers = set(chain.from_iterable(pairs))
    marks = {n: f"{MARK_BASE | n:#x} . " for n in numbers}
    priorities = {n: _classid(MARK_BASE | n) for n in numbers}
    return ", ".join([marks[one] + priorities[other] for one, other in pairs])


def _data_text(spec: SetSpec, number: int) -> str:
    return f"{number:#x}" if spec.data == "mark" else _classid(number)


def _classid(number: int) -> str:
    """A priority as nft writes it."""
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


def encoded(content: Content, table: str, spec: SetSpec) -> dict[bytes, bytes]:
    """The set's elements as the kernel stores them: key and data bytes (host byte order)."""
    elements = content.get((table, spec.name), {})
    if spec.key == "pair":
        pairs = cast("Mapping[tuple[int, int], None]", elements)
        part = {n: _U32.pack(MARK_BASE | n) for n in set(chain.from_iterable(pairs))}
        return dict.fromkeys([part[one] + part[other] for one, other in pairs], b"")
    return {
        encoded_key(key): b"" if data is None else _U32.pack(data) for key, data in elements.items()
    }


def encoded_key(key: Value) -> bytes:
    """One key as the kernel stores it: each part padded to four bytes, names to sixteen."""
    if isinstance(key, int):
        return _U32.pack(key)
    if isinstance(key, str):
        return key.encode("ascii").ljust(16, b"\0")
    first, second = key
    if isinstance(second, str):
        return _U32.pack(first) + bytes.fromhex(second.replace(":", "")).ljust(8, b"\0")
    return _U32.pack(MARK_BASE | first) + _U32.pack(MARK_BASE | second)
