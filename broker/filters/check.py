"""What is wrong with a profile although each word of it is good.

Rules that never match, or are never reached because an earlier one decides all that they could.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.filters.fields import (
    ALWAYS_READABLE,
    ETHER_ARP,
    ETHER_IPV4,
    ETHER_IPV6,
    FIELDS,
    ICMP,
    ICMPV6,
    TAGS,
    TCP,
    UDP,
)
from broker.filters.model import Rule
from broker.filters.values import Masked, Span
from broker.text.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.filters.model import Direction, Include, Match, Profile
    from broker.filters.values import Value

_IP: Final = frozenset({ETHER_IPV4, ETHER_IPV6})
_V4: Final = frozenset({ETHER_IPV4})
_V6: Final = frozenset({ETHER_IPV6})
_ETHER: Final = "ether.type"
_UPPER: Final = "protocol"
_KIND: Final = "icmpv6.type"
_NEEDS: Final[dict[str, dict[str, frozenset[int]]]] = {
    "vlan": {_ETHER: TAGS},
    "arp": {_ETHER: frozenset({ETHER_ARP})},
    "ip": {_ETHER: _V4},
    "ip6": {_ETHER: _V6},
    "icmp": {_ETHER: _V4, _UPPER: frozenset({ICMP})},
    "icmpv6": {_ETHER: _V6, _UPPER: frozenset({ICMPV6})},
    "nd": {_ETHER: _V6, _UPPER: frozenset({ICMPV6})},
    "nd.target": {_KIND: frozenset({135, 136, 137})},
    "nd.lladdr": {_KIND: frozenset({133, 135, 136})},
    "tcp": {_ETHER: _IP, _UPPER: frozenset({TCP})},
    "udp": {_ETHER: _IP, _UPPER: frozenset({UDP})},
    "dhcp": {_ETHER: _V4, _UPPER: frozenset({UDP})},
    "dhcpv6": {_ETHER: _V6, _UPPER: frozenset({UDP})},
}
"""What a frame must be for a header, or a field of it, to be there."""
_ASKED_BY: Final = {
    _ETHER: (_ETHER,),
    _UPPER: ("ip.protocol", "ip6.protocol"),
    _KIND: (_KIND,),
}
_UPPER_HEADERS: Final = frozenset({"icmp", "icmpv6", "nd", "tcp", "udp", "dhcp", "dhcpv6"})
_LATER: Final = (Span(2, 2),)


def check_profile(profile: Profile) -> list[Problem]:
    """Contradictions, and what is never reached, each at its place."""
    problems = []
    for number, step in enumerate(profile.steps):
        before = profile.steps[:number]
        message = _contradiction(step) if isinstance(step, Rule) else _again(step, before)
        if not message:
            message = _unreachable(step, before)
        if message:
            problems.append(problem_at(step.where, message))
    return problems


def problem_at(where: str, message: str) -> Problem:
    """A problem at a `file:line:column`."""
    source, line, column = where.rsplit(":", 2)
    return Problem(source, int(line), int(column), message)


def _needs(match: Match) -> dict[str, frozenset[int]]:
    return _NEEDS.get(FIELDS[match.field].header, {}) | _NEEDS.get(match.field, {})


def _needed(matches: Iterable[Match], what: str) -> tuple[frozenset[int] | None, str]:
    """What `matches` together need of a frame in one respect, and the first two that differ."""
    needed: frozenset[int] | None = None
    by: list[str] = []
    for match in matches:
        values = _needs(match).get(what)
        if values is None:
            continue
        narrowed = values if needed is None else needed & values
        if narrowed != needed:
            by.append(match.field)
        needed = narrowed
    return needed, " and ".join(by)


def _contradiction(rule: Rule) -> str:
    """Why no frame can ever match, or empty."""
    by_field = {match.field: match for match in rule.matches}
    for what, asked_by in _ASKED_BY.items():
        needed, by = _needed(rule.matches, what)
        if needed is None:
            continue
        if not needed:
            return f"no frame matches: {by} exclude each other"
        for field in asked_by:
            asked = by_field.get(field)
            if asked is not None and asked.use is None and not _any(asked.values, needed):
                return f"no frame matches: {by} and this {field} exclude each other"
    for field in ("ip.fragment", "ip6.fragment"):
        asked = by_field.get(field)
        upper = [it.field for it in rule.matches if FIELDS[it.field].header in _UPPER_HEADERS]
        if asked is not None and asked.values == _LATER and upper:
            return f"no frame matches: a later fragment has no {upper[0]}"
    return _ports(by_field)


def _ports(by_field: dict[str, Match]) -> str:
    """DHCP is known by its ports: where both are said, one must be one of DHCP's."""
    for header, ports in (("dhcp", (67, 68)), ("dhcpv6", (546, 547))):
        if not any(FIELDS[field].header == header for field in by_field):
            continue
        said = [by_field.get(field) for field in ("udp.sport", "udp.dport")]
        if all(it is not None and it.use is None and not _any(it.values, ports) for it in said):
            return f"no frame matches: {header} has one of the ports {ports[0]} and {ports[1]}"
    return ""


def _again(include: Include, before: Sequence[Rule | Include]) -> str:
    """Where a profile is included already, or empty."""
    for step in before:
        if not isinstance(step, Rule) and step.includes == include.includes:
            return f"{include.includes} is included already, at {step.where}"
    return ""


def _any(values: Sequence[Value], numbers: Iterable[int]) -> bool:
    return any(value.holds(number) for value in values for number in numbers)


def _unreachable(step: Rule | Include, before: Sequence[Rule | Include]) -> str:
    directions: tuple[Direction, ...] = ("from-guest", "to-guest")
    if isinstance(step, Rule):
        directions = step.directions
    coverers = []
    for direction in directions:
        found = [
            rule
            for rule in before
            if isinstance(rule, Rule) and direction in rule.directions and _covers(rule, step)
        ]
        if not found:
            return ""
        coverers.append(found[0].where)
    return f"never reached: the rule at {coverers[0]} decides all of it before"


def _covers(rule: Rule, step: Rule | Include) -> bool:
    """Whether `rule` decides every frame that `step` would."""
    if rule.limit is not None:
        return False
    if not isinstance(step, Rule):
        return not rule.matches
    # A drop also matches what cannot be read, which no accept with a match does.
    unread = any(match.field not in ALWAYS_READABLE for match in step.matches)
    if rule.verdict == "accept" and step.verdict == "drop" and rule.matches and unread:
        return False
    return all(_group_covers(group, step) for group in rule.groups())


def _group_covers(group: Sequence[Match], step: Rule) -> bool:
    if len(group) > 1:
        wanted = {(match.field, match.use and match.use.name) for match in group}
        return any(
            wanted <= {(match.field, match.use and match.use.name) for match in other}
            for other in step.groups()
        )
    match = group[0]
    for other in step.matches:
        if other.field != match.field:
            continue
        if match.use is None or other.use is None:
            return match.use is None and other.use is None and _within(other, match)
        return match.use.name == other.use.name
    return match.use is None and step.verdict == "accept" and _implied(match, step)


def _within(inner: Match, outer: Match) -> bool:
    return all(_held(value, outer.values) for value in inner.values)


def _held(value: Value, values: Sequence[Value]) -> bool:
    if value in values:
        return True
    if isinstance(value, Masked):
        return False
    low = value.low
    for span in sorted(it for it in values if isinstance(it, Span)):
        if span.low <= low <= span.high:
            low = span.high + 1
        if low > value.high:
            return True
    return value.low == value.high and any(it.holds(value.low) for it in values)


def _implied(match: Match, step: Rule) -> bool:
    """Whether what a rule asks of other fields makes this match hold."""
    for what, fields in _ASKED_BY.items():
        if match.field in fields:
            needed, _ = _needed(step.matches, what)
            if needed and all(any(it.holds(n) for it in match.values) for n in needed):
                # tcp is over both: ip.protocol needs the frame to be IPv4 as well.
                return what != _UPPER or FIELDS[match.field].header in _versions(step)
    return False


def _versions(step: Rule) -> frozenset[str]:
    needed, _ = _needed(step.matches, _ETHER)
    if needed == _V4:
        return frozenset({"ip"})
    return frozenset({"ip6"}) if needed == _V6 else frozenset()
