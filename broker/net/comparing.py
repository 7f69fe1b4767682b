"""Whether the kernel's sets hold what they should: all of them, or a few elements by their keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from broker.net.encoding import element, encoded, ending, key_bytes
from broker.net.filters.held import SLACK
from broker.net.readback import key_and_data
from broker.net.ruleset import specs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.net.readback import Readback
    from broker.net.ruleset import Content
    from broker.net.tables import SetSpec

_PAUSES: Final = (0.0, 0.002, 0.01, 0.05, 0.1)
"""Seconds before each look at a set that seems to differ: while the kernel moves the elements of
one that has grown to a larger hash table, a listing in several messages misses some."""

Place = tuple[str, str]
"""A table and a set."""


def set_that_differs(readback: Readback, content: Content, places: Iterable[Place]) -> str:
    """The first of these sets that does not hold its content, by name; empty if all do.

    Raises:
        NetError: the kernel does not tell.
    """
    for table, spec in specs(places):
        wanted = encoded(content, table, spec)
        for pause in _PAUSES:
            time.sleep(pause)
            if alike(content, readback.elements(table, spec.name), wanted, table, spec):
                break
        else:
            return f"{table} {spec.name}"
    return ""


def element_that_differs(
    readback: Readback, content: Content, before: Content, after: Content
) -> str:
    """The first set in which what was to go is there, or what was to come is not; empty if none.

    Each element is asked for by its key; sets of ranges are read whole, for there one of their
    values finds another. `content` is what all sets must hold.

    Raises:
        NetError: the kernel does not tell.
    """
    now = time.monotonic()
    asked = []
    ranges = set()
    for table, spec in specs({*before, *after}):
        place = table, spec.name
        if spec.ranges:
            ranges.add(place)
            continue
        come = after.get(place, {})
        asked += [
            (table, spec, key, element(spec, key, come[key], now) if key in come else None)
            for key in {**before.get(place, {}), **come}
        ]
    there = readback.present([(table, it.name, key_bytes(it, key)) for table, it, key, _ in asked])
    for (table, spec, key, wanted), found in zip(asked, there, strict=True):
        if found == wanted:
            continue
        one = {(table, spec.name): {} if wanted is None else {key: after[table, spec.name][key]}}
        held = dict([] if found is None else [key_and_data(found)])
        if not alike(content, held, encoded(one, table, spec), table, spec):
            return f"{table} {spec.name}"
    return set_that_differs(readback, content, ranges)


def alike(
    content: Content,
    found: dict[bytes, bytes],
    wanted: dict[bytes, bytes],
    table: str,
    spec: SetSpec,
) -> bool:
    """Whether what was found is what was wanted, leases that have just ended left out."""
    if found == wanted:
        return True
    ends, soon = ending(content, table, spec), time.monotonic() + SLACK
    left = {key: data for key, data in wanted.items() if ends.get(key, soon) >= soon}
    return found.items() <= wanted.items() and left.items() <= found.items()
