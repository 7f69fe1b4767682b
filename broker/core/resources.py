"""Which resource a device is: found by its class and keys, at a cost that hardly grows.

Per class, one key (that most resources match on) is indexed: exact values in a dict, globs by
what stands before their first `*`. Only the few candidates are compared in full. Of several that
a device is, the most specific one counts: the one whose devices are all the others' too.
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
        """The most specific resource that `device` is; None where there is none, or a tie."""
        index = self._by_class.get(device_class)
        if index is None:
            return None
        value = device.get(index.key)
        found = [
            resource
            for resource in index.candidates(value or "", value)
            if _is_match(resource, device)
        ]
        if len(found) > 1:
            found = [one for one in found if _most_specific(one, found)]
        return found[0].name if found else None

    def ties(self) -> Iterator[tuple[Resource, Resource]]:
        """Pairs of resources of which one device could be both, and neither is more specific."""
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
                    if len(pair) == 2 and pair not in seen and _tie(resource, other):
                        seen.add(pair)
                        yield resource, other


def _is_match(resource: Resource, device: Mapping[str, str]) -> bool:
    for key, pattern in resource.match.items():
        value = device.get(key)
        if value is None or not glob.matches(pattern, value):
            return False
    return True


def _most_specific(one: Resource, found: Iterable[Resource]) -> bool:
    return all(one is other or _narrower(one, other) for other in found)


def _narrower(one: Resource, other: Resource) -> bool:
    """Whether every device that is `one` is `other` too, and not the other way round."""
    return _within(one, other) and not _within(other, one)


def _within(one: Resource, other: Resource) -> bool:
    return all(
        key in one.match and glob.covers(pattern, one.match[key])
        for key, pattern in other.match.items()
    )


def _tie(one: Resource, other: Resource) -> bool:
    return _may_both(one, other) and not (_narrower(one, other) or _narrower(other, one))


def _may_both(one: Resource, other: Resource) -> bool:
    return all(
        glob.overlap(pattern, other.match[key])
        for key, pattern in one.match.items()
        if key in other.match
    )
