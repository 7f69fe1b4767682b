"""Profiles together: every include there, in no circle, and each variable of one type."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from broker.filters.bind import BindError, variables_of
from broker.filters.check import problem_at
from broker.filters.load import load_profile
from broker.filters.model import Include, Library, Profile
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_PROFILES: Final = 256
MAX_DEPTH: Final = 8
"""Includes within includes."""


def load_library(files: Mapping[str, bytes]) -> Library:
    """The profiles of these files, by their names in messages.

    Raises:
        ProblemsError: with every problem of every file, or with what is wrong between them.
    """
    profiles: list[Profile] = []
    problems: list[Problem] = []
    for source, data in files.items():
        try:
            profiles.append(load_profile(data, source))
        except ProblemsError as error:
            problems += error.problems
    if problems:
        raise ProblemsError(problems)
    return build_library(profiles)


def build_library(profiles: Iterable[Profile]) -> Library:
    """These profiles as one library.

    Raises:
        ProblemsError: a name is there twice, an include is not there or goes round in a circle,
            or two profiles that work together declare one variable differently.
    """
    by_name: dict[str, Profile] = {}
    problems: list[Problem] = []
    for profile in profiles:
        other = by_name.setdefault(profile.name, profile)
        if other is not profile:
            said = f"profile {profile.name} is defined already: {other.default_where}"
            problems.append(problem_at(profile.default_where, said))
    if len(by_name) > MAX_PROFILES:
        last = list(by_name.values())[-1]
        problems.append(problem_at(last.default_where, f"more than {MAX_PROFILES} profiles"))
    for profile in by_name.values():
        problems += _includes(profile, by_name)
    if not problems:
        problems += _too_deep(by_name)
    if not problems:
        library = Library(by_name)
        for profile in by_name.values():
            try:
                variables_of(library, [profile.name])
            except BindError as error:
                problems.append(problem_at(profile.default_where, str(error)))
    if problems:
        raise ProblemsError(problems)
    return Library(by_name)


def _includes(profile: Profile, by_name: Mapping[str, Profile]) -> list[Problem]:
    problems = []
    for step in profile.steps:
        if not isinstance(step, Include):
            continue
        if step.includes not in by_name:
            close = difflib.get_close_matches(step.includes, list(by_name), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            problems.append(problem_at(step.where, f"there is no profile {step.includes}{hint}"))
            continue
        way = _way(step.includes, profile.name, by_name)
        if way:
            said = f"the includes go round: {' -> '.join((profile.name, *way))}"
            problems.append(problem_at(step.where, said))
    return problems


def _way(start: str, end: str, by_name: Mapping[str, Profile]) -> tuple[str, ...]:
    """The shortest way from one profile to another by includes; empty if there is none."""
    ways: dict[str, tuple[str, ...]] = {start: (start,)}
    waiting = [start]
    for name in waiting:
        if name == end:
            return ways[name]
        for included in by_name[name].includes() if name in by_name else ():
            if included not in ways:
                ways[included] = (*ways[name], included)
                waiting.append(included)
    return ()


def _too_deep(by_name: Mapping[str, Profile]) -> list[Problem]:
    """Profiles whose includes are nested too deep; they go round in no circle."""
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max(map(depth, by_name[name].includes()), default=-1)
        return depths[name]

    return [
        problem_at(profile.default_where, f"includes are nested more than {MAX_DEPTH} deep")
        for profile in by_name.values()
        if depth(profile.name) > MAX_DEPTH
    ]
