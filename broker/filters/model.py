"""What a filter profile is, once read: immutable values, shared by evaluator and compiler.

How a frame is decided, in one direction:
- A **profile** goes through its steps in order. A rule that matches decides for the profile; an
  include asks that profile, and if it drops the frame is dropped, else the next step comes. Where
  no step decided, the profile's default for the direction does.
- A **vif** with several profiles passes a frame only if all of them accept it.
- A rule's matches are each *yes*, *no* or *unreadable* (`frame`). An accept rule matches if all
  are yes. A drop rule matches if none is no: what cannot be read is dropped, never passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from broker.filters.values import Rate, Span, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Verdict = Literal["accept", "drop"]
Direction = Literal["from-guest", "to-guest"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("from-guest", "to-guest")
VariableType = Literal["mac", "ipv4", "ipv6", "port", "vlan", "ethertype", "protocol", "rate"]
Bound = tuple[Span, ...] | Rate
"""What a variable stands for on one vif."""
Environment = dict[str, Bound]
"""The variables of one vif, by name: all its profiles share them."""


class Variable(msgspec.Struct, frozen=True):
    """A declaration. `learned`: where nobody gives a value, DHCP snooping finds it (at first none).

    `default` is None where a value must be given.
    """

    name: str
    type: VariableType
    default: Bound | None = None
    learned: bool = False
    where: str = ""


class Use(msgspec.Struct, frozen=True):
    """`$NAME`, or `$NAME@n`: the uses with one `n` in a rule step together, value by value."""

    name: str
    iterator: int | None = None

    def __str__(self) -> str:
        """As in a profile."""
        return f"${self.name}" if self.iterator is None else f"${self.name}@{self.iterator}"


class Match(msgspec.Struct, frozen=True):
    """A field, and the values of which it must have one: constants, or a variable's."""

    field: str
    values: tuple[Value, ...] = ()
    use: Use | None = None
    where: str = ""


class Rule(msgspec.Struct, frozen=True):
    """One rule; `number` counts a profile's rules and includes from 1 in the file's order.

    `limit`: it matches only while its frames come no faster, counted by port and direction.
    """

    profile: str
    number: int
    verdict: Verdict
    directions: tuple[Direction, ...]
    matches: tuple[Match, ...] = ()
    limit: Rate | Use | None = None
    priority: int = 0
    reason: str = ""
    where: str = ""

    @property
    def name(self) -> str:
        """What it is counted by: `profile/number`."""
        return f"{self.profile}/{self.number}"

    def groups(self) -> tuple[tuple[Match, ...], ...]:
        """The matches that go together: those of one iterator, every other alone."""
        together: dict[object, list[Match]] = {}
        for match in self.matches:
            iterator = None if match.use is None else match.use.iterator
            together.setdefault(match.field if iterator is None else iterator, []).append(match)
        return tuple(map(tuple, together.values()))


class Include(msgspec.Struct, frozen=True):
    """Another profile, which must accept the frame too."""

    profile: str
    number: int
    includes: str
    priority: int = 0
    where: str = ""


class Profile(msgspec.Struct, frozen=True):
    """One file: `steps` in the order in which they are asked, `digest` of the exact bytes."""

    name: str
    description: str
    variables: dict[str, Variable]
    steps: tuple[Rule | Include, ...]
    default: dict[Direction, Verdict]
    default_where: str = ""
    digest: str = ""

    def includes(self) -> Iterator[str]:
        """The names of the profiles it asks."""
        return (step.includes for step in self.steps if isinstance(step, Include))

    def rules(self) -> Iterator[Rule]:
        """Its own rules."""
        return (step for step in self.steps if isinstance(step, Rule))


class Library(msgspec.Struct, frozen=True):
    """Profiles by name, whose includes are all among them and go round in no circle."""

    profiles: Mapping[str, Profile]

    def closure(self, names: Iterable[str]) -> tuple[Profile, ...]:
        """These profiles and all that they include, each once, the included before who asks.

        Raises:
            KeyError: one is not there.
        """
        found: dict[str, Profile] = {}

        def take(name: str) -> None:
            if name not in found:
                profile = self.profiles[name]
                for included in profile.includes():
                    take(included)
                found[name] = profile

        for name in names:
            take(name)
        return tuple(found.values())
