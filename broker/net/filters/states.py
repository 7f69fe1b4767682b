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
    s/fresh-from.tcp4   what was noted lately: until it ends nothing is written for such a frame
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

FRESH: Final = 15
"""Seconds in which a connection's further frames in one direction are not noted anew …"""
FRESH_LONG: Final = 3600
"""… and where it is kept LONG."""
SHORT: Final = FRESH + 60
"""Seconds that a frame is remembered: an answer may take 60 (RFC 5508)."""
LONG: Final = FRESH_LONG + 7440
"""The same of an answered TCP connection, which may be silent for 7,440 (RFC 5382)."""
MOST: Final[dict[str, int]] = {"tcp": 1 << 18, "udp": 1 << 18, "echo": 1 << 14}
"""What one set holds at most, of all ports together."""
RATES: Final[dict[str, str]] = {
    "new": "200/second burst 2000 packets",
    "known": "400/second burst 4000 packets",
    "ping": "10/second burst 100 packets",
    "kept": "1/second burst 1000 packets",
}
"""How often one port may have something noted in one direction: what begins (`new`), what answers
or goes on; and kept LONG. Nothing is noted, and nothing prolonged, without: so whatever a guest
sends, of SHORT entries it has 75 x (200 + 400) + 6000 in one set at most, and 12,040 LONG ones."""

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
    version, protocol = tracked.version, tracked.protocol
    notes = _Notes(tracked, direction)
    rules = {"tcp": _of_tcp, "udp": _of_udp, "echo": _of_echo}[protocol](notes)
    strange = version.otherwise["icmp" if protocol == "echo" else protocol]
    return Noting(
        f"k/{_WORD[direction]}/{protocol}{version.name}",
        (*(f"{it} accept" for it in strange), *rules, "accept"),
        frozenset(notes.states),
        frozenset(notes.meters),
    )


class _Notes:
    """What is written of one kind of frames in one direction; which sets and meters that takes."""

    def __init__(self, tracked: _Tracked, direction: Direction) -> None:
        word, other = _WORD[direction], _WORD[_OTHER[direction]]
        self.port = _PORT[direction]
        self.key = tracked.key(self.port, turned=False)
        self.turned = tracked.key(self.port, turned=True)
        self.guests = self.turned if direction == "to-guest" else self.key
        self.here, self.there = tracked.set_of(word), tracked.set_of(other)
        self.fresh, self.fresh_there = (tracked.set_of(f"fresh-{it}") for it in (word, other))
        self.kept = tracked.set_of("kept")
        self.request = f"@th,0,8 {tracked.version.request}"
        self.states = {self.here, self.there, self.fresh, self.fresh_there}
        self.meters: set[str] = set()
        self._word = word

    def paid(self, of: str) -> str:
        """That the port may have one more noted."""
        meter = f"m/{of}/{self._word}"
        self.meters.add(meter)
        return f"update @{meter} {{ {self.port} limit rate {RATES[of]} }}"

    def noted(self, of: str) -> str:
        """That it is, for a while; the set's own limit may be against it."""
        return (
            f"{self.paid(of)} update @{self.here} {{ {self.key} timeout {SHORT}s }} "
            f"update @{self.fresh} {{ {self.key} timeout {FRESH}s }} accept"
        )

    def is_fresh(self) -> str:
        """Nothing is to be written of it."""
        return f"{self.key} @{self.fresh} accept"

    def kept_long(self) -> str:
        """That it is, and the connection with it."""
        self.states.add(self.kept)
        return (
            f"{self.paid('kept')} update @{self.kept} {{ {self.guests} timeout {LONG}s }} "
            f"update @{self.here} {{ {self.key} timeout {LONG}s }} "
            f"update @{self.fresh} {{ {self.key} timeout {FRESH_LONG}s }} accept"
        )


def _of_echo(notes: _Notes) -> list[str]:
    return [f"{notes.request} {notes.is_fresh()}", f"{notes.request} {notes.noted('ping')}"]


def _of_udp(notes: _Notes) -> list[str]:
    return [
        notes.is_fresh(),
        f"{notes.key} @{notes.here} {notes.noted('known')}",
        f"{notes.turned} @{notes.there} {notes.noted('known')}",
        notes.noted("new"),
    ]


def _of_tcp(notes: _Notes) -> list[str]:
    answered = f"{notes.turned} @{notes.there}"
    kept = f"{notes.guests} @{notes.kept}"
    ends = f"{_ENDS} {kept}"
    first = f"{_ANSWERS} {answered} {notes.key} != @{notes.fresh}"
    return [
        # A connection ends for both directions at once, and what comes after is not kept long. That
        # is written once: who says it again and again has the other end's frames noted no more.
        f"{ends} {answered} update @{notes.there} {{ {notes.turned} timeout {SHORT}s }}",
        f"{ends} {notes.key} @{notes.here} update @{notes.here} {{ {notes.key} timeout {SHORT}s }}",
        f"{ends} delete @{notes.fresh} {{ {notes.key} }}",
        f"{ends} delete @{notes.fresh_there} {{ {notes.turned} }}",
        f"{ends} delete @{notes.kept} {{ {notes.guests} }}",
        # The answer to a SYN: from now on it is kept long, and at the next frame the other way too.
        f"{first} delete @{notes.fresh_there} {{ {notes.turned} }}",
        notes.is_fresh(),
        f"{_ANSWERS} {answered} {notes.kept_long()}",
        f"{kept} {notes.kept_long()}",
        f"{answered} {notes.noted('known')}",
        f"{_BEGINS} {notes.noted('new')}",
        f"{_AMONG} {notes.noted('new')}",
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
