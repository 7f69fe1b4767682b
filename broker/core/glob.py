"""`match` values: exact texts, or globs whose `*` stands for any characters but `/`.

`*` is the only special character. A value with a `..` path component matches nothing.
"""

from __future__ import annotations

import functools
import re


def is_glob(pattern: str) -> bool:
    """Whether `pattern` is more than one exact text."""
    return "*" in pattern


def climbs(value: str) -> bool:
    """Whether `value` has a `..` path component."""
    return ".." in value and ".." in value.split("/")


def literal_prefix(pattern: str) -> str:
    """What every value that `pattern` matches begins with."""
    return pattern.partition("*")[0]


def matches(pattern: str, value: str) -> bool:
    """Whether `value` is one of those `pattern` stands for."""
    if climbs(value):
        return False
    if not is_glob(pattern):
        return value == pattern
    return _compiled(pattern).fullmatch(value) is not None


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Runs of `*` are one `*`; more would only make a failing match slow.
    parts = [re.escape(part) for part in re.split(r"\*+", pattern)]
    return re.compile("[^/]*".join(parts), re.DOTALL)


def covers(wide: str, narrow: str) -> bool:
    """Whether `wide` matches every value that `narrow` matches; exact, not a sample.

    A star of `narrow` can stand for a character that is in neither pattern, which only a star
    of `wide` can take up; so it is enough to match `narrow` itself, stars and all.
    """
    return narrow == wide or (is_glob(wide) and _compiled(wide).fullmatch(narrow) is not None)


def overlap(one: str, other: str) -> bool:
    """Whether some value matches both patterns; exact, not a sample.

    `*` never crosses `/`, so the patterns overlap iff they have as many components and each
    pair of components overlaps.
    """
    ones, others = one.split("/"), other.split("/")
    return len(ones) == len(others) and all(map(_components_overlap, ones, others))


def _components_overlap(one: str, other: str) -> bool:
    if not is_glob(one):
        return matches(other, one)
    if not is_glob(other):
        return matches(one, other)
    # Both have a `*`. What stands before the first and after the last one must agree; then
    # the longer beginning, all the middles of both one after another, and the longer end are
    # a common value (each pattern's stars take up the other's middles). There are infinitely
    # many, so that excluding `..` makes no difference.
    one_start, other_start = literal_prefix(one), literal_prefix(other)
    one_end, other_end = one.rpartition("*")[2], other.rpartition("*")[2]
    return (one_start.startswith(other_start) or other_start.startswith(one_start)) and (
        one_end.endswith(other_end) or other_end.endswith(one_end)
    )
