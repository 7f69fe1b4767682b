"""Requests in flight on one ring: bounded by its slots, whatever the ends send."""

from __future__ import annotations

from collections import deque


class ById:
    """Answered in any order, each by its id; those without one are only counted."""

    def __init__(self) -> None:
        self._remembered: dict[int, int] = {}
        self._unnamed = 0

    def __len__(self) -> int:
        return len(self._remembered) + self._unnamed

    def __contains__(self, name: int) -> bool:
        return name in self._remembered

    def put(self, name: int | None, remembered: int) -> None:
        """A request; `name` is its id, not in flight yet."""
        if name is None:
            self._unnamed += 1
        else:
            self._remembered[name] = remembered

    def take(self, name: int | None) -> int | None:
        """What was remembered of the request that is answered; None if there is none."""
        if name is not None:
            return self._remembered.pop(name, None)
        if not self._unnamed:
            return None
        self._unnamed -= 1
        return 0


class InOrder:
    """Answered in the order asked; an answer with an id must have that of the oldest."""

    def __init__(self) -> None:
        self._asked: deque[tuple[int | None, int]] = deque()
        self._names: set[int] = set()

    def __len__(self) -> int:
        return len(self._asked)

    def __contains__(self, name: int) -> bool:
        return name in self._names

    def put(self, name: int | None, remembered: int) -> None:
        """A request; `name` is its id, not in flight yet."""
        self._asked.append((name, remembered))
        if name is not None:
            self._names.add(name)

    def take(self, name: int | None) -> int | None:
        """What was remembered of the request that is answered; None if it is not this one."""
        if not self._asked:
            return None
        oldest, remembered = self._asked[0]
        if name is not None and name != oldest:
            return None
        self._asked.popleft()
        if oldest is not None:
            self._names.discard(oldest)
        return remembered
