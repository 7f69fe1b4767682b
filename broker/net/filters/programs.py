"""Chains for vifs' profiles: one for each profile and kind of frame, however many ports use it.

    f/PROFILE/from/KIND     a profile's rules for one kind: returns if it accepts
    c/COMBINATION/from/NODE tells a frame's kind, as far as it matters, and goes on to …
    c/COMBINATION/from/KIND … which asks each profile of the combination, and accepts
    k/from/tcp4             or, where a profile asks for connections' states, notes it (`states`)
    f/PROFILE/from.MAC.IP/KIND, c/COMBINATION/from.MAC.IP/… the same on the short way (`quick`)

and the same with `to` for what goes to the guest. A port's verdict (`from_guest`, `to_guest`) goes
to its combination's chains; its variables are in sets. So a port more is elements, no chain. Kinds
of which a profile says the same share a chain; where nothing is asked at all, the verdict is
`accept`.

A profile has another chain for ports on which one of its variables holds a range (those are in
interval sets, which take longer to look up) or which limit it to another rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.model import DIRECTIONS, Include
from broker.net.filters.compile import (
    PORT,
    FilterError,
    Group,
    Line,
    compile_rule,
    profile_name,
)
from broker.net.filters.kinds import IP4, KINDS, ROOT, SHORT_CUTS, TREE
from broker.net.filters.quick import QUICK_KINDS, quick_way
from broker.net.filters.states import noting_of
from broker.net.filters.usage import Usage, Vif, short
from broker.net.model import MAX_PORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.filters.model import Direction, Environment, Library, Profile
    from broker.net.filters.kinds import Kind
    from broker.net.filters.quick import Quick
    from broker.net.model import PortFilter

_Combination = tuple[tuple[str, ...], str, bool]
"""Profiles, what of the variables their chains depend on, and whether addresses are learned."""
LEARN_GROUP: Final = 22595
"""The nflog group that DHCP of learning ports goes to."""
LEARN_PREFIX: Final = "xpbd"
LEARN_BYTES: Final = 700
"""Of a packet with DHCP: its addresses, the fixed part and most of the options."""
_SHORT: Final = 8
"""Lines that are rather repeated than jumped to."""
_ACCEPTED: Final = "counter return"
_MAX_COMMENT: Final = 120
"""Bytes of a rule's comment: nft takes 128."""
_LEARN_KIND: Final = "ip4-dhcp"
_MAX_KNOWN: Final = 2 * MAX_PORTS
"""Ports' programs that are remembered."""
_MAX_DEPTH: Final = 8
"""Profiles that include one another; the kernel keeps sixteen chains to return to."""


class Filters(msgspec.Struct, frozen=True):
    """What is in the kernel of them: chains with their lines, and sets."""

    chains: dict[str, tuple[Line, ...]] = {}
    groups: frozenset[Group] = frozenset()
    meters: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()

    def names(self) -> set[str]:
        """The names of all of them."""
        groups = (group.name for group in self.groups)
        return {*self.chains, *self.meters, *self.states, *groups}


NO_FILTERS: Final = Filters()


class Programs:
    """The chains and sets for all vifs that were asked for, of one library of profiles."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.chains: dict[str, tuple[Line, ...]] = {}
        self.groups: set[Group] = set()
        self.meters: set[str] = set()
        self.states: set[str] = set()
        self._made = NO_FILTERS
        self._known: dict[tuple[object, ...], Vif] = {}
        self._usage: dict[tuple[str, ...], Usage] = {}
        self._profiles: dict[tuple[str, str, str], tuple[dict[str, str], set[Group]]] = {}
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
            self._usage[asked.profiles] = Usage(self.library, asked.profiles)
        usage = self._usage[asked.profiles]
        environment, learned = usage.bind(asked.variables)
        key = (asked.profiles, usage.variant(environment), bool(learned))
        if key not in self._vifs:
            self._vifs[key] = self._combined(key, environment)
        verdicts, groups = self._vifs[key]
        for group in groups:
            stepping = group.variables if len(group.parts) != 1 and not group.product else ()
            if not {*learned}.isdisjoint(stepping):
                raise FilterError(
                    f"{', '.join(learned)}: what is learned steps with no other variable"
                )
        return Vif(verdicts, groups, environment, learned, usage.asks_for_states)

    def filters(self) -> Filters:
        """All there is by now; the same object as before as long as that is the same."""
        size = len(self.chains), len(self.groups), len(self.meters), len(self.states)
        made = self._made
        # They only grow.
        if size != (len(made.chains), len(made.groups), len(made.meters), len(made.states)):
            self._made = Filters(
                dict(self.chains),
                frozenset(self.groups),
                frozenset(self.meters),
                frozenset(self.states),
            )
        return self._made

    def _combined(
        self, key: _Combination, environment: Environment
    ) -> tuple[dict[Direction, str], frozenset[Group]]:
        names, variant, learns = key
        name = f"c/{short(*names, '', variant, str(learns))}"
        verdicts: dict[Direction, str] = {}
        groups: set[Group] = set()
        usage = self._usage[names]
        ending = _Ending(learns, usage.asks_for_states)
        for direction in DIRECTIONS:
            stem = f"{name}/{_word(direction)}"
            asked = self._asking(names, direction, environment, None, groups)
            targets = self._targets(stem, direction, asked, ending)
            verdicts[direction] = self._way(ROOT, stem, targets)
        quick = quick_way(usage.rules, environment)
        root = f"{name}/from/{ROOT}"
        if quick is not None and root in self.chains:
            groups.add(quick.group)
            stem = f"{name}/from.{quick.name}"
            asked = self._asking(names, "from-guest", environment, quick, groups)
            targets = self._targets(stem, "from-guest", asked, ending)
            to = self._way(IP4, stem, {kind: targets[kind] for kind in QUICK_KINDS})
            self.chains[root] = (Line(f"{quick.condition} {to}", ""), *self.chains[root])
        self.groups |= groups
        return verdicts, frozenset(groups)

    def _way(self, node: str, stem: str, targets: Mapping[str, str]) -> str:
        """The verdict that leads frames of these kinds, all below this node, to their targets."""
        verdict = self._tell(node, stem, targets)
        chain = f"{stem}/{node}"
        if chain in self.chains:
            self.chains[chain] = (*_short_cuts(targets), *self.chains[chain])
        return verdict

    def _asking(
        self,
        names: tuple[str, ...],
        direction: Direction,
        environment: Environment,
        quick: Quick | None,
        groups: set[Group],
    ) -> list[dict[str, str]]:
        """The chains that ask each of these profiles; what they look into is added to `groups`."""
        asked = []
        for profile in names:
            chains, looked_into = self._profile(profile, direction, environment, 1, quick)
            asked.append(chains)
            groups |= looked_into
        return asked

    def _targets(
        self, name: str, direction: Direction, asked: list[dict[str, str]], ending: _Ending
    ) -> dict[str, str]:
        """Where frames of each kind are led."""
        targets: dict[str, str] = dict.fromkeys(KINDS, "accept")
        made: dict[tuple[Line, ...], str] = {}
        for kind in KINDS:
            lines = [it for chains in asked if kind in chains for it in self._asked(chains[kind])]
            if ending.learns and kind == _LEARN_KIND:
                lines.append(self._learn(direction))
            end = self._accept(KINDS[kind], direction) if ending.notes else "accept"
            if not lines:
                targets[kind] = end
                continue
            content = (*_counted_together(lines), Line(end, ""))
            if content not in made:
                made[content] = f"{name}/{kind}"
                self.chains[made[content]] = content
            targets[kind] = f"goto {made[content]}"
        return targets

    def _accept(self, kind: Kind, direction: Direction) -> str:
        """The verdict on what all profiles accepted, where connections are noted."""
        noting = noting_of(kind, direction)
        if noting is None:
            return "accept"
        self.chains[noting.chain] = tuple(Line(rule, "") for rule in noting.rules)
        self.states |= noting.states
        self.meters |= noting.meters
        return f"goto {noting.chain}"

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
        self,
        name: str,
        direction: Direction,
        environment: Environment,
        depth: int,
        quick: Quick | None,
    ) -> tuple[dict[str, str], set[Group]]:
        """The profile's chains by kind, where it asks anything, and the sets they look into."""
        if depth > _MAX_DEPTH:
            raise FilterError(f"profiles include one another more than {_MAX_DEPTH} deep: {name}")
        if (name,) not in self._usage:
            self._usage[name,] = Usage(self.library, (name,))
        variant = self._usage[name,].variant(environment)
        way = _word(direction) if quick is None else f"{_word(direction)}.{quick.name}"
        key = name, variant, way
        if key in self._profiles:
            return self._profiles[key]
        try:
            profile = self.library.profiles[profile_name(name)]
        except KeyError:
            raise FilterError(f"there is no filter profile {name}") from None
        stem = f"f/{name}{'.' if variant else ''}{variant}/{way}"
        found: dict[str, str] = {}
        made: dict[tuple[Line, ...], str] = {}
        groups: set[Group] = set()
        for kind in KINDS if quick is None else sorted(QUICK_KINDS):
            asking = _Asking(KINDS[kind], direction, environment, depth, quick)
            lines, looked_into = self._lines(profile, asking)
            groups |= looked_into
            if not lines:
                continue
            if lines not in made:
                made[lines] = f"{stem}/{kind}"
                self.chains[made[lines]] = lines
            found[kind] = made[lines]
        self._profiles[key] = found, groups
        return found, groups

    def _asked(self, chain: str) -> tuple[Line, ...]:
        """Lines that ask a profile: its own, where they are few and accept only at their end."""
        *before, last = self.chains[chain]
        if len(before) < _SHORT and not any(line.text.endswith("return") for line in before):
            if last.text == _ACCEPTED:
                return (*before, Line("counter", last.rule))
            if not last.text.endswith("return"):
                return (*before, last)
        return (Line(f"jump {chain}", ""),)

    def _lines(self, profile: Profile, asking: _Asking) -> tuple[tuple[Line, ...], set[Group]]:
        lines: list[Line] = []
        groups: set[Group] = set()
        kind, direction, environment = asking.kind, asking.direction, asking.environment
        held = frozenset[str]() if asking.quick is None else asking.quick.held
        for step in profile.steps:
            if isinstance(step, Include):
                chains, inner = self._profile(
                    step.includes, direction, environment, asking.depth + 1, asking.quick
                )
                groups |= inner
                if kind.name in chains:
                    lines += self._asked(chains[kind.name])
                continue
            if direction not in step.directions:
                continue
            made = compile_rule(step, kind, direction, environment, held)
            groups |= made.groups
            self.meters |= made.meters
            lines += made.lines
            if made.always:
                return tuple(lines), groups
        if profile.default[direction] == "drop":
            lines.append(Line("counter goto filtered", f"{profile.name}/default"))
        while lines and lines[-1].text.endswith(f" {_ACCEPTED}"):
            # It would be accepted anyway.
            lines.pop()
        return tuple(lines), groups


class _Ending(msgspec.Struct, frozen=True):
    """What is done with frames that all profiles accept: learned from, noted as connections."""

    learns: bool
    notes: bool


class _Asking(msgspec.Struct, frozen=True):
    """Of which frames a profile is asked, on which ports, how deep, and on which way."""

    kind: Kind
    direction: Direction
    environment: Environment
    depth: int
    quick: Quick | None


def _short_cuts(targets: Mapping[str, str]) -> list[Line]:
    """Of a frame that is of one of these kinds."""
    lines: list[Line] = []
    led_already: set[str] = set()
    for condition, kinds in SHORT_CUTS:
        led = {to for kind, to in targets.items() if kind in kinds}
        if len(led) == 1 and not led_already >= kinds:
            lines.append(Line(f"{condition} {led.pop()}", ""))
            led_already |= kinds
    return lines


def _counted_together(lines: Iterable[Line]) -> list[Line]:
    """Lines of which those that only count, one behind the other, are one with all their names."""
    made: list[Line] = []
    for line in lines:
        if made and line.text == made[-1].text == "counter":
            names = f"{made[-1].rule} {line.rule}"
            if len(names) <= _MAX_COMMENT:
                made[-1] = Line("counter", names)
                continue
        made.append(line)
    return made


def _word(direction: Direction) -> str:
    return direction.partition("-")[0]
