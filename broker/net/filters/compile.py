"""A profile's rules for one kind of frames, as nft rules.

Every rule becomes positive comparisons of bytes that are known to be there, or nothing: its matches
are decided beforehand as far as the kind tells. Variables are sets with the port in their key, so
the rules are the same for all ports. What a rule limits is counted by port in a set of its own.

Profiles were checked when they were read; here nothing of their text reaches a command but names,
which are checked again, and numbers.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.bind import rate_of, values_of
from broker.filters.fields import CT_STATES, FIELDS, NO_LLADDR, STATE
from broker.filters.frame import ABSENT, UNREADABLE
from broker.filters.values import Masked, Rate, Span
from broker.net.filters.kinds import TYPES, Bytes, Known, Reading, Words
from broker.net.filters.states import state_conditions
from broker.net.model import NetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.filters.model import Direction, Environment, Match, Rule
    from broker.filters.values import Value
    from broker.net.filters.kinds import Kind

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,30}")
_MAX_KEY: Final = 64
"""Bytes of a key of nftables' sets."""
_MAX_ALTERNATIVES: Final = 256
"""Rules that one rule of a profile may become."""
PORT: Final[dict[str, str]] = {"from-guest": "iif", "to-guest": "oif"}
"""Which end of a frame the port is, by direction."""


class FilterError(NetError, ValueError):
    """A profile cannot be put into the kernel as it is; says why, and `where` in the profile."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where


class Group(msgspec.Struct, frozen=True):
    """A set of combinations of variables' values, by port: `parts` are a variable and nft's type.

    Without parts it holds the ports on which the variable `of` has a value. `spans`: in it are
    ranges. `product`: every value of one with every value of the other (`quick`), and not those
    that step together.
    """

    parts: tuple[tuple[str, str], ...]
    spans: bool = False
    of: str = ""
    product: bool = False

    @property
    def name(self) -> str:
        """The set's, in nft."""
        if not self.parts:
            return f"n/{self.of}"
        kind = "q" if self.product else "r" if self.spans else "v"
        return "/".join([kind, *(f"{v}.{t}" for v, t in self.parts)])

    @property
    def variables(self) -> frozenset[str]:
        """The variables whose values are in it."""
        return frozenset(name for name, _ in self.parts) or frozenset({self.of})

    @property
    def sizes(self) -> list[int]:
        """The bytes of each part."""
        return [TYPES[kind][1] for _, kind in self.parts]

    @property
    def typed(self) -> str:
        """The set's type, in nft."""
        return "typeof " + " . ".join(["iif", *(TYPES[kind][0] for _, kind in self.parts)])

    def check(self) -> None:
        """Refuse what nftables cannot hold.

        Raises:
            FilterError: the key would be too long, or a name is none.
        """
        for variable in (self.of, *(name for name, _ in self.parts)):
            if variable and not _VARIABLE.fullmatch(variable):
                raise FilterError(f"not a variable's name: {variable[:40]!a}")
        if 4 + sum((TYPES[kind][1] + 3) & ~3 for _, kind in self.parts) > _MAX_KEY:
            names = ", ".join(name for name, _ in self.parts)
            raise FilterError(f"variables {names} step together, but are too long for one key")


@functools.lru_cache(maxsize=256)
def group_named(name: str) -> Group:
    """The group whose set has this name."""
    first, _, rest = name.partition("/")
    if first == "n":
        return Group((), of=rest)
    listed = [part.partition(".") for part in rest.split("/")]
    parts = tuple((variable, kind) for variable, _, kind in listed)
    return Group(parts, first == "r", product=first == "q")


class Line(msgspec.Struct, frozen=True):
    """One nft rule, and whom it is counted for: `profile/number` or `profile/default`."""

    text: str
    rule: str


class Compiled(msgspec.Struct):
    """What a rule became: lines, and the sets they look into; `always`: nothing gets past it."""

    lines: list[Line]
    groups: set[Group]
    meters: set[str]
    always: bool = False


def profile_name(text: str) -> str:
    """`text` if it is a profile's name that is safe in a command.

    Raises:
        FilterError: it is not.
    """
    if not _NAME.fullmatch(text):
        raise FilterError(f"not a filter profile's name: {text[:60]!a}")
    return text


def compile_rule(
    rule: Rule,
    kind: Kind,
    direction: Direction,
    environment: Environment,
    held: frozenset[str] = frozenset(),
) -> Compiled:
    """The nft rules that are `rule` for frames of this kind; no lines where it cannot match.

    `environment` decides only which sets hold ranges, and what limits are. `held` are conditions
    that are known to hold.
    """
    made = Compiled([], set(), set())
    alternatives: list[list[str]] = []
    for group in rule.groups():
        found = _group(group, kind, direction, environment, drops=rule.verdict == "drop")
        if found is None:
            return made
        conditions, wanted = found
        if conditions and held.isdisjoint(conditions):
            alternatives.append(conditions)
        if wanted is not None:
            try:
                wanted.check()
            except FilterError as error:
                raise FilterError(error.message, rule.where) from error
            made.groups.add(wanted)
    limit = rate_of(rule, environment)
    verdict = "counter return" if rule.verdict == "accept" else "counter goto filtered"
    end = [verdict]
    if limit is not None:
        meter = meter_name(rule, direction, limit)
        made.meters.add(meter)
        end = [f"update @{meter} {{ {PORT[direction]} limit rate {_rate(limit)} }}", verdict]
    texts = [" ".join([*parts, *end]) for parts in itertools.product(*alternatives)]
    if len(texts) > _MAX_ALTERNATIVES:
        raise FilterError(f"this becomes more than {_MAX_ALTERNATIVES} rules", rule.where)
    made.lines = [Line(text, rule.name) for text in texts]
    made.always = not alternatives and limit is None
    return made


def meter_name(rule: Rule, direction: Direction, limit: Rate) -> str:
    """The set that a rule's limit is kept in, by port: another rate, another set."""
    rate = f"{limit.amount}.{limit.unit}.{limit.per}"
    return f"m/{profile_name(rule.profile)}.{rule.number:d}/{direction}/{rate}"


def _rate(limit: Rate) -> str:
    if limit.unit == "bytes":
        return f"{limit.amount:d} bytes/{limit.per} burst {limit.burst:d} bytes"
    return f"{limit.amount:d}/{limit.per} burst {limit.burst:d} packets"


def _group(
    group: Sequence[Match],
    kind: Kind,
    direction: Direction,
    environment: Environment,
    *,
    drops: bool,
) -> tuple[list[str], Group | None] | None:
    """Conditions of which one must hold (none: it always does), and the set looked into.

    None if it cannot match. What cannot be read hinders an accept rule, and no drop rule.
    """
    if group[0].field == STATE:
        wanted = {it for it in CT_STATES.values() if any(one.holds(it) for one in group[0].values)}
        states = state_conditions(kind, direction, wanted)
        return None if states is None else (states, None)
    readings = [kind.readings.get(match.field, ABSENT) for match in group]
    if ABSENT in readings or (UNREADABLE in readings and not drops):
        return None
    if len(group) == 1 and UNREADABLE in readings:
        return [], None
    if group[0].use is None:
        conditions = _constant(group[0], readings[0])
        return None if conditions is None else (conditions, None)
    if len(group) == 1 and _everything(values_of(group[0], environment), readings[0]):
        return [], None
    return _looked_up(group, readings, PORT[direction], environment)


def _constant(match: Match, reading: Reading) -> list[str] | None:
    """Alternatives for constants; None: never, and no alternative: always."""
    if isinstance(reading, Known):
        return [] if any(value.holds(reading.value) for value in match.values) else None
    if isinstance(reading, Words):
        wanted = [
            text
            for word, text in reading.conditions.items()
            if any(value.holds(word) for value in match.values)
        ]
        return wanted or None
    if not isinstance(reading, Bytes):
        return None
    return _compared(reading, match.values)


def _compared(reading: Bytes, values: Sequence[Value]) -> list[str] | None:
    top = (1 << reading.bits) - 1
    low, high = reading.never
    spans = merged(
        value
        for value in values
        if isinstance(value, Span)
        and value.low <= top
        and not (low <= value.low and value.high <= high)
    )
    masks = [value for value in values if isinstance(value, Masked)]
    if any(span.low == 0 and span.high >= top for span in spans) or any(
        not value.mask for value in masks
    ):
        # All of them: that it is there is known.
        return []
    found = [f"{reading.text} & {m.mask:#x} == {m.value:#x}" for m in masks if m.value <= top]
    texts = [_span(span.low, min(span.high, top)) for span in spans]
    if len(texts) == 1:
        found.append(f"{reading.text} {texts[0]}")
    elif texts:
        found.append(f"{reading.text} {{ {', '.join(texts)} }}")
    return found or None


def _looked_up(
    group: Sequence[Match], readings: Sequence[Reading], port: str, environment: Environment
) -> tuple[list[str], Group | None] | None:
    """A look-up of the readable fields together, in the set of the combinations of theirs."""
    spans = any(not single(value) for match in group for value in values_of(match, environment))
    parts: list[tuple[str, str]] = []
    texts: list[str] = []
    for match, reading in zip(group, readings, strict=True):
        if match.use is None or reading is UNREADABLE:
            continue
        place = _place(match.field, reading)
        if place is None:
            return None
        parts.append((match.use.name, place.type))
        texts.append(place.text)
    of = "" if parts or group[0].use is None else group[0].use.name
    wanted = Group(tuple(parts), spans and bool(parts), of)
    return [looked_up(port, texts, wanted)], wanted


def looked_up(port: str, texts: Sequence[str], group: Group) -> str:
    """The condition that the port with the fields at these places is in the group's set."""
    return " . ".join([port, *texts]) + f" @{group.name}"


def shape(match: Match, environment: Environment) -> str:
    """What the rules for a match with a variable depend on beside its name; empty: nothing more."""
    if match.use is None:
        return ""
    values = values_of(match, environment)
    if all(map(single, values)):
        return ""
    everything = _everything(values, Bytes("", FIELDS[match.field].bits, ""))
    return f"{match.use}={'all' if everything else 'ranges'}"


def _everything(values: Sequence[Value], reading: Reading) -> bool:
    """Whether a variable's values are all that the field could have."""
    return isinstance(reading, Bytes) and any(
        isinstance(it, Span) and it.low == 0 and it.high >= (1 << reading.bits) - 1 for it in values
    )


def _place(field: str, reading: Reading) -> Bytes | None:
    """A field's bytes, to look them up: also where the kind tells its value; None: it has none.

    A variable's values are no words, nor `none`.
    """
    if isinstance(reading, Bytes):
        return reading
    if not isinstance(reading, Known) or reading.value == NO_LLADDR:
        return None
    if FIELDS[field].kind == "protocol":
        return Bytes("meta l4proto", 8, "l4")
    return Bytes("@ll,96,16", 16, "i16")


def single(value: Value) -> bool:
    """Whether it is one value and no range."""
    return isinstance(value, Span) and value.low == value.high


def merged(values: Iterable[Span]) -> list[Span]:
    """Spans that neither overlap nor touch, for the same numbers."""
    found: list[Span] = []
    for span in sorted(values):
        if found and span.low <= found[-1].high + 1:
            found[-1] = Span(found[-1].low, max(found[-1].high, span.high))
        else:
            found.append(span)
    return found


def _span(low: int, high: int) -> str:
    return f"{low:#x}" if low == high else f"{low:#x}-{high:#x}"
