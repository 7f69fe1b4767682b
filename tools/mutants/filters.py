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
from broker.net.filters import compile as compiling
from broker.net.filters import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from broker.filters.model import Match
    from broker.net.filters.kinds import Kind
    from broker.net.filters.quick import Quick

    Conditions = tuple[list[str], object] | None
    Grouping = Callable[..., Conditions]
    Lines = Callable[..., tuple[object, ...]]
    ShortCuts = tuple[tuple[str, frozenset[str]], ...]

_PROFILES: Final = Path(__file__).parents[2] / "etc" / "filters"
_UNUSED: Final = frozenset({"ct.state"})
"""Fields that no profile can use in the kernel."""
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
        *(
            _group(f"without conditions on {it}", _without(it))
            for it in FIELDS
            if it not in _UNUSED
        ),
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


def _short_cut(number: int) -> Callable[[ShortCuts], ShortCuts]:
    def change(was: ShortCuts) -> ShortCuts:
        return tuple(
            (_ANY_IPV4 if n == number else condition, kinds)
            for n, (condition, kinds) in enumerate(was)
        )

    return change
