"""Chains for vifs' profiles: one for each profile and kind of frame, however many ports use it.

    f/PROFILE/from/KIND     a profile's rules for one kind: returns if it accepts
    c/COMBINATION/from      tells the frame's kind, and goes to …
    c/COMBINATION/from/KIND … which asks each profile of the combination, and accepts

and the same with `to` for what goes to the guest. A port's verdict (`from_guest`, `to_guest`) goes
to its combination's chains; its variables are in sets. So a port more is elements, no chain. Kinds
of which a profile says the same share a chain; where nothing is asked at all, the verdict is
`accept`.

A profile has another chain for ports on which one of its variables holds a range (those are in
interval sets, which take longer to look up) or which limit it to another rate.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.bind import BindError, bind
from broker.filters.model import DIRECTIONS, Include, Use
from broker.filters.values import Span
from broker.net.filters.compile import (
    PORT,
    FilterError,
    Group,
    Line,
    compile_rule,
    merged,
    profile_name,
    shape,
)
from broker.net.filters.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.filters.model import Direction, Environment, Library, Profile
    from broker.net.filters.kinds import Kind
    from broker.net.model import PortFilter

Key = tuple[tuple[int, int], ...]
"""The values of one combination, each as its lowest and highest."""
_Combination = tuple[tuple[str, ...], str, bool]
"""Profiles, what of the variables their chains depend on, and whether addresses are learned."""
LEARN_GROUP: Final = 22595
"""The nflog group that DHCP of learning ports goes to."""
LEARN_PREFIX: Final = "xpbd"
_LEARN_BYTES: Final = 700
"""Of a packet with DHCP: its addresses, the fixed part and most of the options."""
_LEARN_KIND: Final = "ip4-dhcp"
_MAX_DEPTH: Final = 8
"""Profiles that include one another; the kernel keeps sixteen chains to return to."""


class Vif(msgspec.Struct, frozen=True):
    """What a port's profiles came to: the verdict for each direction, the sets they look into.

    `environment` has its variables, `learned` those that snooping fills.
    """

    verdicts: dict[Direction, str]
    groups: frozenset[Group]
    environment: Environment
    learned: tuple[str, ...]

    def elements(self, addresses: Mapping[int, float]) -> dict[Group, dict[Key, float | None]]:
        """What its sets hold for it, with these IPv4 addresses learned, each until its end."""
        return {
            group: (
                {((it, it),): end for it, end in addresses.items()}
                if group.parts and group.parts[0][0] in self.learned
                else dict.fromkeys(_keys(group, self.environment))
            )
            for group in self.groups
        }


class Filters(msgspec.Struct, frozen=True):
    """What is in the kernel of them: chains with their lines, and sets."""

    chains: dict[str, tuple[Line, ...]] = {}
    groups: frozenset[Group] = frozenset()
    meters: frozenset[str] = frozenset()

    def names(self) -> set[str]:
        """The names of all of them."""
        return {*self.chains, *self.meters, *(group.name for group in self.groups)}


NO_FILTERS: Final = Filters()


class Programs:
    """The chains and sets for all vifs that were asked for, of one library of profiles."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.chains: dict[str, tuple[Line, ...]] = {}
        self.groups: set[Group] = set()
        self.meters: set[str] = set()
        self._profiles: dict[tuple[str, str, Direction], tuple[dict[str, str], set[Group]]] = {}
        self._vifs: dict[_Combination, tuple[dict[Direction, str], frozenset[Group]]] = {}

    def vif(self, asked: PortFilter) -> Vif:
        """The program of a port with these profiles and variables.

        Raises:
            FilterError: a profile is not there, variables do not fit, or the kernel cannot hold it.
        """
        try:
            environment, learned = bind(self.library, asked.profiles, dict(asked.variables))
        except BindError as error:
            raise FilterError(str(error)) from error
        key = (asked.profiles, self._variant(asked.profiles, environment), bool(learned))
        if key not in self._vifs:
            self._vifs[key] = self._combined(key, environment)
        verdicts, groups = self._vifs[key]
        for group in groups:
            stepping = (
                {group.of, *(name for name, _ in group.parts)} if len(group.parts) != 1 else ()
            )
            if not {*learned}.isdisjoint(stepping):
                raise FilterError(
                    f"{', '.join(learned)}: what is learned steps with no other variable"
                )
        return Vif(verdicts, groups, environment, learned)

    def filters(self, before: Filters = NO_FILTERS) -> Filters:
        """All there is by now; `before` itself if it is that."""
        size = len(self.chains), len(self.groups), len(self.meters)
        if size == (len(before.chains), len(before.groups), len(before.meters)):
            # They only grow.
            return before
        return Filters(dict(self.chains), frozenset(self.groups), frozenset(self.meters))

    def _variant(self, names: tuple[str, ...], environment: Environment) -> str:
        """What of the variables these profiles' chains depend on, in a word; empty: nothing."""
        special: set[str] = set()
        for profile in self.library.closure(names):
            for rule in profile.rules():
                special |= {shape(match, environment) for match in rule.matches} - {""}
                if isinstance(rule.limit, Use):
                    special.add(f"{rule.limit}={environment[rule.limit.name]}")
        return _short(*sorted(special)) if special else ""

    def _combined(
        self, key: _Combination, environment: Environment
    ) -> tuple[dict[Direction, str], frozenset[Group]]:
        names, variant, learns = key
        name = f"c/{_short(*names, '', variant, str(learns))}"
        verdicts: dict[Direction, str] = {}
        groups: set[Group] = set()
        for direction in DIRECTIONS:
            asked = []
            for profile in names:
                chains, looked_into = self._profile(profile, direction, environment, 1)
                asked.append(chains)
                groups |= looked_into
            verdicts[direction] = self._dispatch(
                f"{name}/{_word(direction)}", direction, asked, learns=learns
            )
        self.groups |= groups
        return verdicts, frozenset(groups)

    def _dispatch(
        self, name: str, direction: Direction, asked: list[dict[str, str]], *, learns: bool
    ) -> str:
        targets: dict[str, str] = {}
        made: dict[tuple[Line, ...], str] = {}
        for kind in KINDS:
            lines = [Line(f"jump {chains[kind]}", "") for chains in asked if kind in chains]
            if learns and kind == _LEARN_KIND:
                lines.append(self._learn(direction))
            if not lines:
                continue
            content = (*lines, Line("accept", ""))
            if content not in made:
                made[content] = f"{name}/{kind}"
                self.chains[made[content]] = content
            targets[kind] = made[content]
        if not targets:
            return "accept"
        ways = ", ".join(
            f"{kind.number} : " + (f"goto {targets[it]}" if it in targets else "accept")
            for it, kind in KINDS.items()
        )
        self.chains[name] = (
            Line("jump kind", ""),
            Line(f"meta mark vmap {{ {ways} }}", ""),
            Line("goto filtered", ""),
        )
        return f"goto {name}"

    def _learn(self, direction: Direction) -> Line:
        """Show DHCP to the helper; a guest that floods shows it no more than ten a second."""
        meter = f"m/learn/{_word(direction)}"
        self.meters.add(meter)
        limit = f"update @{meter} {{ {PORT[direction]} limit rate 10/second burst 20 packets }}"
        prefix = f"{LEARN_PREFIX}-{_word(direction)}"
        return Line(f'{limit} log prefix "{prefix}" group {LEARN_GROUP} snaplen {_LEARN_BYTES}', "")

    def _profile(
        self, name: str, direction: Direction, environment: Environment, depth: int
    ) -> tuple[dict[str, str], set[Group]]:
        """The profile's chains by kind, where it asks anything, and the sets they look into."""
        if depth > _MAX_DEPTH:
            raise FilterError(f"profiles include one another more than {_MAX_DEPTH} deep: {name}")
        variant = self._variant((name,), environment)
        key = name, variant, direction
        if key in self._profiles:
            return self._profiles[key]
        try:
            profile = self.library.profiles[profile_name(name)]
        except KeyError:
            raise FilterError(f"there is no filter profile {name}") from None
        stem = f"f/{name}{'~' if variant else ''}{variant}/{_word(direction)}".replace("~", ".")
        found: dict[str, str] = {}
        made: dict[tuple[Line, ...], str] = {}
        groups: set[Group] = set()
        for kind in KINDS.values():
            lines, looked_into = self._lines(profile, kind, direction, environment, depth)
            groups |= looked_into
            if len(lines) == 1 and lines[0].text == "counter return":
                continue
            if lines not in made:
                made[lines] = f"{stem}/{kind.name}"
                self.chains[made[lines]] = lines
            found[kind.name] = made[lines]
        self._profiles[key] = found, groups
        return found, groups

    def _lines(
        self,
        profile: Profile,
        kind: Kind,
        direction: Direction,
        environment: Environment,
        depth: int,
    ) -> tuple[tuple[Line, ...], set[Group]]:
        lines: list[Line] = []
        groups: set[Group] = set()
        for step in profile.steps:
            if isinstance(step, Include):
                chains, inner = self._profile(step.includes, direction, environment, depth + 1)
                groups |= inner
                if kind.name in chains:
                    lines.append(Line(f"jump {chains[kind.name]}", ""))
                continue
            if direction not in step.directions:
                continue
            made = compile_rule(step, kind, direction, environment)
            groups |= made.groups
            self.meters |= made.meters
            lines += made.lines
            if made.always:
                return tuple(lines), groups
        accepts = profile.default[direction] == "accept"
        verdict = "counter return" if accepts else "counter goto filtered"
        return (*lines, Line(verdict, f"{profile.name}/default")), groups


def _keys(group: Group, environment: Mapping[str, object]) -> list[Key]:
    if not group.parts:
        return [()] if environment[group.of] else []
    lists = [_spans(environment[name]) for name, _ in group.parts]
    if len(lists) == 1:
        found = merged(lists[0]) if group.spans else sorted(set(lists[0]))
        return [((span.low, span.high),) for span in found]
    return sorted(
        {tuple((span.low, span.high) for span in row) for row in zip(*lists, strict=True)}
    )


def _spans(bound: object) -> list[Span]:
    return [span for span in bound if isinstance(span, Span)] if isinstance(bound, tuple) else []


def _word(direction: Direction) -> str:
    return direction.partition("-")[0]


def _short(*words: str) -> str:
    """A name of twelve hexadecimal digits for what these words say."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
