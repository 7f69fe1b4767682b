"""Chains for vifs' profiles: one for each profile and kind of frame, however many ports use it.

    f/PROFILE/from/KIND     a profile's rules for one kind: returns if it accepts
    c/COMBINATION/from/NODE tells a frame's kind, as far as it matters, and goes on to …
    c/COMBINATION/from/KIND … which asks each profile of the combination, and accepts

and the same with `to` for what goes to the guest. A port's verdict (`from_guest`, `to_guest`) goes
to its combination's chains; its variables are in sets. So a port more is elements, no chain. Kinds
of which a profile says the same share a chain; where nothing is asked at all, the verdict is
`accept`.

A profile has another chain for ports on which one of its variables holds a range (those are in
interval sets, which take longer to look up) or which limit it to another rate.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.bind import BindError, parse_bound, tuples, variables_of
from broker.filters.fields import FIELDS
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
from broker.net.filters.kinds import KINDS, ROOT, TREE
from broker.net.model import MAX_PORTS

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
LEARN_BYTES: Final = 700
"""Of a packet with DHCP: its addresses, the fixed part and most of the options."""
_SHORT: Final = 8
"""Lines that are rather repeated than jumped to."""
_LEARN_KIND: Final = "ip4-dhcp"
_MAX_KNOWN: Final = 2 * MAX_PORTS
"""Ports' programs that are remembered."""
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


_parsed: Final = functools.lru_cache(maxsize=4 * MAX_PORTS)(parse_bound)
"""A thousand ports' values do not change with a profile."""


class _Usage:
    """The variables that some profiles use, found once for all ports that have them.

    Raises:
        FilterError: a profile is not there.
    """

    def __init__(self, library: Library, names: tuple[str, ...]) -> None:
        try:
            self._variables = sorted(variables_of(library, names).items())
            rules = [rule for profile in library.closure(names) for rule in profile.rules()]
        except (BindError, KeyError) as error:
            raise FilterError(f"filter profiles {', '.join(names)}: {error}") from error
        self._limits = {it.limit.name for it in rules if isinstance(it.limit, Use)}
        used = [match for rule in rules for match in rule.matches]
        self._matches = {(it.use.name, FIELDS[it.field].bits): it for it in used if it.use}
        self._stepping = [
            (rule, group) for rule in rules for group in rule.groups() if len(group) > 1
        ]

    def bind(self, given: Mapping[str, tuple[str, ...]]) -> tuple[Environment, tuple[str, ...]]:
        """The environment of a port, and what is to be learned: as `broker.filters.bind` does.

        Raises:
            FilterError: a variable has no value, or a wrong one.
        """
        environment: Environment = {}
        learned: list[str] = []
        try:
            for name, variable in self._variables:
                if name in given:
                    environment[name] = _parsed(variable, given[name])
                elif variable.learned:
                    environment[name] = ()
                    learned.append(name)
                elif variable.default is not None:
                    environment[name] = variable.default
                else:
                    raise FilterError(f"variable {name} ({variable.where}) has no value here")
            for rule, group in self._stepping:
                tuples(rule, group, environment)
        except BindError as error:
            raise FilterError(str(error)) from error
        return environment, tuple(learned)

    def variant(self, environment: Environment) -> str:
        """What of the variables the profiles' chains depend on, in a word; empty: nothing."""
        special = {shape(match, environment) for match in self._matches.values()} - {""}
        special |= {f"{name}={environment[name]}" for name in self._limits}
        return _short(*sorted(special)) if special else ""


class Programs:
    """The chains and sets for all vifs that were asked for, of one library of profiles."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.chains: dict[str, tuple[Line, ...]] = {}
        self.groups: set[Group] = set()
        self.meters: set[str] = set()
        self._made = NO_FILTERS
        self._known: dict[tuple[object, ...], Vif] = {}
        self._usage: dict[tuple[str, ...], _Usage] = {}
        self._profiles: dict[tuple[str, str, Direction], tuple[dict[str, str], set[Group]]] = {}
        self._vifs: dict[_Combination, tuple[dict[Direction, str], frozenset[Group]]] = {}

    def vif(self, asked: PortFilter) -> Vif:
        """The program of a port with these profiles and variables.

        Raises:
            FilterError: a profile is not there, variables do not fit, or the kernel cannot hold it.
        """
        known = asked.profiles, tuple(asked.variables.items())
        found = self._known.get(known)
        if found is None:
            found = self._vif(asked)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[known] = found
        return found

    def _vif(self, asked: PortFilter) -> Vif:
        if asked.profiles not in self._usage:
            self._usage[asked.profiles] = _Usage(self.library, asked.profiles)
        usage = self._usage[asked.profiles]
        environment, learned = usage.bind(asked.variables)
        key = (asked.profiles, usage.variant(environment), bool(learned))
        if key not in self._vifs:
            self._vifs[key] = self._combined(key, environment)
        verdicts, groups = self._vifs[key]
        for group in groups:
            stepping = group.variables if len(group.parts) != 1 else ()
            if not {*learned}.isdisjoint(stepping):
                raise FilterError(
                    f"{', '.join(learned)}: what is learned steps with no other variable"
                )
        return Vif(verdicts, groups, environment, learned)

    def filters(self) -> Filters:
        """All there is by now; the same object as before as long as that is the same."""
        size = len(self.chains), len(self.groups), len(self.meters)
        made = self._made
        # They only grow.
        if size != (len(made.chains), len(made.groups), len(made.meters)):
            self._made = Filters(dict(self.chains), frozenset(self.groups), frozenset(self.meters))
        return self._made

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
        targets: dict[str, str] = dict.fromkeys(KINDS, "accept")
        made: dict[tuple[Line, ...], str] = {}
        for kind in KINDS:
            lines = [it for chains in asked if kind in chains for it in self._asked(chains[kind])]
            if learns and kind == _LEARN_KIND:
                lines.append(self._learn(direction))
            if not lines:
                continue
            content = (*lines, Line("accept", ""))
            if content not in made:
                made[content] = f"{name}/{kind}"
                self.chains[made[content]] = content
            targets[kind] = f"goto {made[content]}"
        return self._tell(ROOT, name, targets)

    def _tell(self, node: str, name: str, targets: Mapping[str, str]) -> str:
        """The verdict that leads frames of a node's kinds to their targets; its chains are made."""
        steps = []
        for step in TREE[node]:
            led = [(value, self._led(to, name, targets)) for value, to in step.ways]
            to = self._led(step.to, name, targets) if step.to else ""
            steps.append((step.condition, to, led))
        rest = steps.pop()[1]
        # What leads where all the rest does anyway need not be told apart.
        while steps and {steps[-1][1] or rest, *(to for _, to in steps[-1][2])} == {rest}:
            steps.pop()
        if not steps:
            return rest
        chain = f"{name}/{node}"
        lines = [
            Line(f"{condition} {to}", "")
            if to
            else Line(f"{condition} vmap {{ {', '.join(f'{v} : {it}' for v, it in led)} }}", "")
            for condition, to, led in steps
        ]
        self.chains[chain] = (*lines, Line(rest, ""))
        return f"goto {chain}"

    def _led(self, to: str, name: str, targets: Mapping[str, str]) -> str:
        return targets[to] if to in targets else self._tell(to, name, targets)

    def _learn(self, direction: Direction) -> Line:
        """Show DHCP to the helper; a guest that floods shows it no more than ten a second."""
        meter = f"m/learn/{_word(direction)}"
        self.meters.add(meter)
        limit = f"update @{meter} {{ {PORT[direction]} limit rate 10/second burst 20 packets }}"
        prefix = f"{LEARN_PREFIX}-{_word(direction)}"
        return Line(f'{limit} log prefix "{prefix}" group {LEARN_GROUP} snaplen {LEARN_BYTES}', "")

    def _profile(
        self, name: str, direction: Direction, environment: Environment, depth: int
    ) -> tuple[dict[str, str], set[Group]]:
        """The profile's chains by kind, where it asks anything, and the sets they look into."""
        if depth > _MAX_DEPTH:
            raise FilterError(f"profiles include one another more than {_MAX_DEPTH} deep: {name}")
        if (name,) not in self._usage:
            self._usage[name,] = _Usage(self.library, (name,))
        variant = self._usage[name,].variant(environment)
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
            if not lines:
                continue
            if lines not in made:
                made[lines] = f"{stem}/{kind.name}"
                self.chains[made[lines]] = lines
            found[kind.name] = made[lines]
        self._profiles[key] = found, groups
        return found, groups

    def _asked(self, chain: str) -> tuple[Line, ...]:
        """Lines that ask a profile: its own, where they are few and accept only at their end."""
        lines = self.chains[chain]
        if len(lines) <= _SHORT and not any(line.text.endswith("return") for line in lines):
            return lines
        return (Line(f"jump {chain}", ""),)

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
                    lines += self._asked(chains[kind.name])
                continue
            if direction not in step.directions:
                continue
            made = compile_rule(step, kind, direction, environment)
            groups |= made.groups
            self.meters |= made.meters
            lines += made.lines
            if made.always:
                return tuple(lines), groups
        if profile.default[direction] == "drop":
            lines.append(Line("counter goto filtered", f"{profile.name}/default"))
        return tuple(lines), groups


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
