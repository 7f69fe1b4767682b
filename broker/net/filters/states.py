"""Connection state (`ct.state`): each port's own table of the connections that passed its filter.

Not conntrack's: on a bridge that works behind `prerouting`, where a guest's frame is asked about,
puts fragments together before `forward` looks at them, changes what dom0's own firewall sees, is
missing from many kernels, and knows a connection by its addresses alone, so that one guest could
make the entry that opens another's filter. Here every key begins with the port: what passes one
port's filter opens nothing of another's, whatever addresses it bears.

    s/from.tcp4     what was let through from guests (and udp4, echo4, tcp6, …): the port, source,
                    destination, ports; of an echo request its number
    s/to.tcp4       what was let through to them
    s/kept.tcp4     connections that were answered and not ended, as the guest's frames are keyed
    k/from/ip4-tcp  what is noted of a frame that all profiles of a port accepted

`docs/filters.md` says what each state is; `broker.filters.connections` is the plain reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.fields import CT_STATES
from broker.net.filters.kinds import Bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.filters.model import Direction
    from broker.net.filters.kinds import Kind

SHORT: Final = 60
"""Seconds that a frame is remembered, and so how long its answer may take (RFC 5508: 60)."""
LONG: Final = 7440
"""Seconds that an answered TCP connection may be silent (RFC 5382: 2 hours and 4 minutes)."""
MOST: Final[dict[str, int]] = {"tcp": 1 << 18, "udp": 1 << 18, "echo": 1 << 15}
"""What one set holds at most, of all ports together."""
NEW_RATE: Final = "300/second burst 1500 packets"
"""New entries of one port in one direction: with SHORT, what a guest can take of a set."""
KEPT_RATE: Final = "1/second burst 1000 packets"
"""Of these, those that may be kept LONG."""

_ANY_SET: Final = "s/"
_INVALID, _NEW, _ESTABLISHED, _RELATED, _UNTRACKED = (
    CT_STATES[it] for it in ("invalid", "new", "established", "related", "untracked")
)
_OTHER: Final[dict[Direction, Direction]] = {"from-guest": "to-guest", "to-guest": "from-guest"}
_PORT: Final[dict[Direction, str]] = {"from-guest": "iif", "to-guest": "oif"}
_WORD: Final[dict[Direction, str]] = {"from-guest": "from", "to-guest": "to"}
_FLAGS: Final = "@th,104,8"
_ENDS: Final = f"{_FLAGS} & 0x5 != 0"
"""FIN or RST."""
_BEGINS: Final = f"{_FLAGS} & 0x17 0x2"
"""SYN alone of SYN, ACK, FIN, RST."""
_AMONG: Final = f"{_FLAGS} & 0x17 0x10"
"""ACK alone: of a connection that began before anybody looked, too."""
_ANSWERS: Final = f"{_FLAGS} & 0x17 0x12"
_NEITHER: Final = f"{_FLAGS} & 0x17 != {{ 0x2, 0x10 }}"
_NO_BEGIN: Final = f"{_FLAGS} & 0x17 != 0x2"


class _Version(msgspec.Struct, frozen=True):
    """Where things are in packets of one version, all of them without options or extensions.

    `plain` are conditions by protocol: those, and no fragment. `within`: in an ICMP error's quoted
    packet, whose protocol is at `within_protocol`.
    """

    name: str
    source: str
    destination: str
    ports: tuple[str, str]
    echo: str
    within: str
    within_ports: str
    within_echo: str
    within_protocol: str
    within_type: str
    plain: dict[str, tuple[str, ...]]
    otherwise: dict[str, tuple[str, ...]]
    request: int
    reply: int
    errors: str
    ping: int


_V4: Final = _Version(
    "4", "@nh,96,32", "@nh,128,32", ("@nh,160,16", "@nh,176,16"), "@nh,192,16",
    "@th,160,32 . @th,192,32", "@th,224,16 . @th,240,16", "@th,256,16", "@th,136,8", "@th,224,8",
    dict.fromkeys(("tcp", "udp", "icmp"), ("@nh,0,8 0x45", "@nh,50,14 0")),
    dict.fromkeys(("tcp", "udp", "icmp"), ("@nh,0,8 != 0x45", "@nh,50,14 != 0")),
    8, 0, "3, 11, 12", 1,
)  # fmt: skip
_V6: Final = _Version(
    "6", "@nh,64,128", "@nh,192,128", ("@nh,320,16", "@nh,336,16"), "@nh,352,16",
    "@th,128,128 . @th,256,128", "@th,384,16 . @th,400,16", "@th,416,16", "@th,112,8", "@th,384,8",
    {"tcp": ("@nh,48,8 6",), "udp": ("@nh,48,8 17",), "icmp": ("@nh,48,8 58",)},
    {"tcp": ("@nh,48,8 != 6",), "udp": ("@nh,48,8 != 17",), "icmp": ("@nh,48,8 != 58",)},
    128, 129, "1-4", 58,
)  # fmt: skip


class _Tracked(msgspec.Struct, frozen=True):
    """A kind of frames that may be of a connection."""

    protocol: str
    version: _Version
    quotes: bool

    def set_of(self, of: str, protocol: str = "") -> str:
        return f"{_ANY_SET}{of}.{protocol or self.protocol}{self.version.name}"

    def key(self, port: str, *, turned: bool) -> str:
        """The frame's key, as it passes; `turned`: that of the frame that it answers."""
        v = self.version
        ends, ports = (v.source, v.destination), v.ports
        if turned:
            ends, ports = ends[::-1], ports[::-1]
        numbers = (v.echo,) if self.protocol == "echo" else ports
        return " . ".join([port, *ends, *numbers])


def _tracked(kind: Kind) -> _Tracked | None:
    version = {"ip4": _V4, "ip6": _V6}.get(kind.name.partition("-")[0])
    if version is None:
        return None
    for protocol in ("tcp", "udp"):
        if isinstance(kind.readings.get(f"{protocol}.sport"), Bytes):
            return _Tracked(protocol, version, quotes=False)
    if kind.name in _ECHOES:
        return _Tracked("echo", version, kind.name.endswith("-error"))
    return None


_ECHOES: Final = frozenset({"ip4-icmp", "ip4-icmp-error", "ip6-icmp", "ip6-icmp-error"})


def state_conditions(kind: Kind, direction: Direction, wanted: Collection[int]) -> list[str] | None:
    """Conditions of which one holds if a frame's state is one of `wanted`.

    None: it cannot be; none listed: it always is.
    """
    tracked = _tracked(kind)
    if tracked is None:
        return [] if _UNTRACKED in wanted else None
    found = [
        text for state, texts in _states(tracked, direction).items() if state in wanted
        for text in texts
    ]  # fmt: skip
    return found or None


def _states(tracked: _Tracked, direction: Direction) -> dict[int, list[str]]:
    version, other = tracked.version, _WORD[_OTHER[direction]]
    protocol = "icmp" if tracked.protocol == "echo" else tracked.protocol
    plain = " ".join(version.plain[protocol])
    answers = f"{tracked.key(_PORT[direction], turned=True)} @{tracked.set_of(other)}"
    strays = f"{tracked.key(_PORT[direction], turned=True)} != @{tracked.set_of(other)}"
    untracked = list(version.otherwise[protocol])
    if tracked.quotes:
        related, unrelated = _quoted(tracked, direction)
        return {
            _RELATED: [f"{plain} {it}" for it in related],
            _INVALID: [f"{plain} {it}" for it in unrelated],
            _UNTRACKED: untracked,
        }
    if tracked.protocol == "echo":
        known = f"{version.request}, {version.reply}, {version.errors}"
        reply = f"{plain} @th,0,8 {version.reply}"
        return {
            _NEW: [f"{plain} @th,0,8 {version.request}"],
            _ESTABLISHED: [f"{reply} {answers}"],
            _INVALID: [f"{reply} {strays}", f"{plain} @th,0,8 {{ {version.errors} }}"],
            _UNTRACKED: [*untracked, f"@th,0,8 != {{ {known} }}"],
        }
    if tracked.protocol == "udp":
        return {
            _NEW: [f"{plain} {strays}"],
            _ESTABLISHED: [f"{plain} {answers}"],
            _UNTRACKED: untracked,
        }
    return {
        _NEW: [f"{plain} {_BEGINS}", f"{plain} {_AMONG} {strays}"],
        _ESTABLISHED: [f"{plain} {_NO_BEGIN} {answers}"],
        _INVALID: [f"{plain} {_NEITHER} {strays}"],
        _UNTRACKED: untracked,
    }


def _quoted(tracked: _Tracked, direction: Direction) -> tuple[list[str], list[str]]:
    """Of an error that quotes a packet: that it passed the other way; that it did not.

    A packet that is quoted to a guest is the guest's own.
    """
    version, other = tracked.version, _WORD[_OTHER[direction]]
    related, unrelated = [], []
    for number, protocol in ((6, "tcp"), (17, "udp"), (version.ping, "echo")):
        numbers = version.within_echo if protocol == "echo" else version.within_ports
        key = f"{_PORT[direction]} . {version.within} . {numbers}"
        name = tracked.set_of(other, protocol)
        of = f"{version.within_protocol} {number}"
        if protocol == "echo":
            unrelated.append(f"{of} {version.within_type} != {version.request}")
            of += f" {version.within_type} {version.request}"
        related.append(f"{of} {key} @{name}")
        unrelated.append(f"{of} {key} != @{name}")
    return related, unrelated


class Noting(msgspec.Struct, frozen=True):
    """What notes an accepted frame: a chain, its rules, and the sets they need."""

    chain: str
    rules: tuple[str, ...]
    states: frozenset[str]
    meters: frozenset[str]


def noting_of(kind: Kind, direction: Direction) -> Noting | None:
    """How a frame of this kind is noted once it is accepted; None: it is not."""
    tracked = _tracked(kind)
    if tracked is None or tracked.quotes:
        return None
    protocol = tracked.protocol
    name = f"k/{_WORD[direction]}/{protocol}{tracked.version.name}"
    meter = f"m/new/{_WORD[direction]}"
    rules = _rules(tracked, direction, meter)
    states = {tracked.set_of(_WORD[it]) for it in _WORD}
    meters = {meter}
    if protocol == "tcp":
        states.add(tracked.set_of("kept"))
        meters.add(_KEPT_METER)
    return Noting(name, (*rules, "accept"), frozenset(states), frozenset(meters))


_KEPT_METER: Final = "m/kept"


def _rules(tracked: _Tracked, direction: Direction, meter: str) -> list[str]:
    version, port, protocol = tracked.version, _PORT[direction], tracked.protocol
    out = [f"{it} accept" for it in version.otherwise["icmp" if protocol == "echo" else protocol]]
    key = tracked.key(port, turned=False)
    here = tracked.set_of(_WORD[direction])
    noted = f"update @{here} {{ {key} timeout {SHORT}s }} accept"
    again = f"{key} @{here} {noted}"
    limited = f"update @{meter} {{ {port} limit rate {NEW_RATE} }} {noted}"
    if protocol == "echo":
        asks = f"@th,0,8 {version.request}"
        return [*out, f"{asks} {again}", f"{asks} {limited}"]
    if protocol == "udp":
        return [*out, again, limited]
    answered = f"{tracked.key(port, turned=True)} @{tracked.set_of(_WORD[_OTHER[direction]])}"
    keyed = tracked.key(port, turned=direction == "to-guest")
    kept = tracked.set_of("kept")
    keep = f"update @{kept} {{ {keyed} timeout {LONG}s }}"
    paid = f"update @{_KEPT_METER} {{ {port} limit rate {KEPT_RATE} }}"
    there = tracked.set_of(_WORD[_OTHER[direction]])
    turned = tracked.key(port, turned=True)
    return [
        *out,
        f"{_ENDS} {answered} update @{there} {{ {turned} timeout {SHORT}s }}",
        f"{_ENDS} {keyed} @{kept} delete @{kept} {{ {keyed} }}",
        # Only the answer to a SYN is kept long: what comes after an end is not.
        f"{_ANSWERS} {answered} {keyed} != @{kept} {paid} {keep}",
        f"{keyed} @{kept} {keep} update @{here} {{ {key} timeout {LONG}s }} accept",
        again,
        f"{_BEGINS} {limited}",
        f"{_AMONG} {limited}",
        f"{answered} {limited}",
    ]


def definition(name: str) -> str:
    """What makes the set of this name, in nft."""
    of = name.removeprefix(_ANY_SET).partition(".")[2]
    version = _V6 if of.endswith("6") else _V4
    protocol = of[:-1]
    key = _Tracked(protocol, version, quotes=False).key("iif", turned=False)
    return f"typeof {key}; size {MOST[protocol]}; flags dynamic, timeout; gc-interval 10s;"


def is_state(name: str) -> bool:
    """Whether a set of this name holds connections."""
    return name.startswith(_ANY_SET)
