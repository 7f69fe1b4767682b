"""Which resource a device is: found by its class and keys, at a cost that hardly grows.

Per class, one key (that most resources match on) is indexed: exact values in a dict, globs by
what stands before their first `*`. Only the few candidates are compared in full.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from broker.core import glob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from broker.core.definition import Resource


class _ClassIndex:
    """The resources of one device class."""

    def __init__(self, resources: list[Resource]) -> None:
        counted = Counter(key for resource in resources for key in sorted(resource.match))
        self.key = counted.most_common(1)[0][0] if counted else ""
        self.exact: defaultdict[str, list[Resource]] = defaultdict(list)
        self.by_prefix: defaultdict[str, list[Resource]] = defaultdict(list)
        for resource in resources:
            pattern = resource.match.get(self.key, "*")
            if glob.is_glob(pattern):
                prefix = glob.literal_prefix(pattern) if self.key in resource.match else ""
                self.by_prefix[prefix].append(resource)
            else:
                self.exact[pattern].append(resource)
        self.prefix_lengths = sorted({len(prefix) for prefix in self.by_prefix})

    def candidates(self, start: str, exact: str | None) -> Iterator[Resource]:
        """Those whose indexed key may match `exact`, or anything that begins with `start`."""
        if exact is not None:
            yield from self.exact.get(exact, ())
        for length in self.prefix_lengths:
            if length > len(start):
                break
            yield from self.by_prefix.get(start[:length], ())


class ResourceIndex:
    """All resources that have a `match`."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        by_class: defaultdict[str, list[Resource]] = defaultdict(list)
        for resource in resources:
            if resource.device_class is not None:
                by_class[resource.device_class].append(resource)
        self._by_class = {name: _ClassIndex(members) for name, members in by_class.items()}

    def find(self, device_class: str, device: Mapping[str, str]) -> str | None:
        """The one resource that `device` is; None where it is none, or (a fault) several."""
        index = self._by_class.get(device_class)
        if index is None:
            return None
        value = device.get(index.key)
        found = [
            resource.name
            for resource in index.candidates(value or "", value)
            if _is_match(resource, device)
        ]
        return found[0] if len(found) == 1 else None

    def overlaps(self) -> Iterator[tuple[Resource, Resource]]:
        """Pairs of resources of which one device could be both."""
        for index in self._by_class.values():
            members = [r for group in index.exact.values() for r in group]
            members += [r for group in index.by_prefix.values() for r in group]
            seen: set[frozenset[str]] = set()
            for resource in members:
                pattern = resource.match.get(index.key, "*")
                exact = None if glob.is_glob(pattern) else pattern
                # Of two overlapping globs one's prefix begins with the other's: each pair is
                # met from the longer one.
                for other in index.candidates(glob.literal_prefix(pattern), exact):
                    pair = frozenset((resource.name, other.name))
                    if len(pair) == 2 and pair not in seen and _may_both(resource, other):
                        seen.add(pair)
                        yield resource, other


def _is_match(resource: Resource, device: Mapping[str, str]) -> bool:
    for key, pattern in resource.match.items():
        value = device.get(key)
        if value is None or not glob.matches(pattern, value):
            return False
    return True


def _may_both(one: Resource, other: Resource) -> bool:
    return all(
        glob.overlap(pattern, other.match[key])
        for key, pattern in one.match.items()
        if key in other.match
    )
