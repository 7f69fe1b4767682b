"""What compiles filter profiles, each of its guards left out: what the tests must all notice.

The chains of two profiles say much twice, so a rule may go without a frame that tells. So it is
not the rules that are changed, but what makes them: with a guard left out everywhere, frames tell.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.fields import FIELDS
from broker.filters.frame import ABSENT, UNREADABLE
from broker.net.connections import Connections
from broker.net.filters import compile as compiling
from broker.net.filters import programs
from broker.net.filters.kinds import KINDS
from broker.net.filters.states import noting_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from broker.filters.model import Match
    from broker.net.filters.kinds import Kind
    from broker.net.filters.quick import Quick
    from broker.net.filters.states import Noting

    Conditions = tuple[list[str], object] | None
    Grouping = Callable[..., Conditions]
    Lines = Callable[..., tuple[object, ...]]
    Telling = Callable[..., list[str] | None]
    Noted = Callable[..., Noting | None]
    ShortCuts = tuple[tuple[str, frozenset[str]], ...]

_PROFILES: Final = Path(__file__).parents[2] / "etc" / "filters"
_TCP4: Final = noting_of(KINDS["ip4-tcp"], "from-guest")
_NOTES: Final = 0 if _TCP4 is None else len(_TCP4.rules) - 1
"""Rules that note TCP, the last one left out, which accepts."""
_STATES: Final = (
    ("fragments have a state", " @nh,50,14 0", ""),
    ("packets with options have a state", "@nh,0,8 0x45 ", ""),
    ("a SYN may be an answer", " @th,104,8 & 0x17 != 0x2", ""),
    ("what begins is told by no flags", " @th,104,8 & 0x17 0x10", ""),
    ("what passed the same way is answered", "@s/from.", "@s/to."),
    ("what passed the other way is not", "@s/to.", "@s/from."),
    ("an error quotes an echo reply too", " @th,224,8 8", ""),
)
"""What is told of a connection's state, and what is put in its place."""
_ANY_IPV4: Final = "@ll,96,16 0x0800"


class Mutant(msgspec.Struct, frozen=True):
    """One guard that is left out: what is put in its place, made from what is there.

    `chain` is the profile that notices it first, if that is known.
    """

    name: str
    place: object
    attribute: str
    change: Callable[..., object]
    chain: str = ""


def mutants() -> list[Mutant]:
    """All of them."""
    named = sorted(path.stem for path in _PROFILES.glob("*.yaml"))
    return [
        *(_group(f"without conditions on {it}", _without(it)) for it in FIELDS),
        _group("what cannot be read is accepted too", _accepting_unreadable),
        _group("what cannot be read is not dropped", _passing_unreadable),
        _group("a field that is not there is no matter", _absent),
        *(
            Mutant(f"{it} is not asked", programs.Programs, "_profile", _unasked(it), it)
            for it in named
        ),
        Mutant("nothing is dropped by default", programs.Programs, "_lines", _without_default),
        Mutant("nothing is limited", compiling, "rate_of", lambda _: lambda *_: None),
        Mutant("nothing is learned", programs, "_LEARN_KIND", lambda _: ""),
        Mutant("whoever sends IPv4 goes the short way", programs, "quick_way", _quick),
        *(Mutant(it, compiling, "state_conditions", _told(old, new)) for it, old, new in _STATES),
        *(
            Mutant(f"rule {n} that notes TCP is not there", programs, "noting_of", _noting(n))
            for n in range(_NOTES)
        ),
        Mutant("connections outlive their port", Connections, "_forget", lambda _: _nothing),
        *(
            Mutant(f"short cut {n} for all IPv4", programs, "SHORT_CUTS", _short_cut(n))
            for n in range(len(programs.SHORT_CUTS))
        ),
    ]


@contextmanager
def in_force(mutant: Mutant) -> Iterator[None]:
    """Within, profiles that are compiled in this process have this guard not."""
    was = getattr(mutant.place, mutant.attribute)
    setattr(mutant.place, mutant.attribute, mutant.change(was))
    try:
        yield
    finally:
        setattr(mutant.place, mutant.attribute, was)


def _group(name: str, change: Callable[[Grouping], Grouping]) -> Mutant:
    return Mutant(name, compiling, "_group", change)


def _without(field: str) -> Callable[[Grouping], Grouping]:
    def change(was: Grouping) -> Grouping:
        def group(matches: Sequence[Match], *about: object, drops: bool) -> Conditions:
            found = was(matches, *about, drops=drops)
            if found is None or all(match.field != field for match in matches):
                return found
            return [], found[1]

        return group

    return change


def _accepting_unreadable(was: Grouping) -> Grouping:
    def group(matches: Sequence[Match], *about: object, drops: bool) -> Conditions:
        found = was(matches, *about, drops=True)
        return found if drops or found is not None else was(matches, *about, drops=False)

    return group


def _passing_unreadable(was: Grouping) -> Grouping:
    def group(matches: Sequence[Match], kind: Kind, *about: object, drops: bool) -> Conditions:
        readings = [kind.readings.get(match.field) for match in matches]
        return None if UNREADABLE in readings else was(matches, kind, *about, drops=drops)

    return group


def _absent(was: Grouping) -> Grouping:
    def group(matches: Sequence[Match], kind: Kind, *about: object, drops: bool) -> Conditions:
        readings = [kind.readings.get(match.field, ABSENT) for match in matches]
        return ([], None) if ABSENT in readings else was(matches, kind, *about, drops=drops)

    return group


def _unasked(profile: str) -> Callable[[Lines], Lines]:
    def change(was: Lines) -> Lines:
        def asked(self: programs.Programs, name: str, *about: object) -> tuple[object, ...]:
            return ({}, set()) if name == profile else was(self, name, *about)

        return asked

    return change


def _without_default(was: Lines) -> Lines:
    def lines(self: programs.Programs, *about: object) -> tuple[object, ...]:
        found, groups = was(self, *about)
        return tuple(it for it in found if not it.rule.endswith("/default")), groups

    return lines


def _quick(was: Callable[..., Quick | None]) -> Callable[..., Quick | None]:
    def way(*about: object) -> Quick | None:
        found = was(*about)
        return found and msgspec.structs.replace(found, condition=_ANY_IPV4)

    return way


def _told(old: str, new: str) -> Callable[[Telling], Telling]:
    def change(was: Telling) -> Telling:
        def telling(*about: object) -> list[str] | None:
            found = was(*about)
            return found and [it.replace(old, new) for it in found]

        return telling

    return change


def _noting(number: int) -> Callable[[Noted], Noted]:
    def change(was: Noted) -> Noted:
        def noting(*about: object) -> Noting | None:
            found = was(*about)
            if found is None or "/tcp" not in found.chain:
                return found
            rules = (*found.rules[:number], *found.rules[number + 1 :])
            return msgspec.structs.replace(found, rules=rules)

        return noting

    return change


def _nothing(*_: object) -> None:
    pass


def _short_cut(number: int) -> Callable[[ShortCuts], ShortCuts]:
    def change(was: ShortCuts) -> ShortCuts:
        return tuple(
            (_ANY_IPV4 if n == number else condition, kinds)
            for n, (condition, kinds) in enumerate(was)
        )

    return change
