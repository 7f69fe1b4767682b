"""What becomes of one frame, by the profiles alone: the plain reading of the language.

The compiled rules in the kernel are held to this by tests; `filter test` answers with it. Where
something cannot be evaluated, the frame is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.bind import tuples, values_of
from broker.filters.frame import ABSENT, Frame, Missing
from broker.filters.model import Include, Library, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.filters.model import Direction, Environment, Match, Profile, Rule

_YES: Final = 2
_UNREADABLE: Final = 1
_NO: Final = 0


class Outcome(msgspec.Struct, frozen=True):
    """A verdict, and who spoke: `rule` is `profile/number`, or `profile/default`.

    `unreadable`: a drop rule matched because a field of it could not be read. Where no profile is
    attached `rule` is empty.
    """

    verdict: Verdict
    rule: str
    where: str
    reason: str = ""
    unreadable: bool = False


NO_PROFILE: Final = Outcome("accept", "", "", "no filter profile is attached: labels decide alone")
_NO_FRAME: Final = Outcome("drop", "", "", "shorter than an Ethernet header")


class Asking(msgspec.Struct):
    """One frame in one direction on one vif; `within`: whether rate limits have room for it."""

    library: Library
    environment: Environment
    direction: Direction
    frame: Frame
    within: bool = True
    asked: dict[str, Outcome] = {}
    """What profiles have said: one that is included in many places is asked once."""


def evaluate(asking: Asking, names: Sequence[str]) -> Outcome:
    """What the vif's profiles say: the first drop, else the last that accepted.

    Raises:
        KeyError: a profile or a variable is not there: bind first.
    """
    if not asking.frame.whole:
        return _NO_FRAME
    outcome = NO_PROFILE
    for name in names:
        outcome = ask(asking, asking.library.profiles[name])
        if outcome.verdict == "drop":
            return outcome
    return outcome


def ask(asking: Asking, profile: Profile) -> Outcome:
    """What one profile says."""
    outcome = asking.asked.get(profile.name)
    if outcome is None:
        outcome = asking.asked[profile.name] = _ask(asking, profile)
    return outcome


def _ask(asking: Asking, profile: Profile) -> Outcome:
    for step in profile.steps:
        if isinstance(step, Include):
            outcome = ask(asking, asking.library.profiles[step.includes])
            if outcome.verdict == "drop":
                return outcome
        elif asking.direction in step.directions:
            matched = rule_matches(asking, step)
            if matched >= (_YES if step.verdict == "accept" else _UNREADABLE):
                return Outcome(
                    step.verdict, step.name, step.where, step.reason, matched == _UNREADABLE
                )
    verdict = profile.default[asking.direction]
    return Outcome(verdict, f"{profile.name}/default", profile.default_where)


def rule_matches(asking: Asking, rule: Rule) -> int:
    """2 if all of a rule's matches hold, 0 if one does not, 1 if only unreadable ones hinder."""
    found = min((group_matches(asking, rule, group) for group in rule.groups()), default=_YES)
    if rule.limit is not None and not asking.within:
        return _NO
    return found


def group_matches(asking: Asking, rule: Rule, group: Sequence[Match]) -> int:
    """As `rule_matches`, of one group: each field must hold, all in the same combination."""
    read = [asking.frame.field(match.field) for match in group]
    if ABSENT in read:
        return _NO
    values = [value for value in read if not isinstance(value, Missing)]
    if len(values) < len(read):
        return _UNREADABLE
    if len(group) == 1:
        wanted = values_of(group[0], asking.environment)
        return _YES if any(one.holds(values[0]) for one in wanted) else _NO
    for combination in tuples(rule, group, asking.environment):
        if all(one.holds(value) for value, one in zip(values, combination, strict=True)):
            return _YES
    return _NO
