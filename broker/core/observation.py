"""Observe mode: which denied channels are opened all the same, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.core.definition import Observe

OBSERVED: Final = "observed:"
"""A grant whose reason begins with this would be a denial, if it were not for observe mode."""


def is_observed(reason: str) -> bool:
    """Whether a grant with this reason is one of observe mode alone."""
    return reason.startswith(OBSERVED)


class Observation:
    """The patterns of a policy's observe mode; without one nothing is opened."""

    def __init__(self, observe: Observe | None, groups: Mapping[str, tuple[str, ...]]) -> None:
        self._until = 0 if observe is None else observe.until
        self._patterns = [
            (
                frozenset(pattern.classes),
                _labels(pattern.frontends, groups),
                _labels(pattern.backends, groups),
                None if pattern.resources is None else frozenset(pattern.resources),
            )
            for pattern in (() if observe is None else observe.opens)
        ]

    def active(self, now: float) -> bool:
        """Whether anything is opened at all at `now`, POSIX seconds."""
        return bool(self._patterns) and now < self._until

    def opens(
        self, now: float, device_class: str, frontend: str, backend: str, resource: str | None
    ) -> bool:
        """Whether some pattern matches, and `now` (POSIX seconds) is before the end."""
        if not now < self._until:
            return False
        return any(
            device_class in classes
            and (frontends is None or frontend in frontends)
            and (backends is None or backend in backends)
            and (resources is None or resource in resources)
            for classes, frontends, backends, resources in self._patterns
        )


def _labels(
    words: Iterable[str] | None, groups: Mapping[str, tuple[str, ...]]
) -> frozenset[str] | None:
    """The labels that words name, groups resolved; None is everyone."""
    if words is None:
        return None
    labels: set[str] = set()
    for word in words:
        group = word.removeprefix(GROUP)
        labels.update([word] if group == word else groups[group])
    return frozenset(labels)
